"""A timm network as a folder of timm's own form, for `timm.create_model("local-dir:FOLDER")` and the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import UserError
from tutelage.exporting.target import Subject, Target
from tutelage.models.normalization import Normalized, bare
from tutelage.models.spec import NetworkSpec


class Timm(Target):
    """`timm.create_model("local-dir:FOLDER", pretrained=True)`; the statistics of the inputs are in `config.json`."""

    name = "timm"
    filename = "timm"

    def write(self, subject: Subject, place: Path) -> None:
        """Write `config.json` and the weights."""
        import timm.models

        network = bare(subject.network)
        if getattr(network, "pretrained_cfg", None) is None:
            raise UserError(
                f"Only networks of timm can be written in timm's form, and {type(network).__name__} is none: choose "
                "another format, such as onnx or pt2."
            )
        shape = subject.example.shape[1:]
        known = subject.network.normalization if isinstance(subject.network, Normalized) else None
        config: dict[str, Any] = {
            "label_names": list(subject.class_names),
            "pretrained_cfg": {
                "input_size": list(shape),
                "mean": _spread(known.mean if known else (0.0,), shape[0]),
                "std": _spread(known.std if known else (1.0,), shape[0]),
            },
            # What makes this network another one than its name alone does.
            "model_args": {**_options(subject.network), "in_chans": shape[0]},
        }
        timm.models.save_for_hf(network, str(place), model_config=config, safe_serialization=True)

    def load(self, place: Path) -> nn.Module:
        """Return the network as timm makes it from the folder, with the statistics that stand there."""
        import timm

        network: Any = timm.create_model(f"local-dir:{place}", pretrained=True)
        return Normalized(network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]).eval()


def _options(network: nn.Module) -> dict[str, Any]:
    """Return the options that a network was named with."""
    spec = network.spec if isinstance(network, Normalized) else None
    return {} if spec is None else dict(NetworkSpec.parse(spec).options)


def _spread(values: tuple[float, ...], channels: int) -> list[float]:
    """Return one value for each channel."""
    return list(values) * channels if len(values) == 1 else list(values)
