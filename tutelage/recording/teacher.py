"""The teacher of a recording: its answers travel with the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import nn

from tutelage.core.teachers.teacher import LIVE, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.plan import RecordedViews
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import Tap
from tutelage.features.padding import valid_tokens
from tutelage.recording.reading import Recording
from tutelage.recording.replay import held_against

_RECORD = "record these layers too (tutelage record --layers)"


class RecordedTeacher(Teacher):
    """A teacher whose answers travel with the data, for the very views that the student sees.

    Args:
        recording: The recording that is replayed. It tells which layers were recorded; None if that is unknown.
        layers: Names of the layers to read; they must have been recorded.
        example: Inputs whose number of samples becomes the batch size of `shapes`.
        logits: Whether the logits are read.

    Raises:
        NoLayersError: If a layer was not recorded.
    """

    def __init__(
        self,
        recording: RecordedViews | None = None,
        layers: Sequence[str] = (),
        *,
        example: Any = None,
        logits: bool = True,
    ) -> None:
        super().__init__()
        self._logits = logits
        self.recording, self.layers = recording, tuple(layers)
        missing = [layer for layer in layers if layer not in self._recorded]
        if missing:
            self._refuse(f"This method reads {', '.join(missing)} of the teacher", _RECORD, *self._named)
        # Without an example there is no batch size, and so no shape.
        known = () if example is None else layers
        self._shapes = {layer: _batched(self._recorded[layer], example) for layer in known}

    @property
    def _recorded(self) -> Mapping[str, Sequence[int]]:
        """The layers that were recorded, each with its shape without the batch."""
        return self.recording.header.layers if isinstance(self.recording, Recording) else {}

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that are read."""
        return self.layers

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, with the example's batch size."""
        return self._shapes

    def inner_network(self) -> nn.Module:
        """Refuse: only the network's answers were recorded.

        Raises:
            NoLayersError: Always.
        """
        self._refuse("This method uses the teacher's network itself, such as its classifier or its weights")

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> RecordedTeacher:
        """Return the teacher of the same recording that reads these layers.

        Raises:
            NoLayersError: If a layer was not recorded.
        """
        return RecordedTeacher(self.recording, layers, example=example, logits=logits)

    def look(self, example: Any) -> Any:
        """Return the example itself: there is no network to trace, and the shapes were recorded."""
        return example

    def stages(self, example: Any) -> Sequence[Tap]:
        """Return the last layer of each of the network's stages, recorded or not.

        So layers are paired by stage in the same way as with the network itself.

        Raises:
            NoLayersError: If no layers were recorded, or the network has no stages.
        """
        stages = self.recording.header.stages if isinstance(self.recording, Recording) else {}
        if not stages:
            self._refuse("This method reads layers of the teacher", *(self._named or [_RECORD]))
        # Tensors on the meta device have shapes without memory: only shapes are needed for pairing.
        blanks = {layer: torch.empty(_batched(shape, example), device="meta") for layer, shape in stages.items()}
        return [Tap.of(layer, blank, example) for layer, blank in blanks.items()]

    def known_by(self) -> None:
        """Return nothing: the training's fingerprint already holds the recording itself."""

    def check_answers(self, data: Data) -> None:
        """Refuse a recording without answers if the method reads answers. `settle` checks everything else.

        Raises:
            UserError: If the logits are read and were not recorded.
        """
        kept = self.recording.header.quantization if isinstance(self.recording, Recording) else None
        if self._logits and kept is not None and not kept.keeps_answers:
            raise UserError(
                "This method reads the teacher's answers, and the recording holds only layers (--keep none): record "
                "with --keep full, or choose a method that reads only layers, such as features."
            )

    def replays(self) -> RecordedViews | None:
        """Return the recording."""
        return self.recording

    def must_be_live(self, why: str, remedy: str = LIVE) -> None:
        """Refuse.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{why}: {remedy}.")

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Return the data with the recorded augmentation, and notes for the user.

        Raises:
            UserError: If the recording does not belong to the data, or its teacher has changed since.
        """
        if self.recording is None:
            return data, ()
        notes = []
        if isinstance(self.recording, Recording):
            notes = held_against(self.recording, data, trust_code=trust_code)
        usual, recorded = data.augmentation, self.recording.augmentation
        if str(usual) != str(recorded):
            notes.append(f"Training images are augmented by {recorded}, as recorded, instead of {usual}.")
        # The student must see exactly the views that were answered.
        return replace(data, augmentation=recorded), tuple(notes)

    def forward(self, batch: Batch) -> Output:
        """Return the recorded output of the batch.

        Raises:
            UserError: If the batch carries no recorded output, or its inputs are not the recorded ones.
        """
        if batch.teacher is None:
            raise UserError("These data carry no recorded teacher output: record it first, or pass a teacher.")
        # A recorded answer to other pixels would teach something wrong without a word.
        if not batch.asks_what_was_asked:
            raise UserError(
                "The teacher is asked about inputs that were made or changed in training, and a recording has answers "
                "only to its own views. Pass the teacher itself."
            )
        # Only features are recorded, and their padding is that of the batch's own tokens.
        valid = valid_tokens(batch.inputs)
        return batch.teacher if valid is None else replace(batch.teacher, valid=valid)

    @property
    def _named(self) -> Sequence[str]:
        """A remedy for error messages: name pairs of layers; empty if no layer was recorded."""
        return ["name pairs of layers (--layers student_layer:teacher_layer)"] if self._recorded else []

    def _refuse(self, why: str, *remedies: str) -> NoReturn:
        holds = ", ".join(self._recorded)
        also = f" and its layers {holds}" if holds else ""
        ways = ", ".join([*remedies, "pass the network itself"])
        raise NoLayersError(
            f"{why}, and a recording holds only its answers{also}: {ways}, or choose a method that reads only logits, "
            "such as kd."
        )


def _batched(shape: Sequence[int], example: Any) -> torch.Size:
    return torch.Size((len(Batch(inputs=example)), *shape))
