"""The two carriers: what a network is asked (`Batch`) and what it says (`Output`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from tutelage.data.criterion import CROSS_ENTROPY, Criterion
from tutelage.errors import UserError

SUPERVISED = "ce"
"""What the task's supervised loss is called among a method's losses."""

# Dimensions of one image: [channel, height, width].
_IMAGE = 3
# The version of inputs that were changed before they were moved or stored: no tensor has it.
_CHANGED = -1


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a network says about a batch.

    Attributes:
        logits: Scores before the softmax, `[batch, class]` (or `[batch, class, ...]` for dense prediction).
        features: What was read inside the network, by layer name; `"embedding"` is the classifier's input.
        members: The single answers of an ensemble, `[member, batch, class]`.
        valid: Which tokens of the inputs are no padding, `[batch, token]`, where the inputs say so.
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
    """What a network is asked.

    Attributes:
        inputs: A tensor `[batch, channel, height, width]`, a mapping of tensors (text), a list of images of different
            sizes `[channel, height, width]`, or a sequence of views, each a batch.
        targets: What the task's samples have for targets, such as class indices `[batch]`; a list where samples differ
            in how many they have. -1 is a class that is not known; None stands for samples without targets.
        indices: Position of each sample in its dataset, `[batch]`: recordings and memory banks are keyed by it.
        teacher: A recorded teacher output, where the data carry one.
        asked: The very inputs that `teacher` answers: those that the batch was made with. Who replaces the inputs, by a
            mixture for instance, leaves this as it is, and a recorded answer is never taken for another's.
        asked_version: How often `asked` had been changed in place when the batch was made, if it is a tensor that
            counts that.
        teacher_inputs: What a teacher is asked instead, where it is to see other inputs than the student, such as the
            same images without noise.
        extras: Whatever else belongs to the samples, such as the augmentation's parameters under `"view"`.
        criterion: How the task of the data judges answers.
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

    def __post_init__(self) -> None:
        if self.teacher is not None and self.asked is None:
            object.__setattr__(self, "asked", self.inputs)
        if self.asked_version is None:
            object.__setattr__(self, "asked_version", _version(self.asked))

    def __len__(self) -> int:
        return _count(self.inputs) if self.targets is None else len(self.targets)

    @property
    def labels(self) -> Tensor:
        """The targets, for whoever cannot do without.

        Raises:
            UserError: If the batch has none.
        """
        if self.targets is None:
            raise UserError("This needs labels, and the data carry none. Choose a method that trains without them.")
        targets: Tensor = self.targets
        return targets

    def loss(self, answer: Tensor) -> Tensor:
        """Return the task's supervised loss of an answer `[batch, ...]` to this batch, a scalar.

        Raises:
            UserError: If the batch has no targets.
        """
        return self.criterion.loss(answer, self.labels)

    def supervised(self, answer: Tensor) -> dict[str, Tensor]:
        """Return the supervised loss by its name, or nothing where the batch has no targets.

        For methods that learn from a teacher also what nobody labelled: their other losses are all that is left then.

        Args:
            answer: As in `loss`.
        """
        return {} if self.targets is None else {SUPERVISED: self.loss(answer)}

    @property
    def asks_what_was_asked(self) -> bool:
        """Whether the inputs are those that `teacher` answers, and were not changed in place since."""
        return self.inputs is self.asked and _version(self.asked) == self.asked_version

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the same batch on another device."""
        values = {f.name: moved(getattr(self, f.name), device, non_blocking) for f in fields(self)}
        values["asked_version"] = self._version_elsewhere
        # Moved twice, they would no longer be the same.
        for name in ("inputs", "teacher_inputs"):
            if getattr(self, name) is self.asked:
                values[name] = values["asked"]
        return Batch(**values)

    @property
    def _version_elsewhere(self) -> int | None:
        """What copies of `asked` are compared with: they count anew, so only whether it was changed is kept."""
        return None if _version(self.asked) == self.asked_version else _CHANGED

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "asked_version": self._version_elsewhere}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


def _version(value: Any) -> int | None:
    """Return how often a tensor was changed in place; None for what does not count that."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def _count(value: Any) -> int:
    """Return the number of samples of inputs."""
    if isinstance(value, Tensor):
        return len(value)
    first = next(iter(value.values() if isinstance(value, Mapping) else value))
    # Images of different sizes are a list with one entry a sample; of views, each entry is a batch.
    is_image = isinstance(first, Tensor) and first.ndim == _IMAGE and not isinstance(value, Mapping)
    return len(value) if is_image else _count(first)


def moved(value: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """Return tensors, whatever holds them, on another device."""
    if isinstance(value, Tensor | Output):
        return value.to(device, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {key: moved(item, device, non_blocking) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [moved(item, device, non_blocking) for item in value]
    return value
