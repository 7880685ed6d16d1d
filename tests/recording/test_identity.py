from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tutelage.data.as_data import as_data
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.recording.identity import DataIdentity, TeacherIdentity
from tutelage.teachers import EnsembleTeacher, FrozenTeacher


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


def pairs(images):
    return as_data(TensorDataset(images, torch.arange(len(images)) % 4))


def test_data_are_the_same_each_time():
    data = load_data("digits")
    identity = DataIdentity.of(data)
    assert identity == DataIdentity.of(load_data("digits"))
    assert identity.differences(DataIdentity.of(data)) == []
    assert (identity.name, identity.fingerprint) == ("digits", data.fingerprint)


def test_another_split_is_other_data():
    before = DataIdentity.of(load_data("digits"))
    [line] = before.differences(DataIdentity.of(load_data("digits", validation=0.2)))
    assert line == "another dataset: digits has another content, or other samples of it are for training"


def test_another_dataset_is_told_by_name():
    before = DataIdentity.of(load_data("digits"))
    assert before.differences(replace(before, name="cifar10", fingerprint="x")) == [
        "another dataset (digits there, cifar10 here)"
    ]


def test_pixels_are_compared_where_the_fingerprint_sees_only_the_first():
    images = torch.rand(40, 3, 8, 8)
    before, data = DataIdentity.of(pairs(images)), pairs(torch.cat([images[:1], images[1:] * 0.5]))
    after = DataIdentity.of(replace(data, fingerprint=before.fingerprint))
    assert before.differences(after)[0].startswith("other pixels")


def test_images_that_chance_changes_are_refused():
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"differ each time .* --augment"):
        DataIdentity.of(as_data(Chance()))
    assert torch.get_rng_state().equal(state)


def test_a_loader_is_refused():
    data = load_data("digits")
    with pytest.raises(UserError, match="pass the dataset"):
        DataIdentity.of(replace(data, train=DataLoader(data.train)))


def test_a_few_samples_are_enough():
    data = load_data("digits")
    assert DataIdentity.of(replace(data, train=data.train.select([5]))).pixels
