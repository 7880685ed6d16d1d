"""A network's input (`Batch`) and its output (`Output`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from tutelage.data.criterion import CROSS_ENTROPY, Criterion, OfBatch
from tutelage.errors import UserError

SUPERVISED = "ce"
"""Name of the task's supervised loss among a method's losses."""

# Dimensions of one image: [channel, height, width].
_IMAGE = 3
# Stands for inputs that were changed before they were moved or stored. Real versions start at 0, so it never matches.
_CHANGED = -1


@dataclass(frozen=True, kw_only=True)
class Output:
    """A network's output for a batch.

    Attributes:
        logits: Scores before the softmax, `[batch, class]` (or `[batch, class, ...]` for dense prediction).
        features: Outputs of layers inside the network, by layer name; `"embedding"` is the classifier's input.
        members: The answers of an ensemble's members, `[member, batch, class]`; None for a single network.
        valid: Which tokens of the inputs are not padding, `[batch, token]`; None if the inputs do not tell.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: Tensor | None = None
    valid: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Output:
        """Return the same output on another device."""
        return Output(**{f.name: moved(getattr(self, f.name), device, non_blocking) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The input of a network: a batch of samples.

    Attributes:
        inputs: A tensor `[batch, channel, height, width]`, a mapping of tensors (text), a list of images of different
            sizes `[channel, height, width]`, or a sequence of views, each a batch.
        targets: The targets of the task, such as class indices `[batch]`; a list if samples have different numbers of
            targets. -1 is an unknown class; None means that the samples have no targets.
        indices: Position of each sample in its dataset, `[batch]`. Recordings and memory banks use it as a key.
        teacher: A recorded teacher output; None if the data carry none.
        asked: The inputs that `teacher` answers: those that the batch was made with. If you replace `inputs`, keep
            `asked`: a recorded answer is then never used for other inputs.
        asked_version: How often `asked` had been changed in place when the batch was made; None if it does not count
            changes.
        teacher_inputs: Inputs for the teacher, if it should see others than the student, such as the same images
            without noise.
        extras: Other tensors that belong to the samples, such as the augmentation's parameters under `"view"`.
        criterion: The losses of the data's task. One for which only some places count is told which, and how many.
        places: How many places the losses are divided by, a scalar, where the batch is a part of a larger one: the mean
            over all parts. None divides by the batch's own.
    """

    inputs: Any
    targets: Any = None
    indices: Tensor | None = None
    teacher: Output | None = None
    asked: Any = None
    asked_version: int | None = None
    teacher_inputs: Any = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    criterion: Criterion = CROSS_ENTROPY
    places: Tensor | None = None

    def __post_init__(self) -> None:
        if self.teacher is not None and self.asked is None:
            object.__setattr__(self, "asked", self.inputs)
        if self.asked_version is None:
            object.__setattr__(self, "asked_version", _version(self.asked))
        # Each copy anew: a part of a batch has places of its own.
        if isinstance(self.criterion, OfBatch):
            object.__setattr__(self, "criterion", self.criterion.of(self.inputs, self.targets, self.places))

    def __len__(self) -> int:
        return count_of(self.inputs) if self.targets is None else len(self.targets)

    @property
    def labels(self) -> Tensor:
        """The targets, for code that needs them.

        Raises:
            UserError: If the batch has no targets.
        """
        if self.targets is None:
            raise UserError("This needs labels, but the data have none. Choose a method that trains without them.")
        targets: Tensor = self.targets
        return targets

    def loss(self, answer: Tensor) -> Tensor:
        """Return the task's supervised loss of an answer `[batch, ...]` to this batch, a scalar.

        Raises:
            UserError: If the batch has no targets.
        """
        return self.criterion.loss(answer, self.labels)

    def supervised(self, answer: Tensor) -> dict[str, Tensor]:
        """Return the supervised loss by its name; an empty dictionary if the batch has no targets.

        This serves methods that also learn from a teacher on unlabelled samples: only their other losses remain then.

        Args:
            answer: The network's answer to this batch, `[batch, ...]`.
        """
        return {} if self.targets is None else {SUPERVISED: self.loss(answer)}

    @property
    def asks_what_was_asked(self) -> bool:
        """Whether the inputs are those that `teacher` answers, and have not been changed in place since."""
        return self.inputs is self.asked and _version(self.asked) == self.asked_version

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        values = {f.name: moved(getattr(self, f.name), device, non_blocking) for f in fields(self)}
        values["asked_version"] = self._version_elsewhere
        # Moving twice would make two tensors, and `asks_what_was_asked` would no longer hold.
        for name in ("inputs", "teacher_inputs"):
            if getattr(self, name) is self.asked:
                values[name] = values["asked"]
        return Batch(**values)

    @property
    def _version_elsewhere(self) -> int | None:
        """The version for a copy of `asked`. Copies count their changes from 0, so only whether it changed is kept."""
        return None if _version(self.asked) == self.asked_version else _CHANGED

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "asked_version": self._version_elsewhere}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


def _version(value: Any) -> int | None:
    """Return how often a tensor was changed in place; None for values that do not count changes."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def count_of(value: Any) -> int:
    """Return the number of samples of inputs."""
    if isinstance(value, Tensor):
        return len(value)
    first = next(iter(value.values() if isinstance(value, Mapping) else value))
    # Images of different sizes are a list with one entry a sample; of views, each entry is a batch.
    is_image = isinstance(first, Tensor) and first.ndim == _IMAGE and not isinstance(value, Mapping)
    return len(value) if is_image else count_of(first)


def moved(value: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """Return a value with all its tensors on another device; mappings and sequences are moved item by item."""
    if isinstance(value, Tensor | Output):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {key: moved(item, device, non_blocking) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [moved(item, device, non_blocking) for item in value]
    return value
