"""A trained network as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tutelage.core.teachers.teacher import Teacher, ways_out
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.features.extractor import FeatureExtractor
from tutelage.models.blueprint import check_answer, check_runs, check_takes
from tutelage.models.scores import check_scores


class FrozenTeacher(Teacher):
    """A trained network whose parameters and buffers never change.

    Args:
        model: The network; it is frozen in place.
        layers: Names of the layers to read: submodules, `name:in` for a first input, or `embedding`.
        example: Inputs for one forward pass, which tells the layers' shapes at once.
        logits: Whether the logits are read as well. If not, the network may stop after the last layer.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] = (), *, example: Any = None, logits: bool = True
    ) -> None:
        super().__init__()
        # Frozen by being assigned: see `Teacher.__setattr__`.
        self.extractor = FeatureExtractor(model, layers, example=example, logits=logits)

    @property
    def network(self) -> nn.Module:
        """The network itself, for methods that use its classifier or let gradients flow through it."""
        return self.extractor.model

    def inner_network(self) -> nn.Module:
        """Return the network."""
        return self.network

    def as_network(self) -> nn.Module:
        """Return the network."""
        return self.network

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> FrozenTeacher:
        """Return a teacher on the same network that reads these layers."""
        return FrozenTeacher(self.network, layers, example=example, logits=logits)

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that are read."""
        return self.extractor.layers

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        return self.extractor.shapes

    def release(self) -> None:
        """Remove the hooks from the network; the next answer attaches them again."""
        self.extractor.release()

    def check_answers(self, data: Data) -> None:
        """Check the network's answer to two samples, if its logits are read.

        Raises:
            UserError: If it answers with other classes than the data's, without classes or with probabilities.
        """
        # A teacher whose layers alone are read may have any classes, or none.
        if self.extractor.gives_logits:
            answer = check_takes(self.network, data, who="teacher")
            with ways_out():
                check_answer(self.network, answer.shape, data, who="teacher")
            check_scores(answer, data.task, who="teacher")

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Return the data unchanged.

        Raises:
            UserError: If the network cannot take them.
        """
        check_runs(self.network, data, who="teacher")
        return super().settle(data, trust_code=trust_code)

    def forward(self, batch: Batch) -> Output:
        """Return the network's logits and features."""
        output: Output = self.extractor(batch.inputs)
        return output
