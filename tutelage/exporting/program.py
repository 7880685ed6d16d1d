"""A network as a graph that torch has captured, from which other formats are made."""

from __future__ import annotations

import re
import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tutelage.errors import UserError
from tutelage.exporting.target import Subject, named_inputs
from tutelage.models.answers import answer, call, logits_of

OUTPUT = "logits"
"""The name of the answer in files."""
_LINES = 3


class Plain(nn.Module):
    """A network that takes tensors one after the other, and returns its logits alone: of maps, for each pixel.

    Args:
        network: Any network that Tutelage understands.
        names: The names of its inputs; empty for images.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits in what the network returns."""
        if self.names:
            return logits_of(call(self.network, dict(zip(self.names, inputs, strict=True))))
        # A map of answers gets the size of the images here, because nobody does it behind the file.
        return answer(self.network, inputs[0])


def capture(subject: Subject) -> ExportedProgram:
    """Return a network's graph, for batches of any size and, of texts, of any length.

    Raises:
        UserError: If the network decides by its data what it computes, or calls what cannot be captured.
    """
    is_named = isinstance(subject.example, dict)
    inputs = named_inputs(subject.example)
    plain = Plain(subject.network, tuple(inputs) if is_named else ()).eval()
    # Of images the size is fixed: most networks have layers that know it.
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if is_named else {0: Dim.DYNAMIC}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # What torch's exporter says of its own future helps nobody here.
            warnings.simplefilter("ignore")
            return torch.export.export(
                plain, tuple(inputs.values()), dynamic_shapes=(tuple(free for _ in inputs),), strict=False
            )
    except Exception as error:
        raise UserError(
            f"The network cannot be captured as a graph: {summary(error)}. A network whose layers depend on the values "
            "of its data, by `if` or by a loop, has no one graph; torch.where and masks have one."
        ) from error


def summary(error: BaseException) -> str:
    """Return the first telling lines of an exporter's long message."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    told = [line for line in lines if line][:_LINES]
    return " ".join(told).rstrip(".") or type(error).__name__
