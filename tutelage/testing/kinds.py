"""Toy data of every kind, and networks that answer them: the conformance suite tries each method on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from tutelage.core.registry import Entry
from tutelage.core.teachers import FrozenTeacher, Teacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.novel import with_novel
from tutelage.data.offers import Offer
from tutelage.data.task import Task, task_named
from tutelage.experiments.choice import Choice
from tutelage.experiments.experiment import Experiment
from tutelage.experiments.serving import why_not
from tutelage.losses import UNLABELLED
from tutelage.models.blueprint import Blueprint
from tutelage.testing.maps import Maps, ToyMapNetwork
from tutelage.testing.texts import TOKENS, WORDS, ToyTextNetwork, ToyTexts
from tutelage.testing.tokens import ToyLanguageNetwork, toy_corpus
from tutelage.testing.toys import BATCH, CLASSES, SAMPLES, SIZE, STUDENT_WIDTH, TEACHER_WIDTH, ToyNetwork, toy_data

VALUES = 3
# Places without a label, in each map as many: the mean over what is labelled in two halves of a batch is then the whole
# batch's.
_UNLABELLED_PLACES = 20
OF_ANSWERS: frozenset[Offer] = frozenset({"answers", "classes"})
"""Offers that come from a teacher's answers."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of data, with networks that take it.

    Attributes:
        title: What it is called in a table.
        data: Makes the data.
        network: Makes a network of a width; with or without a normalisation over the batch.
        headless: Makes a teacher's network without a classifier, so that only its layers can be read; by default the
            teacher is a wider student.
        brief: Whether the checks that take many steps are left out, which depend least on the data.
    """

    title: str
    data: Callable[[], Data]
    network: Callable[[int, bool], nn.Module]
    headless: Callable[[int, bool], nn.Module] | None = None
    brief: bool = False

    @property
    def offers(self) -> frozenset[Offer]:
        """What methods may read of the data, and of what a teacher answers."""
        # A teacher without a classifier takes away what its answers would offer.
        found = self.data().offers
        return found if self.headless is None else found - OF_ANSWERS

    def batch(self) -> Batch:
        """Return the first training batch."""
        return next(iter(self.data().loader("train", train=False, batch_size=BATCH).epoch(0)))

    def experiment(
        self, *, batch_norm: bool = True, teacher: Teacher | None = None, teacher_width: int = TEACHER_WIDTH
    ) -> Experiment:
        """Return the data, three students and a larger teacher with fixed weights.

        Args:
            batch_norm: Whether the networks normalise over the batch.
            teacher: The teacher to use instead of the network.
            teacher_width: How wide the teacher is.
        """

        def blueprint(width: int, make: Callable[[int, bool], nn.Module]) -> Blueprint:
            def build() -> nn.Module:
                return make(width, batch_norm)

            return Blueprint(make=build, name=f"toy-{width}", trained=True, untrained=build)

        large = blueprint(teacher_width, self.headless or self.network)
        students = tuple(blueprint(width, self.network) for width in (STUDENT_WIDTH, 8, 6))
        answers = teacher or FrozenTeacher(large.build(0, "teacher"))
        return Experiment(data=self.data(), students=students, teachers=(large,), answers=answers)


def _with(targets: Tensor | None, task: Task, *, outputs: int, plain: bool = False) -> Data:
    """Return the toy images with other targets, as another task."""
    data = toy_data()
    samples = data.train
    assert isinstance(samples, ResidentImages)
    # One set of samples serves as every split: the checks compare, and do not measure.
    splits = dict.fromkeys(data.splits, samples.with_targets(targets))
    return replace(
        data,
        name=f"toy {task.title}",
        splits=splits,
        task=task,
        num_classes=outputs,
        class_names=data.class_names[:outputs],
        augmentation=Augmentation() if plain else data.augmentation,
        unlabelled=frozenset(splits) if targets is None else frozenset(),
    )


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _sets() -> Data:
    targets = (torch.rand(SAMPLES, CLASSES, generator=_drawn()) < 0.4).float()
    return _with(targets, task_named("multi-label"), outputs=CLASSES)


def _numbers() -> Data:
    return _with(torch.randn(SAMPLES, VALUES, generator=_drawn()), task_named("regression"), outputs=VALUES)


def _maps() -> Data:
    labels = torch.randint(CLASSES, (SAMPLES, SIZE[0] * SIZE[1]), generator=_drawn())
    # The argsort of random numbers is a random order, and its first entries are places drawn without repetition.
    hidden = torch.rand(labels.shape, generator=_drawn()).argsort(1)[:, :_UNLABELLED_PLACES]
    labels = labels.scatter(1, hidden, UNLABELLED).view(SAMPLES, *SIZE)
    return _with(labels, Maps(), outputs=CLASSES, plain=True)


def _depths() -> Data:
    depths = 0.5 + 3 * torch.rand(SAMPLES, SIZE[0] * SIZE[1], generator=_drawn())
    hidden = torch.rand(depths.shape, generator=_drawn()).argsort(1)[:, :_UNLABELLED_PLACES]
    depths = depths.scatter(1, hidden, 0.0).view(SAMPLES, *SIZE)
    return _with(depths, task_named("depth"), outputs=1, plain=True)


def _texts() -> Data:
    words = torch.randint(1, WORDS, (SAMPLES, TOKENS), generator=_drawn())
    # From three words to a full row, so that padding differs by sample.
    mask = (torch.arange(TOKENS) < torch.randint(3, TOKENS + 1, (SAMPLES, 1), generator=_drawn())).long()
    samples = ToyTexts(words * mask, mask, torch.arange(SAMPLES) % CLASSES)
    return Data(
        name="toy texts",
        splits=dict.fromkeys(("train", "validation", "test"), samples),
        num_classes=CLASSES,
        class_names=toy_data().class_names,
        fingerprint="toy texts",
    )


def _tokens() -> Data:
    return Data(
        name="toy corpus",
        splits=dict.fromkeys(("train", "validation", "test"), toy_corpus()),
        task=task_named("language"),
        num_classes=WORDS,
        class_names=(),
        fingerprint="toy corpus",
    )


def _unlabelled() -> Data:
    return _with(None, task_named("unlabelled"), outputs=CLASSES)


def _discovery() -> Data:
    # Four known classes and two novel ones, so that both halves of a batch have as many labels.
    return replace(with_novel(toy_data(), CLASSES - 4), name="toy discovery")


def _images(outputs: int = CLASSES) -> Callable[[int, bool], nn.Module]:
    return lambda width, batch_norm: ToyNetwork(width, batch_norm=batch_norm, outputs=outputs)


def _headless(width: int, batch_norm: bool) -> nn.Module:
    network = ToyNetwork(width, batch_norm=batch_norm)
    # As timm leaves a network with `num_classes=0`.
    network.set_submodule("classifier", nn.Identity())
    return network


LABELS = Kind(title="images with a class each", data=toy_data, network=_images())
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "labels": LABELS,
        "multi-label": Kind(title="images with several classes each (multi-label)", data=_sets, network=_images()),
        "regression": Kind(title="images with numbers each (regression)", data=_numbers, network=_images(VALUES)),
        "maps": Kind(
            title="a class at each place of an image (maps)",
            data=_maps,
            network=lambda width, batch_norm: ToyMapNetwork(width, batch_norm=batch_norm),
        ),
        "depth": Kind(
            title="a depth at each place of an image (depth)",
            data=_depths,
            network=lambda width, batch_norm: ToyMapNetwork(width, batch_norm=batch_norm, outputs=1),
            brief=True,
        ),
        "text": Kind(title="texts with a class each", data=_texts, network=lambda width, _: ToyTextNetwork(width)),
        "language": Kind(
            title="texts, each token from those before it (language)",
            data=_tokens,
            network=lambda width, _: ToyLanguageNetwork(width),
            brief=True,
        ),
        "unlabelled": Kind(title="images without labels", data=_unlabelled, network=_images()),
        "discovery": Kind(
            title="images of known classes, and unlabelled ones of novel classes (discovery)",
            data=_discovery,
            network=_images(),
        ),
        "headless": Kind(
            title="images without labels, and a teacher without a classifier",
            data=_unlabelled,
            network=_images(),
            headless=_headless,
        ),
    }
)
"""The kinds of data by name, the one that every method serves first."""


def home(entry: Entry) -> Kind:
    """Return the first kind of data that a method serves: labelled images, unless it needs what these do not offer."""
    served = (kind for kind in KINDS.values() if why_not(Choice(entry, {}), kind.offers) is None)
    return next(served, LABELS)
