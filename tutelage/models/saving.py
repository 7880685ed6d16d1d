"""A network in a folder: its weights, and everything needed to build it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save
from torch import nn

from tutelage.errors import UserError
from tutelage.models.language import HEAD, PREFIX
from tutelage.models.language_files import CONFIG, is_language, save_language_files
from tutelage.models.normalization import Normalization, Normalized, bare
from tutelage.models.spec import NetworkSpec
from tutelage.models.trust import Origin
from tutelage.system.files import atomic, write_json

if TYPE_CHECKING:
    from tutelage.data.criterion import Density

METADATA = "network.json"
_WEIGHTS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class NetworkMetadata:
    """The content of a saved network's `network.json`.

    Attributes:
        spec: The architecture as `NetworkSpec` reads it, or None for a network that was given as a Python object.
        num_classes: Classes K.
        in_channels: Channels of the images; 0 for inputs that are not images.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
        weights: Name of the file of weights in the same folder.
        class_names: The classes in the order of the logits.
        input_size: Height and width of the images in training, in pixels.
        density: Kind of its logits: those of a softmax, or the logarithms of a Dirichlet distribution's concentrations.
        sha256: Digest of the file of weights; None if an earlier version saved it.
        task: The task that it was trained for; None if an earlier version saved it.
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
    sha256: str | None = None
    task: str | None = None

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
    task: str | None = None,
    filename: str = "student.safetensors",
) -> Path:
    """Save a network so that `load_network(folder)` can load it. Each file is replaced as a whole or not at all.

    Args:
        folder: Where to save; made if absent.
        network: The network, in `Normalized` or bare.
        spec: The spec it was built from; None if it was given as a Python object, which only Python can build again.
        num_classes: Classes K.
        in_channels: Channels of the images.
        normalization: The input statistics of a bare network. A `Normalized` network has its own.
        class_names: The classes in the order of the logits.
        input_size: Height and width of the images, in pixels.
        density: Kind of its logits: a softmax's (`categorical`) or a Dirichlet distribution's.
        task: The task that it was trained for.
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
    model = bare(network)
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    # `transformers` opens no file that does not say which library wrote it.
    content = save(state, metadata={"format": "pt"} if is_language(model) else None)
    metadata = NetworkMetadata(
        # A relative path would name another file when read from another working directory.
        spec=None if spec is None else str(NetworkSpec.parse(architecture_of(spec)).absolute()),
        num_classes=num_classes,
        in_channels=in_channels,
        mean=statistics.mean,
        std=statistics.std,
        weights=filename,
        class_names=None if class_names is None else tuple(class_names),
        input_size=input_size,
        density=density,
        task=task,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    # The weights first, so that the metadata never describe weights that are not written yet.
    with atomic(folder / filename) as file:
        file.write(content)
    if is_language(model):
        save_language_files(folder, model, weights=filename, class_names=class_names)
    write_json(folder / METADATA, asdict(metadata))
    return folder / filename


def read_metadata(path: str | Path) -> NetworkMetadata:
    """Return the metadata of a saved network.

    Args:
        path: The folder, or a file of weights in it.

    Raises:
        UserError: There is no `network.json`, or it does not describe a network.
    """
    file = metadata_file(path)
    if not file.is_file():
        raise UserError(
            f"{str(path)!r} is not a saved network: there is no {METADATA} beside it. For weights from elsewhere, name "
            f"the architecture too: `resnet20@{path}`."
        )
    known = {item.name for item in fields(NetworkMetadata)}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        # What a later version may add is passed over.
        metadata = NetworkMetadata(**{key: value for key, value in entries.items() if key in known})
        _check_metadata(metadata)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} does not describe a network: {error}.") from error
    return metadata


def _check_metadata(metadata: NetworkMetadata) -> None:
    """Refuse metadata with impossible values.

    Raises:
        ValueError: If a value is impossible.
    """
    if not (metadata.spec is None or isinstance(metadata.spec, str)):
        raise ValueError(f"spec={metadata.spec!r} is not text")
    for name in ("num_classes", "in_channels"):
        number = getattr(metadata, name)
        # Not isinstance, by which `true` would be the number 1. Texts have no channels.
        least = 0 if name == "in_channels" else 1
        if type(number) is not int or number < least:
            raise ValueError(f"{name}={number!r} is not a whole number of {least} or more")
    if not isinstance(metadata.weights, str) or Path(metadata.weights).name != metadata.weights:
        raise ValueError(f"weights={metadata.weights!r} is not the name of a file beside it")
    # Building it raises if the statistics are wrong.
    _ = metadata.normalization


def weights_file(path: str | Path) -> Path:
    """Return the file of weights in a saved network's folder; a path of a file is returned as it is.

    Args:
        path: A folder or a file.
    """
    return Path(path) / read_metadata(path).weights if Path(path).is_dir() else Path(path)


def metadata_beside(path: str | Path) -> NetworkMetadata | None:
    """Return the metadata of a file of weights or a folder; None if this library did not save it.

    Args:
        path: A folder, or a file of weights.
    """
    return read_metadata(path) if metadata_file(path).is_file() else None


def metadata_file(path: str | Path) -> Path:
    """Return the path of the `network.json` in a folder or beside a file of weights, even if it does not exist.

    Args:
        path: A folder, or a file of weights.
    """
    path = Path(path)
    return (path if path.is_dir() else path.parent) / METADATA


def check_digest(path: Path) -> None:
    """Refuse a file of weights whose digest is not the one in the `network.json` beside it, if there is one.

    Args:
        path: The file.

    Raises:
        UserError: The digests differ.
    """
    # Read without `read_metadata`, which would refuse folders that other programs have written.
    file = metadata_file(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        saved = content.get("sha256") if content.get("weights") == path.name else None
    except (OSError, ValueError, AttributeError):
        # It is absent, not ours or damaged; the last is reported where the metadata are read.
        return
    if saved is None:
        return
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != saved:
        raise UserError(
            f"{path} is not what was saved: its SHA-256 is {found[:12]}..., and {file} says {str(saved)[:12]}.... It "
            "is damaged or was replaced: put it back from a copy, or train again. If you replaced it yourself, delete "
            f'the entry "sha256" in {file}.'
        )


def holds_network(folder: Path) -> bool:
    """Return whether a folder holds a network saved by this library, or a file of weights from elsewhere."""
    return any(file.name == METADATA or file.suffix in _WEIGHTS for file in folder.glob("*"))


def density_of(source: str) -> Density:
    """Return the kind of a named network's logits: the kind that a run's folder names, else a softmax's.

    Args:
        source: The network, as `NetworkSpec` reads it.
    """
    metadata = metadata_of(source)
    return "categorical" if metadata is None else metadata.density


def class_names_of(source: str) -> tuple[str, ...] | None:
    """Return the classes of a network by name, in the order of its logits; None if that is not known.

    Args:
        source: The network, as `NetworkSpec` reads it.
    """
    metadata = metadata_of(source)
    return None if metadata is None else metadata.class_names


def metadata_of(source: str) -> NetworkMetadata | None:
    """Return the metadata of a network by name; None if this library did not save its weights.

    Args:
        source: The network, as `NetworkSpec` reads it.
    """
    spec = NetworkSpec.parse(source)
    place = spec.target if spec.weights is None else spec.weights
    return metadata_beside(place) if spec.weights is not None or spec.kind == "run" else None


def architecture_of(spec: str | NetworkSpec) -> str:
    """Return the spec of the same network without weights; for a saved network, the spec that was saved.

    Args:
        spec: The network.

    Raises:
        UserError: A saved network was given as a Python object.
    """
    return str(architecture(NetworkSpec.parse(spec) if isinstance(spec, str) else spec))


def architecture(spec: NetworkSpec, *, trust_code: bool = False) -> NetworkSpec:
    """Return the spec of the same network without weights; for a saved network, the one in its `network.json`.

    Args:
        spec: The network.
        trust_code: Whether the code that a `network.json` names may run when the network is built.

    Raises:
        UserError: A saved network was given as a Python object, or its spec names no architecture.
    """
    if spec.kind != "run":
        return spec.architecture()
    metadata, file = read_metadata(spec.target), metadata_file(spec.target)
    if metadata.spec is None:
        raise UserError(
            f"The network in {spec.target!r} was given as a Python object, so only Python can build it again: pass the "
            f"module itself, filled by `load_weights(module, {str(weights_file(spec.target))!r})`."
        )
    saved = NetworkSpec.parse(metadata.spec)
    if saved.kind == "run":
        raise UserError(f"{file} is damaged: its spec {metadata.spec!r} names a saved network, not an architecture.")
    if saved.kind == "transformers" and (file.parent / CONFIG).is_file():
        # The folder holds its own configuration and tokenizer, wherever the network came from.
        here = NetworkSpec(target=f"{PREFIX}{file.parent.absolute()}", pretrained=False)
        return here.ending_in(str(saved.options.get(HEAD, "")))
    return replace(saved.architecture(), origin=Origin(str(file), trusted=trust_code))
