"""A network as an ONNX file, for ONNX Runtime and all that reads it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.exporting.program import OUTPUT, capture, summary
from tutelage.exporting.target import Subject, Target, named_inputs


class Onnx(Target):
    """`onnxruntime.InferenceSession("model.onnx")`; class names and other facts are in the file's metadata."""

    name = "onnx"
    filename = "model.onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"

    def write(self, subject: Subject, place: Path) -> None:
        """Write the network's graph in ONNX's operators, and let ONNX check it."""
        import onnx

        program = capture(subject)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                converted = torch.onnx.export(
                    program,
                    input_names=list(named_inputs(subject.example)),
                    output_names=[OUTPUT],
                    dynamo=True,
                    verbose=False,
                )
        except Exception as error:
            raise UserError(f"The network has what ONNX has no operator for: {summary(error)}.") from error
        assert converted is not None
        converted.save(place)
        model = onnx.load(place)
        onnx.helper.set_model_props(model, {"class_names": "\n".join(subject.class_names), **subject.facts})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, place)

    def load(self, place: Path) -> nn.Module:
        """Return the file as a module that asks ONNX Runtime."""
        return Session(place)


class Session(nn.Module):
    """A file that ONNX Runtime answers from.

    Args:
        file: The ONNX file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # As many threads as torch has, so that both are timed alike.
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def forward(self, inputs: Any = None, **named: Any) -> Tensor:
        """Return the logits."""
        given = named_inputs(named or inputs)
        [found] = self._session.run(None, {name: given[name].cpu().numpy() for name in self._names})
        return torch.from_numpy(found)
