"""A network as OpenVINO's intermediate representation, for Intel's processors and accelerators."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.exporting.onnx import Onnx
from tutelage.exporting.target import Subject, Target, named_inputs

_XML = "model.xml"


class OpenVino(Target):
    """A folder whose `model.xml` is read by `openvino.Core().compile_model`; made from the ONNX graph."""

    name = "openvino"
    filename = "openvino"
    packages = (*Onnx.packages, "openvino")
    extra = "openvino"

    def write(self, subject: Subject, place: Path) -> None:
        """Write the folder. Weights stay in float32."""
        import openvino

        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            file = Path(folder) / "model.onnx"
            Onnx().write(subject, file)
            model = openvino.convert_model(file)
            for name, value in {"class_names": "\n".join(subject.class_names), **subject.facts}.items():
                model.set_rt_info(value, ["tutelage", name])
            place.mkdir()
            openvino.save_model(model, place / _XML, compress_to_fp16=False)

    def load(self, place: Path) -> nn.Module:
        """Return the folder as a module that asks OpenVINO."""
        return CompiledModel(place / _XML)


class CompiledModel(nn.Module):
    """A model that OpenVINO answers from.

    Args:
        file: Its `.xml` file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        import openvino

        # On the processor OpenVINO computes in bfloat16 where that is fast; what is exported is to be exact.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._model = openvino.Core().compile_model(file, "CPU", settings)

    def forward(self, inputs: Any = None, **named: Any) -> Tensor:
        """Return the logits."""
        given = {name: value.cpu().numpy() for name, value in named_inputs(named or inputs).items()}
        return torch.from_numpy(self._model(given)[0].copy())
