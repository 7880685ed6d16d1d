"""A network in a folder: its weights, and what is needed to build it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save
from torch import nn

from tutelage.errors import UserError
from tutelage.models.normalization import Normalization, Normalized, bare
from tutelage.models.spec import NetworkSpec
from tutelage.system.files import atomic, write_json

if TYPE_CHECKING:
    from tutelage.data.criterion import Density

METADATA = "network.json"
_WEIGHTS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class NetworkMetadata:
    """What a saved network's `network.json` says.

    Attributes:
        spec: The architecture as `NetworkSpec` reads it, or None for a network that was given as a Python object.
        num_classes: Classes K.
        in_channels: Channels of the images.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
        weights: Name of the file of weights in the same folder.
        class_names: The classes in the order of the logits.
        input_size: Height and width of the images in training, in pixels.
        density: What its logits are: a softmax's, or the logarithms of a Dirichlet distribution's concentrations.
    """

    spec: str | None
    num_classes: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, ...] | None = None
    density: Density = "categorical"

    @property
    def normalization(self) -> Normalization:
        """The input statistics."""
        return Normalization(mean=self.mean, std=self.std)


def save_network(
    folder: str | Path,
    network: nn.Module,
    *,
    spec: str | NetworkSpec | None,
    num_classes: int,
    in_channels: int,
    normalization: Normalization | None = None,
    class_names: Sequence[str] | None = None,
    input_size: tuple[int, ...] | None = None,
    density: Density = "categorical",
    filename: str = "student.safetensors",
) -> Path:
    """Save a network so that `load_network(folder)` finds it; a file is replaced whole or not at all.

    Args:
        folder: Where to save; made if absent.
        network: The network, in `Normalized` or bare.
        spec: How it was built; None if it was given as a Python object, which only Python can build again.
        num_classes: Classes K.
        in_channels: Channels of the images.
        normalization: The statistics of a bare network; those of a `Normalized` one are its own.
        class_names: The classes in the order of the logits.
        input_size: Height and width of the images, in pixels.
        density: What its logits are.
        filename: Name of the file of weights, `.safetensors`.

    Returns:
        The file of weights.

    Raises:
        UserError: The file's name is not `.safetensors`, or the disk is full.
    """
    folder = Path(folder)
    if Path(filename).suffix != ".safetensors" or Path(filename).name != filename:
        raise UserError(f"Weights are saved as `NAME.safetensors` in the folder, not as {filename!r}.")
    if isinstance(network, Normalized):
        normalization = network.normalization
    statistics = normalization or Normalization.named("none")
    metadata = NetworkMetadata(
        spec=None if spec is None else architecture_of(spec),
        num_classes=num_classes,
        in_channels=in_channels,
        mean=statistics.mean,
        std=statistics.std,
        weights=filename,
        class_names=None if class_names is None else tuple(class_names),
        input_size=input_size,
        density=density,
    )
    # Cloned, because the format refuses tensors that share memory, as tied weights do.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in bare(network).state_dict().items()}
    with atomic(folder / filename) as file:
        file.write(save(state))
    write_json(folder / METADATA, asdict(metadata))
    return folder / filename


def read_metadata(path: str | Path) -> NetworkMetadata:
    """Return what is known of a saved network.

    Args:
        path: The folder, or a file of weights in it.

    Raises:
        UserError: There is no `network.json`, or it is not ours.
    """
    file = (Path(path) if Path(path).is_dir() else Path(path).parent) / METADATA
    if not file.is_file():
        raise UserError(
            f"{str(path)!r} is no saved network, as there is no {METADATA} beside it. "
            f"For weights from elsewhere, name the architecture too: `resnet20@{path}`."
        )
    known = {item.name for item in fields(NetworkMetadata)}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return NetworkMetadata(**{key: value for key, value in entries.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} does not describe a network: {error}.") from error


def weights_file(path: str | Path) -> Path:
    """Return the file of weights that a path means: of a saved network's folder, or the path itself.

    Args:
        path: A folder or a file.
    """
    return Path(path) / read_metadata(path).weights if Path(path).is_dir() else Path(path)


def metadata_beside(path: str | Path) -> NetworkMetadata | None:
    """Return what is known of a file of weights or a folder, or None if it was not saved by us.

    Args:
        path: A folder, or a file of weights.
    """
    path = Path(path)
    if not ((path if path.is_dir() else path.parent) / METADATA).is_file():
        return None
    return read_metadata(path)


def holds_network(folder: Path) -> bool:
    """Return whether a folder holds a network that was saved by us, or weights of another."""
    return any(file.name == METADATA or file.suffix in _WEIGHTS for file in folder.glob("*"))


def density_of(source: str) -> Density:
    """Return what the logits of a network by name are: what a run's folder says, else a softmax's.

    Args:
        source: The network, as `NetworkSpec` reads it.
    """
    spec = NetworkSpec.parse(source)
    place = spec.target if spec.weights is None else spec.weights
    metadata = metadata_beside(place) if spec.weights is not None or spec.kind == "run" else None
    return "categorical" if metadata is None else metadata.density


def architecture_of(spec: str | NetworkSpec) -> str:
    """Return the spec of the same network without weights; for a saved network, that of what was saved.

    Args:
        spec: The network.

    Raises:
        UserError: A saved network was given as a Python object.
    """
    spec = NetworkSpec.parse(spec) if isinstance(spec, str) else spec
    if spec.kind != "run":
        return str(spec.architecture())
    metadata = read_metadata(spec.target)
    if metadata.spec is None:
        raise UserError(f"The network in {spec.target!r} was a Python object: pass `spec=None` for its copy.")
    return metadata.spec
