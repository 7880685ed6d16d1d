"""Files of weights: read without running their code, unwrapped, and compared with the network before loading."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.heads import last_layer
from tutelage.models.normalization import bare

_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "student", "net", "network", "weights",
    "ema", "model_ema", "state_dict_ema", "module", "params",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.", "model.", "student.", "net.", "network.")
_SHOWN = 5
# What training scripts often save beside the weights; none of it can run code.
_HARMLESS = [
    argparse.Namespace, np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType,  # type: ignore[attr-defined]
    np.dtypes.Int64DType,
]  # fmt: skip


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file of weights into a network, all of them or none.

    Args:
        network: The network, wrapped by `Normalized` or not; changed in place.
        path: A file `.safetensors`, or one of `torch.save`.

    Raises:
        UserError: The file cannot be read, or holds other weights than the network has.
    """
    network, path = bare(network), Path(path)
    expected = network.state_dict()
    found = _without_prefixes(read_weights(path), expected)
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected and not key.endswith("num_batches_tracked")]
    different = [key for key in expected if key in found and expected[key].shape != found[key].shape]
    if missing or unexpected or different:
        raise _does_not_fit(path, network, found, missing=missing, unexpected=unexpected, different=different)
    network.load_state_dict(expected | {key: value for key, value in found.items() if key in expected})


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, out of the dictionaries that training scripts put around them.

    Args:
        path: A file `.safetensors`, or one of `torch.save`. Pickled code is never run.

    Raises:
        UserError: The file is absent, damaged, holds pickled objects, or holds no weights that can be told.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file of weights at {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): is it damaged?") from error
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        if _is_state(content):
            return dict(content)
        inside = [key for key in content if _is_state(content[key])]
        known = [key for key in _WRAPPERS if key in inside]
        if known or len(inside) == 1:
            return dict(content[(known or inside)[0]])
        deeper = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not deeper:
            names = ", ".join(repr(key) for key in list(content)[:_SHOWN])
            raise UserError(
                f"{path} holds no weights that can be told among its entries {names}. Save one dictionary of tensors: "
                "`torch.save(model.state_dict(), FILE)`."
            )
        content = content[deeper[0]]
    raise UserError(
        f"{path} holds a {type(content).__name__}, not a dictionary of tensors: "
        "save it with `torch.save(model.state_dict(), FILE)`."
    )


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _without_prefixes(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while found.keys() != expected.keys():
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in found)), None)
        if prefix is None or all(key.startswith(prefix) for key in expected):
            break
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _does_not_fit(
    path: Path,
    network: nn.Module,
    found: Mapping[str, Tensor],
    *,
    missing: list[str],
    unexpected: list[str],
    different: list[str],
) -> UserError:
    expected = network.state_dict()
    shapes = [f"{key} (file {list(found[key].shape)}, network {list(expected[key].shape)})" for key in different]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    lines = [f"{kind}: {_some(keys)}" for kind, keys in kinds.items() if keys]
    cause = "they belong to another architecture, or to other options of this one"
    if not missing and not unexpected:
        cause = _cause(found, expected, different, head=last_layer(network)) or cause
    return UserError(
        f"The weights in {path} do not fit the network ({type(network).__name__}). {'; '.join(lines)}. Likely {cause}."
    )


def _cause(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    different: list[str],
    *,
    head: tuple[str, nn.Module] | None,
) -> str | None:
    weight = f"{head[0]}.weight" if head else ""
    if head is not None and weight in different and all(key.startswith(f"{head[0]}.") for key in different):
        return f"the checkpoint has {found[weight].shape[0]} classes, the data {expected[weight].shape[0]}"
    if len(different) == 1 and found[different[0]].ndim == expected[different[0]].ndim == 4:
        theirs, ours = found[different[0]].shape[1], expected[different[0]].shape[1]
        return f"the checkpoint takes {theirs} input channels, the data have {ours}"
    return None


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _refused(path: Path, error: Exception) -> UserError:
    # PyTorch's own message tells the reader to switch the protection off.
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f" (it asks for {asked[1]})" if asked else ""
    return UserError(
        f"{path} holds pickled Python objects beside tensors{what}. Loading those can run any code, so it is not done. "
        "Ask whoever made it for the weights alone, as safetensors or from `torch.save(model.state_dict(), FILE)`, "
        "or, where you trust the file, convert it once like that in a Python of your own."
    )
