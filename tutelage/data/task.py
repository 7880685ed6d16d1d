"""The interface of a task: the targets of its samples, its losses, and its metrics."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.augment import Augmentation
from tutelage.data.criterion import Criterion, Density
from tutelage.data.map_format import MapFormat
from tutelage.data.offers import Offer
from tutelage.errors import UserError, unknown
from tutelage.system.grammar import read

if TYPE_CHECKING:
    from tutelage.data.names import Spec
    from tutelage.data.paired import MapReader
    from tutelage.data.samples import Samples
    from tutelage.data.survey import Survey

ENTRY_POINTS = "tutelage.tasks"

Detail = Literal["watched", "scores", "teacher", "full"]
"""How much is measured: what an epoch shows, what a row shows, what the report draws of a teacher, everything."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number measures, and how it is written.

    Attributes:
        title: Its name in a sentence, such as `accuracy`.
        short: Its name at the head of a column. Without it, the metric has no column in the tables of a report unless
            it is the task's primary one.
        unit: `share` for a fraction, which is shown in per cent; else the unit itself, such as `nats` or `metres`.
        higher_is_better: Its direction.
        digits: Digits after the point, as shown.
        significant: Whether these are significant digits instead, for values of a size that the task cannot know.
    """

    title: str
    short: str = ""
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 4
    significant: bool = False

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be shown: shares are shown in per cent."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def shown_unit(self) -> str:
        """The unit of a value as shown; empty for a bare number."""
        return "%" if self.unit == "share" else self.unit

    @property
    def difference_unit(self) -> str:
        """The unit of a difference as shown: of per cents it is points."""
        return "points" if self.unit == "share" else self.unit

    def better(self, one: float, other: float) -> bool:
        """Return whether one value is better than another; NaN is never better, and nothing is better than NaN."""
        # Comparisons with NaN are false in both directions.
        return one > other if self.higher_is_better else one < other

    def fitted(self, values: Iterable[float]) -> Metric:
        """Return the metric with enough digits after the point for the smallest of some values.

        Args:
            values: Values that are shown together. Zeros, and what is not finite, need none.
        """
        sizes = [abs(self.scale * value) for value in values if value and math.isfinite(value)]
        digits = self.digits
        if self.significant and sizes:
            # The logarithm gives the place of the first digit: -2 for 0.05. The smallest value has the latest one.
            digits = max(0, digits - 1 - math.floor(math.log10(min(sizes))))
        return replace(self, digits=digits, significant=False)

    def text(self, value: float) -> str:
        """Return a value with its unit."""
        number = f"{self.scale * value:.{self.fitted([value]).digits}f}"
        return f"{number} {self.shown_unit}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, from which `Metric(**values)` makes it again."""
        return asdict(self)


class Meter(ABC):
    """Measures answers batch by batch; it keeps sums, or a few numbers per sample, and never all answers."""

    @abstractmethod
    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            answer: `[batch, ...]`, on any device.
            targets: The batch's targets.
            members: The answers of an ensemble's members, `[member, batch, ...]`, where `answer` is an ensemble's.
        """

    def update_taught(self, answer: Tensor, taught: Tensor, targets: Any) -> None:
        """Compare a batch's answers with a teacher's, for a task that does so.

        Args:
            answer: `[batch, ...]`, on any device.
            taught: The teacher's answers to the same samples.
            targets: The batch's targets.
        """
        raise TypeError(f"{type(self).__name__} must define update_taught(answer, taught, targets)")

    def update_foreign(self, answer: Tensor, members: Tensor | None = None) -> None:
        """Add a batch of samples of another dataset, which the uncertainty should detect.

        Args:
            answer: `[batch, ...]`, on any device.
            members: The answers of an ensemble's members, `[member, batch, ...]`, where `answer` is an ensemble's.

        Raises:
            UserError: If the task has no uncertainty.
        """
        raise UserError(
            "Foreign data test a classifier's uncertainty, which this task does not have: leave out --foreign."
        )

    @abstractmethod
    def merge(self, later: Self) -> None:
        """Take in what another meter of the same kind saw, as if it had been seen after what this one saw.

        Several processes measure a part of a split each, and their meters become one.

        Args:
            later: The other meter. It is not used afterwards.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics by name. One that has no value on these samples is absent."""

    def compute_foreign(self) -> dict[str, float]:
        """Return the metrics by name that compare the samples with those of another dataset."""
        return {}

    def pictures(self) -> dict[str, Any]:
        """Return the data of the report's pictures of these answers, by the picture's name: plain values."""
        return {}


class Task(ABC):
    """A task: one file in `tasks/`. Training, comparison and report learn everything about it through this class.

    Attributes:
        name: Its name on the command line.
        title: Its name in sentences.
        metrics: What is measured, by name; `validation_` or `test_` before it makes a score's name.
        primary: The metric that chooses the epoch, and that rows are compared by.
        watched: The metrics that every epoch shows; cheap ones.
        further: Metrics that are measured only where they are asked for, by name.
        judges: The metrics that may choose the epoch and compare rows; they are measured after every epoch. Empty for
            the watched ones.
        offers: What methods may read of its data.
        criterion: The losses in training.
        hides_targets: Whether the targets of training and validation samples are removed, so that nothing learns from
            them.
        salt: The beginning of its data's fingerprint, so that the same files read for another task are other data.
        measures: What is measured: a network's answer, or the embedding that its classifier reads.
        outputs: The word for one of the numbers of an answer, and its plural.
        ragged: Whether a batch of images is a list of `[channel, height, width]`, because they may differ in size.
        map_format: How a sample's targets lie in files, if they are a map over its image, such as a mask.
        missing: The target of a place of a map that has none.
        known: How many classes training samples are labelled with, where there are others too; else 0.
        augmentation: The usual augmentation of training images; empty for what is usual for their size.
        head: What a network of the library transformers ends in: `language` answers at each token with a score of each
            token that may come next; empty for a classifier of whole samples.
        compares_with_teacher: Whether its meter compares answers with those of a method's teacher, which is asked again
            when a trained student is measured.
        continues_texts: Whether a text's own tokens are its targets, so that data need no labels.
    """

    name: ClassVar[str]
    title: str
    metrics: ClassVar[Mapping[str, Metric]]
    primary: str
    watched: ClassVar[tuple[str, ...]]
    further: ClassVar[Mapping[str, Metric]] = MappingProxyType({})
    judges: ClassVar[tuple[str, ...]] = ()
    offers: ClassVar[frozenset[Offer]]
    criterion: Criterion
    hides_targets: ClassVar[bool] = False
    salt: bytes
    measures: ClassVar[Literal["answer", "embedding"]] = "answer"
    outputs: ClassVar[tuple[str, str]] = ("class", "classes")
    ragged: ClassVar[bool] = False
    map_format: ClassVar[MapFormat | None] = None
    missing: ClassVar[float] = -1.0
    known: int = 0
    augmentation: ClassVar[str] = ""
    head: ClassVar[str] = ""
    compares_with_teacher: ClassVar[bool] = False
    continues_texts: ClassVar[bool] = False
    _judged_by: tuple[str, ...] = ()
    _usual: Task | None = None

    @property
    def has_maps(self) -> bool:
        """Whether a sample's targets are a map over its image."""
        return self.map_format is not None

    @abstractmethod
    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return a user's targets in the form that the criterion reads, `[sample, ...]`.

        Args:
            values: A tensor or array, or a sequence with one entry per sample.
            where: Their name in messages.

        Raises:
            UserError: If they do not fit this task; the message names the task that they fit, if that is clear.
        """

    @abstractmethod
    def count_outputs(self, targets: Tensor) -> int:
        """Return how many numbers a network returns for a sample, from all training targets."""

    def judged_by(self, names: Sequence[str], *, outputs: int) -> Task:
        """Return the task with other metrics: the first chooses the epoch and compares rows, all are measured.

        Args:
            names: Names of metrics.
            outputs: How many numbers a network returns for a sample.

        Raises:
            UserError: If the task has no such metric, or it has no value for so many numbers.
        """
        usual = self._usual or self
        judges = usual.judges or usual.watched
        known = {name: metric for name, metric in {**usual.further, **usual.metrics}.items() if name in judges}
        for name in names:
            if name not in known:
                raise unknown(f"metric of the task {self.name!r}", name, judges)
            usual.check_metric(name, outputs)
        if tuple(names) in ((), (usual.primary,)):
            return usual
        # Not by `copy`, which returns the one object of the task's name.
        judged: Task = object.__new__(type(usual))
        vars(judged).update(
            vars(usual),
            primary=names[0],
            metrics=MappingProxyType({name: known[name] for name in names} | dict(usual.metrics)),
            watched=tuple(dict.fromkeys((*names, *usual.watched))),
            _judged_by=tuple(names),
            _usual=usual,
        )
        return judged

    def check_metric(self, name: str, outputs: int) -> None:  # noqa: B027 - most metrics have a value for any number
        """Refuse a metric that has no value for so many numbers of an answer.

        Args:
            name: One of `judges`.
            outputs: How many numbers a network returns for a sample.

        Raises:
            UserError: If it has none.
        """

    def under_view(self, targets: Tensor, augmentation: Augmentation, view: Tensor) -> Tensor:
        """Return the targets of images that were augmented: what lies on the image moves with it.

        Args:
            targets: `[batch, ...]`.
            augmentation: The augmentation of the images.
            view: Its parameters, `[batch, width]`.
        """
        return augmentation.apply_to_maps(targets, view, outside=self.missing) if self.has_maps else targets

    def count_places(self, inputs: Any, targets: Any) -> Tensor | None:
        """Return how many places of a batch its losses are averaged over, a scalar; None if it is always as many.

        Args:
            inputs: The batch's inputs.
            targets: Its targets; None if it has none.
        """
        return None

    def beside(self, known: int, novel: int, hidden: tuple[str, ...], *, is_measured: bool) -> Task:
        """Return the task for data of which some classes are known, and others novel.

        Args:
            known: How many classes training samples are labelled with.
            novel: How many novel classes the other training samples are of.
            hidden: The names of the novel classes, if the data have them.
            is_measured: Whether test samples of novel classes have labels to measure by.

        Raises:
            UserError: If the task has no novel classes.
        """
        raise UserError(f"The task {self.name!r} has no novel classes: leave out --novel, or choose --task discovery.")

    def picture_of(self, targets: Tensor) -> str:
        """Return the map of one sample's targets as a small image file in base64, for reports.

        Args:
            targets: `[height, width]`.

        Raises:
            TypeError: If the task's targets are no maps.
        """
        raise TypeError(f"The targets of the task {self.name!r} are no maps.")

    def configured(self, options: Mapping[str, str]) -> Task:
        """Return the task with options that its user wrote behind its name.

        Args:
            options: The values by name, as text.

        Raises:
            UserError: If an option is unknown or its value is wrong.
        """
        raise UserError(f"The task {self.name} has no options: leave out {', '.join(options)}.")

    def fitted(self, train: Samples, outputs: int) -> Task:
        """Return the task as these training samples need it, such as with weights of its classes.

        Args:
            train: The training samples.
            outputs: How many numbers a network returns for a sample.

        Raises:
            UserError: If the task's options do not fit the samples.
        """
        return self

    def map_reader(self, surveys: Mapping[str, Survey], where: Spec) -> MapReader:
        """Return what turns the files of maps into targets.

        Args:
            surveys: What the maps of each split hold.
            where: The user's request.

        Raises:
            UserError: If the maps hold what is no target, or the task's targets are no maps.
        """
        raise UserError(f"The targets of the task {self.name!r} are no maps.")

    @abstractmethod
    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> Meter:
        """Return a fresh meter.

        Args:
            density: How one network's logits are read.
            detail: How much to measure.
        """

    @abstractmethod
    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network whose answer does not have the task's form.

        Args:
            shape: The shape of its answer to `samples` samples.
            samples: How many samples it was asked about.
            outputs: How many numbers it should return, such as the number of classes.
            who: The network's name in the message.
            data: The data's name in the message.

        Raises:
            UserError: If it has another form.
        """

    def mistaken(self, answer: Tensor) -> str | None:
        """Return what an answer's values are instead of scores, and what to do; None if nothing shows that.

        Nothing fails where probabilities are read as scores, so it has to be looked for.

        Args:
            answer: A network's answer, in the task's shape.
        """
        if "classes" in self.offers and sums_to_one(answer):
            return (
                "probabilities, from 0 to 1 with a sum of 1, where scores before the softmax (logits) are read: put "
                "through a softmax once more they are nearly equal, and teach next to nothing. Leave out its last "
                "softmax (torch.nn.Identity() in its place), or let it answer with the logarithm, "
                "answer.clamp(min=1e-12).log()"
            )
        return None

    @property
    def writes_answers(self) -> bool:
        """Whether answers are written, in a table or as pictures: `answer_columns` or `answer_maps` is defined."""
        own = type(self)
        return own.answer_columns is not Task.answer_columns or own.answer_maps is not Task.answer_maps

    def decided(self, answer: Tensor) -> Tensor:
        """Return what answers come down to, sample by sample or place by place: the likeliest class.

        Tasks that choose no single class say what they do: whether each class is there, or the numbers themselves.

        Args:
            answer: `[batch, class, ...]`.
        """
        return answer.argmax(1)

    def answer_columns(self, answer: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return answers as the columns of a table with a row for each sample; the first one is `prediction`.

        Args:
            answer: `[batch, ...]`, on the CPU.
            names: A name for each number of an answer.

        Raises:
            UserError: If the task's answers are not written in a table.
        """
        raise UserError(f"The answers of the task {self.name!r} are not written in a table.")

    def answer_maps(self, answer: Tensor) -> NDArray[Any]:
        """Return answers as maps of whole numbers, `[batch, height, width]`, as they stand in a picture.

        Args:
            answer: `[batch, number, height, width]`, on the CPU.

        Raises:
            UserError: If the task's answers are not written as pictures.
        """
        raise UserError(f"The answers of the task {self.name!r} are not written as pictures.")

    def score_names(self) -> dict[str, Metric]:
        """Return every score that may be reported, by the split's and the metric's name, in the order of reading."""
        splits = {
            f"{split}_{name}": metric for split in ("validation", "test") for name, metric in self.metrics.items()
        }
        return splits | {f"foreign_{name}": metric for name, metric in self.metrics.items()}

    def describe(self) -> dict[str, Any]:
        """Return the facts about it that a comparison stores for the report, as plain values."""
        metrics = {name: metric.to_json() for name, metric in self.metrics.items()}
        names = {"name": self.name, "title": self.title, "primary": self.primary, "outputs": list(self.outputs)}
        return names | {"metrics": metrics}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its name, so that every process has the same object."""
        return task_named, (self.name,)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a task that is judged otherwise by the usual one, which may have a `__reduce__` of its own."""
        return self.__reduce__() if self._usual is None else (_remade, (self._usual, self._judged_by))


def sums_to_one(answer: Tensor) -> bool:
    """Return whether values along axis 1 are probabilities: a last softmax makes them, and scores never are by chance.

    Args:
        answer: `[batch, class, ...]`.
    """
    values = answer.detach().float()
    # In half precision, many rounded probabilities miss their sum by more.
    slack = 1e-2 if answer.itemsize < 4 else 1e-3
    return values.numel() > 0 and bool(((values >= 0).all()) & ((values.sum(1) - 1).abs() <= slack).all())


def _remade(usual: Task, metrics: tuple[str, ...]) -> Task:
    # The number of outputs was checked when the metrics were chosen: two are right for all of them.
    return usual.judged_by(metrics, outputs=2)


# Where each task is. It is text, not an import, because tasks stand above this folder.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "classification": "tutelage.tasks.classification:CLASSIFICATION",
        "multi-label": "tutelage.tasks.multi_label:MULTI_LABEL",
        "segmentation": "tutelage.tasks.segmentation:SEGMENTATION",
        "language": "tutelage.tasks.language:LANGUAGE",
        "depth": "tutelage.tasks.depth:DEPTH",
        "regression": "tutelage.tasks.regression:REGRESSION",
        "unlabelled": "tutelage.tasks.unlabelled:UNLABELLED",
        "discovery": "tutelage.tasks.discovery:DISCOVERY",
    }
)


def task_named(text: str) -> Task:
    """Return a task by its name: a built-in one, or one from another package.

    Args:
        text: Its name; options may follow, as in `depth,loss=berhu`.

    Raises:
        UserError: If there is none, or an option is wrong.
    """
    written = read(text, kind="task")
    found = _named(written.name)
    return found.configured(written.options) if written.options else found


def _named(name: str) -> Task:
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        found: Task = getattr(importlib.import_module(module), attribute)
        return found
    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in others:
        raise unknown("task", name, [*TASKS, *others])
    loaded: Task = others[name].load()
    return loaded
