"""Networks of timm and torchvision by name, with or without their pretrained weights."""

from __future__ import annotations

import pickle
import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from torch import nn

from tutelage.errors import UserError, unknown
from tutelage.models.heads import adapt_input, replace_classifier
from tutelage.models.language import language_classes
from tutelage.models.normalization import Normalization
from tutelage.models.segmenters import is_segmenter, replace_heads
from tutelage.models.user_code import FAILURES, told
from tutelage.system.values import Share, check, check_all

# How long to wait for the hub before the cache is used, and for a server that does not answer.
_REACH_SECONDS = 5.0
_SILENT_SECONDS = 20.0


def pretrained_classes(kind: str, name: str, options: Mapping[str, Any]) -> int | None:
    """Return for how many classes the pretrained weights were trained; None if it is not known.

    Args:
        kind: `timm`, `torchvision` or `transformers`.
        name: The network's name there.
        options: The spec's options; `weights` chooses among torchvision's.
    """
    if kind == "transformers":
        found = language_classes(name)
        return None if found is None else len(found)
    if kind == "torchvision":
        return len(_torchvision_weights(name, options).meta["categories"])
    classes = _timm_config(name).get("num_classes")
    return None if classes is None else int(classes)


def pretrained_class_names(kind: str, name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the pretrained weights' classes, in the order of the logits; empty if they are not known.

    Args:
        kind: `timm`, `torchvision` or `transformers`.
        name: The network's name there.
        options: The spec's options; `weights` chooses among torchvision's.
    """
    if kind == "transformers":
        return language_classes(name) or ()
    if kind == "torchvision":
        return tuple(_torchvision_weights(name, options).meta["categories"])
    from timm.data import ImageNetInfo, infer_imagenet_subset

    # timm's weights have no names of classes with them; their number and tag tell which part of ImageNet they are of.
    subset = infer_imagenet_subset(dict(_timm_config(name)))
    return () if subset is None else tuple(ImageNetInfo(subset).label_descriptions())


def build_timm(
    name: str, *, num_classes: int, in_channels: int, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Normalization | None]:
    """Return a network of timm, and the input statistics that its pretrained weights expect.

    Args:
        name: Name with or without a tag, such as `resnet18.a1_in1k`.
        num_classes: Classes K; pretrained weights for another number get an untrained classifier.
        in_channels: Channels of the images.
        pretrained: Whether timm's weights are fetched.
        options: Further arguments of `timm.create_model`.

    Raises:
        UserError: There is no such network, option or pretrained weights, or they cannot be fetched.
    """
    import timm

    if "checkpoint_path" in options:
        raise UserError(f"timm:{name}: name weights of your own after an @: `timm:{name}@FILE`.")
    config = _timm_config(name) if pretrained else {}
    if not pretrained:
        _check_timm_name(name)
    # Options come last and win, such as `num_classes=0` for a network without a classifier.
    arguments = {"num_classes": num_classes, "in_chans": in_channels, **options}
    try:
        with _short_waits() if pretrained else nullcontext():
            network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"The pretrained weights of timm:{name} hold pickled Python objects, which are not loaded because that can "
            "run any code. Ask for them as safetensors, or add `,pretrained=false`."
        ) from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise _not_built(f"timm:{name}", options, error) from error
        raise _not_fetched(f"timm:{name}", error) from error
    except FAILURES as error:
        raise _not_built(f"timm:{name}", options, error) from error
    _check_options(options, network, of=f"timm:{name}")
    own = Normalization(mean=config["mean"], std=config["std"]) if "mean" in config else None
    return network, own


def build_torchvision(
    name: str, *, num_classes: int, in_channels: int, pretrained: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, Normalization | None]:
    """Return a network of torchvision, and the input statistics that its pretrained weights expect.

    Args:
        name: Name of a network that classifies images or pixels, such as `resnet18` or `fcn_resnet50`.
        num_classes: Classes K; pretrained weights for another number get an untrained classifier.
        in_channels: Channels of the images.
        pretrained: Whether torchvision's weights are fetched.
        options: Further arguments of the factory; `weights` chooses among its weights, and `num_classes` takes the
            place of K: with 0 there is no classifier.

    Raises:
        UserError: There is no such network, option or weights, or they cannot be fetched.
    """
    import torchvision

    is_dense = is_segmenter(name)
    weights = _torchvision_weights(name, options) if pretrained else None
    _check_torchvision_name(name)
    arguments = {key: value for key, value in options.items() if key not in ("weights", "num_classes")}
    num_classes = options.get("num_classes", num_classes)
    # With weights, torchvision insists on their own number of classes; the classifier is replaced below.
    if weights is None:
        # Built with one class where there shall be none; the classifier is removed below.
        arguments["num_classes"] = num_classes or 1
        # Their factories fetch weights of the backbone unless they are told not to.
        arguments |= {"weights_backbone": None} if is_dense else {}
    try:
        with _bounded_sockets(), warnings.catch_warnings():
            # Of GoogLeNet and Inception: that a default of theirs will change one day.
            warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
            network: nn.Module = torchvision.models.get_model(name, weights=weights, **arguments)
    except OSError as error:
        raise _not_fetched(f"torchvision:{name}", error) from error
    except FAILURES as error:
        raise _not_built(f"torchvision:{name}", arguments, error) from error
    if not is_dense:
        _check_options(arguments, network, of=f"torchvision:{name}")
    if in_channels != 3:
        adapt_input(network, in_channels)
    if weights is None and num_classes:
        return network, None
    if is_dense:
        replace_heads(network, num_classes)
    else:
        replace_classifier(network, num_classes)
    if weights is None:
        return network, None
    preset = weights.transforms()
    return network, Normalization(mean=preset.mean, std=preset.std)


def _check_timm_name(name: str) -> None:
    import timm

    # What these prefixes stand for is not in timm's list.
    if not name.startswith(("hf_hub:", "hf-hub:", "local-dir:")) and not timm.is_model(name):
        raise unknown("timm network", name, timm.list_models())


def _timm_config(name: str) -> Mapping[str, Any]:
    """Return timm's configuration of the pretrained weights of this name."""
    import timm

    _check_timm_name(name)
    if name.startswith(("hf_hub:", "hf-hub:")):
        try:
            with _short_waits():
                loaded: dict[str, Any] = timm.models.load_model_config_from_hf(name.split(":", 1)[1])[0]
        except OSError as error:
            raise _not_fetched(f"timm:{name}", error) from error
        return loaded
    # timm reads the configuration in the folder only when it builds the network.
    if name.startswith("local-dir:"):
        return {}
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise unknown(
            "set of pretrained weights in timm", name, timm.list_pretrained(f"{name.split('.', 1)[0]}.*")
        ) from error
    if config is None or not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name!r}: add `,pretrained=false`, or `@FILE` for weights of your own."
        )
    described: dict[str, Any] = config.to_dict()
    return described


def _check_torchvision_name(name: str) -> None:
    import torchvision

    known = [
        *torchvision.models.list_models(module=torchvision.models),
        *torchvision.models.list_models(module=torchvision.models.segmentation),
    ]
    if name not in known:
        raise unknown("torchvision network", name, known)


def _torchvision_weights(name: str, options: Mapping[str, Any]) -> Any:
    import torchvision

    _check_torchvision_name(name)
    known = torchvision.models.get_model_weights(name)
    chosen = options.get("weights", "DEFAULT")
    if chosen not in known.__members__:
        raise unknown(f"set of weights of torchvision:{name}", str(chosen), known.__members__)
    return known[chosen]


def _check_options(options: Mapping[str, Any], network: nn.Module, *, of: str) -> None:
    """Refuse options that a constructor stores without a check, and that would fail only in training."""
    check_all(options, type(network), of=of)
    for name, value in options.items():
        # So timm, torchvision and transformers call their shares of dropout.
        if name.endswith(("drop_rate", "drop_path_rate", "dropout")):
            check(name, value, Share, of=of)


def _not_built(network: str, options: Mapping[str, Any], error: Exception) -> UserError:
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return UserError(f"{network} cannot be built with {given or 'its default options'}: {told(error)}.")


def _not_fetched(network: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0]
    return UserError(
        f"The pretrained weights of {network} could not be fetched ({type(error).__name__}: {reason}). Without "
        "a connection, add `,pretrained=false` for an untrained network, or `@FILE` for weights of your own."
    )


@contextmanager
def _short_waits() -> Iterator[None]:
    """Use the cache at once if the hub is out of reach: its client would retry for most of a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _bounded_sockets() -> Iterator[None]:
    """Give up on a server that does not answer: torch.hub opens its connections without a time limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reachable(address: str) -> bool:
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_REACH_SECONDS):
            return True
    except HTTPError:
        # Any answer proves that the server is there.
        return True
    except URLError as error:
        # A failed handshake still proves that a server answered.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
