"""A network in eight bits: ONNX Runtime's static quantisation, with ranges from training samples."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.exporting.onnx import Onnx
from tutelage.exporting.target import Subject, named_inputs


class OnnxInt8(Onnx):
    """As `onnx`, with weights per channel and activations in eight bits. Its answers differ; its scores tell."""

    name = "onnx-int8"
    filename = "model.int8.onnx"
    is_exact = False

    def write(self, subject: Subject, place: Path) -> None:
        """Write the network in float, then in eight bits with the ranges that the calibration samples have."""
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            exact, prepared = Path(folder) / "exact.onnx", Path(folder) / "prepared.onnx"
            super().write(subject, exact)
            quiet = logging.getLogger()
            level = quiet.level
            # It warns of what it was not asked for on the root logger.
            quiet.setLevel(logging.ERROR)
            try:
                quant_pre_process(exact, prepared, skip_symbolic_shape=True)
                quantize_static(
                    prepared,
                    place,
                    Calibration(subject),
                    per_channel=True,
                    # Signed on both sides: the fast kernels of most processors want that.
                    weight_type=QuantType.QInt8,
                    activation_type=QuantType.QInt8,
                )
            finally:
                quiet.setLevel(level)


class Calibration:
    """The calibration samples as ONNX Runtime asks for them.

    Args:
        subject: The network with its calibration batches.
    """

    def __init__(self, subject: Subject) -> None:
        self._batches: Iterator[Any] = iter(subject.calibration)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the next batch by the names of the inputs; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {name: value.numpy() for name, value in named_inputs(batch).items()}
