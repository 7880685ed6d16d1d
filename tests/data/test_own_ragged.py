"""Images of different sizes: a task that says so gets each batch as a list, from a dataset and from a loader."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import tutelage
from tutelage.core.teachers import FrozenTeacher
from tutelage.data import task as tasks
from tutelage.data.batch import Batch
from tutelage.data.own import OwnLoader, OwnSamples
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.tasks.classification import Classification

SAMPLES = 24


class Ragged(Classification):
    """Classification of images as they are: they differ in size."""

    name = "ragged"
    salt = b"ragged"
    ragged = True


class Photos:
    """Bright and dark images, uint8, each of another size than the last."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        label = index % 2
        return torch.full((3, 4 + index % 3, 5 + index % 4), 40 + 160 * label, dtype=torch.uint8), label


class MeanColours(nn.Module):
    """A network that takes a list of images, each of a size of its own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.classifier = nn.Linear(3, 2)

    def forward(self, images):
        return self.classifier(torch.stack([image.mean((1, 2)) for image in images]))


@pytest.fixture(autouse=True)
def ragged(monkeypatch):
    point = SimpleNamespace(name="ragged", load=lambda: TASK)
    monkeypatch.setattr(tasks, "entry_points", lambda group: [point] if group == tasks.ENTRY_POINTS else [])


TASK = Ragged()


def test_a_batch_is_a_list_with_one_image_a_sample():
    samples = OwnSamples(Photos(), TASK)
    assert samples.size == ()
    inputs, targets = samples.read_batch([0, 1, 5])
    assert [tuple(image.shape) for image in inputs] == [(3, 4, 5), (3, 5, 6), (3, 6, 6)]
    assert inputs[1].max() == pytest.approx(200 / 255)
    assert targets.tolist() == [0, 1, 1]
    # A list even if the sizes happen to agree: a network must not meet both.
    assert isinstance(samples.read_batch([0, 12])[0], list)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_dataset_count_samples_and_keep_them(workers):
    data = as_data(Photos(), task="ragged", hold_out=0)
    batches = list(data.loader("train", train=True, batch_size=8, workers=workers).epoch(0))
    assert [len(Batch(inputs=batch.inputs)) for batch in batches] == [8, 8, 8]
    assert sorted(int(index) for batch in batches for index in batch.indices) == list(range(SAMPLES))
    assert len(data.example(3)) == 3


def test_a_loader_may_yield_lists_and_processes_share_them():
    loader = DataLoader(Photos(), batch_size=6, collate_fn=lambda rows: tuple(map(list, zip(*rows, strict=True))))
    parts = [next(OwnLoader(loader, TASK, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    shapes = [tuple(image.shape) for part in parts for image in part.inputs]
    assert shapes == [tuple(Photos()[index][0].shape) for index in (0, 2, 4, 1, 3, 5)]
    assert parts[0].inputs[0].dtype == torch.float32
    with pytest.raises(UserError, match="inputs are a list"):
        next(OwnLoader(loader, tasks.task_named("classification")).epoch(0))


def test_students_learn_from_teachers_on_images_of_several_sizes():
    torch.manual_seed(0)
    teacher = MeanColours(1)
    with torch.no_grad():
        teacher.classifier.weight.copy_(torch.tensor([[-9.0] * 3, [9.0] * 3]))
        teacher.classifier.bias.copy_(torch.tensor([14.0, -14.0]))
    student = tutelage.distill(
        "kd", student=MeanColours(2), teacher=FrozenTeacher(teacher), data=Photos(), validation=Photos(), task="ragged",
        epochs=20, batch_size=8, lr=1.0, device="cpu", progress=False,
    )  # fmt: skip
    scores = tutelage.evaluate(student, data=Photos(), task="ragged")
    assert scores.accuracy == 1


def test_augmentation_is_the_datasets_own():
    with pytest.raises(UserError, match="augment in the dataset"):
        as_data(Photos(), task="ragged", augment="flip")
