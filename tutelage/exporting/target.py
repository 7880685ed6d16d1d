"""What a network can be exported to: a format that writes a file and asks it again."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from tutelage.errors import UserError, unknown

# Text and no imports: a format's packages are only needed by those who ask for it.
_PLACES: Mapping[str, str] = MappingProxyType(
    {
        "onnx": "tutelage.exporting.onnx:Onnx",
        "onnx-int8": "tutelage.exporting.onnx_int8:OnnxInt8",
        "openvino": "tutelage.exporting.openvino:OpenVino",
        "pt2": "tutelage.exporting.pt2:Pt2",
        "timm": "tutelage.exporting.timm:Timm",
    }
)
NAMES: tuple[str, ...] = tuple(_PLACES)
"""The names of all formats."""


@dataclass(frozen=True)
class Subject:
    """A network that is exported.

    Attributes:
        network: The network, in eval mode, with its input normalisation.
        example: Inputs of two samples or more, `[batch, channel, height, width]` in [0, 1] or named token tensors.
        calibration: Inputs of training samples, batch by batch, from which int8 ranges are taken.
        class_names: The names of the outputs.
        facts: Further facts that travel with the file, as texts.
    """

    network: nn.Module
    example: Any
    calibration: Sequence[Any]
    class_names: tuple[str, ...]
    facts: Mapping[str, str]


class Target(ABC):
    """A format. Its file says the same as the network, which `verify` finds out.

    Attributes:
        name: Its name on the command line.
        filename: The name of the file or folder that it writes.
        packages: The packages that it needs, as they are imported.
        extra: The extra of Tutelage that installs them.
        is_exact: Whether it computes in the network's own precision, so that its answers must agree.
    """

    name: ClassVar[str]
    filename: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    is_exact: ClassVar[bool] = True

    @abstractmethod
    def write(self, subject: Subject, place: Path) -> None:
        """Write the network.

        Args:
            subject: The network, and what travels with it.
            place: Where to; nothing is there yet.

        Raises:
            UserError: If the network cannot be written so, with the operator or the branch that forbids it.
        """

    @abstractmethod
    def load(self, place: Path) -> nn.Module:
        """Return what was written as a module: it maps inputs to what the network returns, on the processor."""


def target(name: str) -> Target:
    """Return a format.

    Args:
        name: Its name, such as `onnx`.

    Raises:
        UserError: If there is no such format, or a package that it needs is missing.
    """
    if name not in _PLACES:
        raise unknown("export format", name, NAMES)
    module, _, kind = _PLACES[name].partition(":")
    found: Target = getattr(importlib.import_module(module), kind)()
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"The format {name} needs {', '.join(missing)}: pip install 'tutelage[{found.extra}]'")
    return found


def named_inputs(inputs: Any) -> dict[str, Tensor]:
    """Return inputs by name, as files of other libraries take them: images are called `images`."""
    return dict(inputs) if isinstance(inputs, Mapping) else {"images": inputs}
