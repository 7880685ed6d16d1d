import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher
from tutelage.data.images import ResidentImages
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.recording.identity import DataIdentity, TeacherIdentity, spread


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5)).eval()


def built():
    net = network()
    net(torch.zeros(1, 3, 8, 8))
    return net


def teacher(net, name="net"):
    return TeacherIdentity.of(net, name=name, source="runs/teacher")


def normalized(net, mean=0.5):
    return Normalized(net, (mean,) * 3, (0.25,) * 3)


def test_a_network_is_the_same_however_it_is_wrapped():
    net = built()
    identity = teacher(normalized(net))
    assert identity.weights == teacher(net).weights
    assert identity == teacher(torch.compile(normalized(net)))
    assert identity == teacher(normalized(nn.DataParallel(net)))
    assert identity.differences(teacher(normalized(built()))) == []


def test_other_weights_are_told():
    before, net = teacher(built()), built()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1e-6
    [line] = before.differences(teacher(net, "other"))
    assert line.startswith("other weights of the teacher")
    assert "net, runs/teacher" in line
    assert "other, runs/teacher" in line


def test_other_batch_statistics_are_other_weights():
    net = built()
    net[1].running_mean += 1
    assert "other weights" in teacher(built()).differences(teacher(net))[0]


def test_buffers_that_no_state_dict_holds_count():
    first, second = built(), built()
    first.register_buffer("scale", torch.ones(1), persistent=False)
    second.register_buffer("scale", torch.zeros(1), persistent=False)
    assert teacher(first).weights != teacher(second).weights


def test_another_normalisation_is_told_as_such():
    [line] = teacher(normalized(built())).differences(teacher(normalized(built(), mean=0.4)))
    assert line == (
        "another normalisation of the teacher's inputs "
        "(0.5/0.5/0.5:0.25/0.25/0.25 there, 0.4/0.4/0.4:0.25/0.25/0.25 here)"
    )
    assert teacher(normalized(built())).differences(teacher(built()))[0].endswith("none here)")


def test_the_normalisation_inside_an_ensemble_counts_and_is_no_weight():
    def ensemble(mean):
        return EnsembleTeacher([FrozenTeacher(normalized(built())), FrozenTeacher(normalized(built(), mean))])

    [line] = teacher(ensemble(0.3)).differences(teacher(ensemble(0.2)))
    assert line.startswith("another normalisation")


def test_another_name_or_place_is_no_difference():
    net = built()
    assert teacher(net, "a").differences(replace(teacher(net, "b"), source="elsewhere")) == []


def test_teachers_without_weights_are_told_apart_by_name():
    silent = nn.Identity()
    assert teacher(silent).weights == ""
    assert teacher(silent, "a").differences(teacher(silent, "b")) == ["another teacher (a there, b here)"]


class Chance(Dataset):
    """Its transform draws at random."""

    targets = torch.arange(40) % 4

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.rand(3, 8, 8), int(self.targets[index])


def pairs(images, **options):
    return as_data(TensorDataset(images, torch.arange(len(images)) % 4), **options)


def folder(path, classes=("cat", "dog"), size=8, **options):
    """A folder of images, all of another colour, which are read when they are needed."""
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for number in range(50):
            image = Image.new("RGB", (8, 8), (number, 100 * label, 7))
            image.putpixel((0, 0), (255, 255, 255))
            image.save(path / name / f"{number:02}.png")
    return load_data(str(path), image_size=size, validation=0, resident_limit_mib=0, **options)


def resident(labels, images=None, names=None):
    labels = torch.as_tensor(labels)
    if images is None:
        images = torch.arange(len(labels)).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    return as_data(ResidentImages(images, labels), hold_out=0, num_classes=4, class_names=names)


def test_data_are_the_same_each_time():
    data = load_data("digits")
    identity = DataIdentity.of(data)
    assert identity == DataIdentity.of(load_data("digits"))
    assert identity.differences(DataIdentity.of(data)) == []
    assert (identity.name, identity.class_names) == ("digits", data.class_names)
    assert identity.pixels


def test_only_the_training_split_counts(tmp_path):
    images = torch.rand(40, 3, 8, 8)
    alone, tested = pairs(images, hold_out=0), pairs(images, hold_out=0, test=TensorDataset(images, torch.zeros(40)))
    assert alone.fingerprint != tested.fingerprint
    assert DataIdentity.of(alone) == DataIdentity.of(tested)
    data = load_data("digits")
    without = replace(data.with_splits(validation=None, test=data.train.select(range(9))), fingerprint="other")
    assert DataIdentity.of(without) == DataIdentity.of(data)


def test_a_copy_elsewhere_is_the_same_data(tmp_path):
    data = folder(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos", tmp_path / "copy", copy_function=shutil.copy)
    copied = load_data(str(tmp_path / "copy"), image_size=8, validation=0, resident_limit_mib=0)
    first, second = DataIdentity.of(data), DataIdentity.of(copied)
    assert data.fingerprint != copied.fingerprint
    assert first.name != second.name
    assert first.differences(second) == []
    assert first.pixels == ""


def test_in_memory_and_read_from_disk_are_the_same_data(tmp_path):
    data = folder(tmp_path / "photos")
    held = load_data(str(tmp_path / "photos"), image_size=8, validation=0)
    first, second = DataIdentity.of(data), DataIdentity.of(held)
    assert (bool(first.pixels), bool(second.pixels)) == (False, True)
    assert first.differences(second) == second.differences(first) == []
    changed = held.with_splits(train=ResidentImages(255 - held.train.images, held.train.targets))
    assert first.differences(DataIdentity.of(changed))[0].startswith("other pixels")


def test_another_split_is_told():
    before = DataIdentity.of(load_data("digits"))
    other = DataIdentity.of(load_data("digits", split_seed=1))
    assert before.differences(other) == [
        "other labels: the training samples are others, or in another order",
        "other pixels: the images are others, or are decoded or transformed differently",
    ]
    # What another number of samples brings with it is not told again.
    assert before.differences(other, same_number=False) == []


def test_another_order_of_the_samples_is_told():
    before = DataIdentity.of(resident([0, 1, 2, 3]))
    images = torch.tensor([1, 0, 2, 3]).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    assert before.differences(DataIdentity.of(resident([1, 0, 2, 3], images)))[0].startswith("other labels")
    # Of one class: the labels stay, and the images move.
    before = DataIdentity.of(resident([0, 0, 2, 3]))
    [line] = before.differences(DataIdentity.of(resident([0, 0, 2, 3], images)))
    assert line.startswith("other pixels")


def test_one_label_is_enough():
    before = DataIdentity.of(resident([0, 1, 2, 3, 0]))
    [line] = before.differences(DataIdentity.of(resident([0, 1, 2, 3, 1])))
    assert line.startswith("other labels")


def test_one_pixel_is_enough_where_images_live_in_memory():
    data = load_data("digits")
    before, images = DataIdentity.of(data), data.train.images.clone()
    assert 1 not in spread(len(images), 64)
    images[1, 0, 3, 3] ^= 1
    after = DataIdentity.of(data.with_splits(train=ResidentImages(images, data.train.targets)))
    assert after.probes == before.probes
    assert before.differences(after) == [
        "other pixels: the images are others, or are decoded or transformed differently"
    ]


def test_of_images_on_disk_sixty_four_are_looked_at(tmp_path):
    data = folder(tmp_path / "photos")
    before, looked_at = DataIdentity.of(data), spread(len(data.train), 64)
    missed = next(position for position in range(len(data.train)) if position not in looked_at)
    for position, told in ((missed, False), (looked_at[30], True)):
        number, label, _ = data.train[position][0][:, 1, 1].tolist()
        name = ("cat", "dog")[label // 100]
        image = Image.new("RGB", (8, 8), (9, 9, 200))
        image.putpixel((0, 0), (255, 255, 255))
        image.save(tmp_path / "photos" / name / f"{number:02}.png")
        after = DataIdentity.of(load_data(str(tmp_path / "photos"), image_size=8, validation=0, resident_limit_mib=0))
        assert bool(before.differences(after)) == told


def test_images_decoded_to_another_size_are_told_by_their_size_alone(tmp_path):
    before = DataIdentity.of(folder(tmp_path / "photos"))
    after = DataIdentity.of(load_data(str(tmp_path / "photos"), image_size=6, validation=0, resident_limit_mib=0))
    assert before.differences(after, same_size=False) == []
    assert before.differences(after)[0].startswith("other pixels")


def test_another_dataset_is_told_by_name():
    before = DataIdentity.of(load_data("digits"))
    other = replace(before, name="cifar10", labels="x")
    assert before.differences(other)[0] == "another dataset (digits there, cifar10 here)"
    assert before.differences(replace(before, name="cifar10")) == []
    assert before.differences(replace(before, name="cifar10"), same_number=False) == [
        "another dataset (digits there, cifar10 here)"
    ]


def test_another_order_of_the_classes_has_its_own_reason():
    before = DataIdentity.of(resident([0, 1, 2, 3], names=("ant", "bee", "cat", "dog")))
    turned = DataIdentity.of(resident([0, 2, 1, 3], names=("ant", "cat", "bee", "dog")))
    assert before.differences(turned)[0] == "another order of the classes ('bee' is number 1 there, 2 here)"
    moved = replace(before, class_names=("dog", "eel", "fox", "gnu"))
    assert before.differences(moved) == ["another order of the classes ('dog' is number 3 there, 0 here)"]
    # Other words for the same labels of the same images; and a word for two classes says nothing.
    assert before.differences(replace(before, class_names=("a", "b", "c", "d"))) == []
    twice = replace(before, class_names=("ant", "crane", "crane", "dog"))
    assert twice.differences(twice) == []
    assert twice.differences(replace(before, class_names=("ant", "crane", "bird", "dog"))) == []


def test_images_that_chance_changes_are_refused():
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"differ each time .* --augment"):
        DataIdentity.of(as_data(Chance()))
    assert torch.get_rng_state().equal(state)


def test_a_loader_is_refused():
    data = load_data("digits")
    with pytest.raises(UserError, match="pass the dataset"):
        DataIdentity.of(data.with_splits(train=DataLoader(data.train)))


def test_a_few_samples_are_enough():
    data = load_data("digits")
    assert DataIdentity.of(data.with_splits(train=data.train.select([5]))).pixels


def test_numbers_are_spread_from_the_first_to_the_last():
    assert spread(1000, 5) == [0, 250, 500, 749, 999]
    assert spread(3, 16) == [0, 1, 2]
    assert spread(1, 16) == [0]
