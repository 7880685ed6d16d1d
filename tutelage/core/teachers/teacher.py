"""Teachers answer batches. They are frozen, always in eval mode, and never in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self
from uuid import uuid4

import torch
from torch import Tensor, nn

from tutelage.core.teachers.identity import incomparable
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.plan import RecordedViews
from tutelage.data.task import Task
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import Tap, stages
from tutelage.features.trace import Trace, inputs_of
from tutelage.models.copies import freeze
from tutelage.models.scores import check_scores
from tutelage.system import digests, processes

_OWN = frozenset({"_name", "_identity", "_awaited"})
_OTHER_CLASSES = (
    "Or map its classes to the data's (--teacher-classes FILE, teacher_classes= in Python), or choose a method that "
    "reads only its layers, such as features, at or fitnet."
)

ALONE = (
    "A recording cannot be combined with other teachers, because its answers belong to its own views",
    "name the recording alone, and leave out --ensemble. To use several networks, record their ensemble: tutelage "
    "record --teacher A B C",
)
"""Why a recording cannot be one of several teachers, and what to do instead."""

LIVE = "pass the teacher itself, not its recording"


class Teacher(nn.Module):
    """Answers a batch. It stays in eval mode even if its parent trains, and its answers carry no gradient.

    A network that becomes its attribute is frozen. A new kind of teacher is one class: it defines `forward`, and
    overrides those of the other methods whose default does not fit.

    Attributes:
        has_price: Whether each sample that it is asked about costs something, such as money or part of a quota.
    """

    has_price: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        # A new module is in train mode.
        super().train(False)
        # A random name, for teachers that nothing else tells apart.
        self._name = uuid4().hex
        self._identity: str | None = None
        self._awaited: Callable[[Tensor, int], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Done here, so that no subclass can forget to freeze its network.
        super().__setattr__(name, freeze(value).eval() if isinstance(value, nn.Module) else value)

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's answer to the batch, without a gradient."""
        if batch.teacher_inputs is not None:
            batch = replace(batch, inputs=batch.teacher_inputs, teacher_inputs=None)
        # Not inference mode: it is no faster, and losses could not save its tensors for their backward pass.
        with torch.no_grad():
            output: Output = super().__call__(batch)
        if self._awaited is not None:
            # Only the first answer is checked: the later ones have the same classes.
            self._awaited(output.logits, len(batch))
            self._awaited = None
        return output

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: a teacher's batch-norm statistics and dropout must not move."""
        return super().train(False)

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's answer to the batch."""
        raise TypeError(f"{type(self).__name__} must define forward(batch) -> Output")

    def within(self) -> list[Teacher]:
        """Return all teachers within it, itself first."""
        return [module for module in self.modules() if isinstance(module, Teacher)]

    # Identity: when two teachers count as one.

    def identity(self) -> str:
        """Return its identity, for the names of folders. Two teachers have the same only if they answer alike."""
        weights = self._identity or digests.of_tensors(self.state_dict())
        return " ".join([weights, *(name for one in self.within() if (name := one.known_by()) is not None)])

    def names_given(self) -> list[str]:
        """Return the names given to it and to the teachers within it. Names made at random are left out."""
        return [name for one in self.within() if (name := one.known_by()) is not None and name != one._name]

    def known_by(self) -> str | None:
        """Return a name that tells it from others with equal settings and weights; None if these tell everything.

        A teacher that holds anything else, such as a function, cannot be compared. Each new one then counts as another
        teacher, so that results of an earlier one are never taken for its own. Override this to name equal teachers.
        """
        return self._name if incomparable(self, apart_from=_OWN) else None

    def with_identity(self, identity: str) -> Self:
        """Replace the digest of its weights by this identity, and return the teacher."""
        self._identity = identity
        return self

    # Answers: logits and layers.

    def inner_network(self) -> nn.Module:
        """Return the network whose layers can be read.

        Raises:
            NoLayersError: If there is none: this teacher gives only logits.
        """
        raise NoLayersError(
            f"This method reads layers of the teacher, and a {type(self).__name__} gives only logits. Pass the network "
            "itself, or choose a method that reads only logits, such as kd."
        )

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> Teacher:
        """Return a teacher on the same network that reads these layers.

        Args:
            layers: Names of submodules, `name:in` for a first input, or `embedding`.
            example: Inputs for one forward pass, which tells the layers' shapes at once.
            logits: Whether its logits are needed. If not, the network may stop after the last of the layers.

        Raises:
            UserError: If there is no network to read, or no such layer.
        """
        self.inner_network()
        raise TypeError(f"{type(self).__name__} has a network and must define reading(layers) -> Teacher")

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that it reads, itself or in the teachers within it."""
        return [layer for teacher in teachers_in(self) for layer in teacher.reads()]

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        return {}

    def release(self) -> None:
        """Remove the hooks from the network; the next answer attaches them again."""

    def look(self, example: Any) -> Any:
        """Return its trace of the example, for `stages`, `taps` and `reading`: so they share one forward pass.

        Raises:
            UserError: If there is no network to read.
        """
        return Trace.of(self.inner_network(), example)

    def stages(self, example: Any) -> Sequence[Tap]:
        """Return the taps at the ends of its stages, from the first to the last.

        Raises:
            UserError: If there is no network to read, or nothing in it is a map.
        """
        return stages(self.inner_network(), example)

    def backbones(self, example: Any) -> Sequence[Sequence[Tap]]:
        """Return the stages of each network within it, which methods pair with the student's one after the other.

        Raises:
            UserError: If there is no network to read, or nothing in one is a map.
        """
        return [self.stages(example)]

    def taps(self, layers: Sequence[str], example: Any) -> Mapping[str, Tap]:
        """Return the taps of the named layers.

        Raises:
            UserError: If there is no network to read, a layer does not exist, or it cannot be a map.
        """
        try:
            reader = self.reading(layers, example=example, logits=False)
            reader.release()
            # A tap depends only on the shape, so tensors without memory are enough.
            features = {name: torch.empty(shape, device="meta") for name, shape in reader.shapes.items()}
            return {name: Tap.of(name, feature, inputs_of(example)) for name, feature in features.items()}
        except NoLayersError:
            raise
        except UserError as error:
            raise UserError(f"In the teacher: {error}") from error

    def as_network(self) -> nn.Module | None:
        """Return a network with the same answers, which can be measured; None if there is none."""
        return None

    def check_answers(self, data: Data) -> None:
        """Check that it answers with scores of the data's classes. Methods that read its logits need this.

        A network is asked about two samples. Any other teacher is checked at its first answer, because asking may cost.

        Raises:
            UserError: If it answers with other classes, without classes or with probabilities; here or at its first
                answer.
        """
        for teacher in teachers_in(self):
            teacher.check_answers(data)
        self._awaited = answer_check(data)

    # Cost, and where the answers come from.

    def priced(self) -> list[Teacher]:
        """Return the teachers, itself included, whose answers have a price."""
        return [teacher for teacher in self.within() if teacher.has_price]

    def replays(self) -> RecordedViews | None:
        """Return the recording whose answers it gives, or a teacher within it gives; None if there is none.

        Raises:
            UserError: If there are several.
        """
        found = {id(one): one for teacher in teachers_in(self) if (one := teacher.replays()) is not None}
        if len(found) > 1:
            raise several_recordings()
        return next(iter(found.values()), None)

    def must_be_live(self, why: str, remedy: str = LIVE) -> None:
        """Refuse if its answers are recorded.

        Args:
            why: Why it must answer itself, as a sentence without its full stop.
            remedy: What to do instead.

        Raises:
            UserError: If its answers are recorded, or those of a teacher within it.
        """
        for teacher in teachers_in(self):
            teacher.must_be_live(why, remedy)

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Return the data as it teaches them, such as with a recording's augmentation, and notes for the user.

        Args:
            data: The data that it will teach.
            trust_code: Whether the code that a saved network's `network.json` names may run.

        Raises:
            UserError: If it cannot teach these data.
        """
        notes: list[str] = []
        for teacher in teachers_in(self):
            data, more = teacher.settle(data, trust_code=trust_code)
            notes += more
        if self.known_by() == self._name:
            notes.append(_unnamed(self))
        # Several teachers may give the same note, which is shown once.
        return data, tuple(dict.fromkeys(notes))


def teachers_in(module: nn.Module) -> Iterator[Teacher]:
    """Yield the outermost teachers within a module, itself excluded."""
    for child in module.children():
        if isinstance(child, Teacher):
            yield child
        else:
            yield from teachers_in(child)


def several_recordings() -> UserError:
    """Return the error for a recording among several teachers."""
    return UserError(": ".join(ALONE) + ".")


def answer_check(data: Data, *, scores: bool = True) -> Callable[[Tensor, int], None]:
    """Return a function of an answer and its number of samples that refuses an answer that does not fit.

    Args:
        data: The data.
        scores: Whether to refuse probabilities in the place of scores too.
    """
    return partial(_check_answer, data.task, data.num_classes, data.name, scores)


def _check_answer(task: Task, outputs: int, data_name: str, scores: bool, answer: Tensor, samples: int) -> None:
    with ways_out():
        task.check_answer(tuple(answer.shape), samples, outputs, who="teacher", data=data_name)
    if scores:
        check_scores(answer, task, who="teacher")


@contextmanager
def ways_out() -> Iterator[None]:
    """Add advice to an error about a teacher's classes: the ways to use such a teacher."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} {_OTHER_CLASSES}") from error


def _unnamed(teacher: Teacher) -> str:
    name = type(teacher).__name__
    if processes.planned() > 1:
        raise UserError(
            f"Several processes cannot tell whether their {name} is the same in each: give it an identity, such as "
            "BlackBoxTeacher(query, identity='...'), or define known_by() in a class of your own."
        )
    return (
        f"This {name} cannot be told from others, so no later call will reuse its results: give it an identity, such "
        "as BlackBoxTeacher(query, identity='...'), or define known_by() in a class of your own."
    )
