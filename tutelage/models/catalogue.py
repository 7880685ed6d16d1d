"""The networks that come with the library, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from tutelage.errors import unknown
from tutelage.models.zoo import densenet, googlenet, mobilenet, plain, resnet, resnext, shuffle, tiny, vgg, wrn

Factory = Callable[..., nn.Module]

CATALOGUE: Mapping[str, Factory] = MappingProxyType(
    {
        "mobilenetv2": mobilenet.mobilenetv2,
        "resnet8": resnet.resnet8,
        "resnet14": resnet.resnet14,
        "resnet20": resnet.resnet20,
        "resnet32": resnet.resnet32,
        "resnet44": resnet.resnet44,
        "resnet56": resnet.resnet56,
        "resnet110": resnet.resnet110,
        "resnet8x4": resnet.resnet8x4,
        "resnet32x4": resnet.resnet32x4,
        "resnet50_cifar": resnet.resnet50_cifar,
        "resnet_by_stage": resnet.resnet_by_stage,
        "shufflev1": shuffle.shufflev1,
        "shufflev2": shuffle.shufflev2,
        "tfkd_alexnet": plain.tfkd_alexnet,
        "tfkd_cnn": plain.tfkd_cnn,
        "tfkd_densenet121": densenet.tfkd_densenet121,
        "tfkd_googlenet": googlenet.tfkd_googlenet,
        "tfkd_mobilenetv2": mobilenet.tfkd_mobilenetv2,
        "tfkd_resnet18": resnet.tfkd_resnet18,
        "tfkd_resnet50": resnet.tfkd_resnet50,
        "tfkd_resnet101": resnet.tfkd_resnet101,
        "tfkd_resnext29": resnext.tfkd_resnext29,
        "tfkd_shufflenetv2": shuffle.tfkd_shufflenetv2,
        "tiny_cnn": tiny.tiny_cnn,
        "tiny_resnet": tiny.tiny_resnet,
        "vgg8": vgg.vgg8,
        "vgg11": vgg.vgg11,
        "vgg13": vgg.vgg13,
        "vgg16": vgg.vgg16,
        "vgg19": vgg.vgg19,
        "wrn_16_1": wrn.wrn_16_1,
        "wrn_16_2": wrn.wrn_16_2,
        "wrn_40_1": wrn.wrn_40_1,
        "wrn_40_2": wrn.wrn_40_2,
    }
)

# Runs that were saved before these networks had names use these specs.
FORMER_NAMES: Mapping[str, str] = MappingProxyType(
    {"tutelage.exits:shallow": "exit", "tutelage.methods.simkd:deployed": "simkd"}
)


def former_spec(spec: str) -> str:
    """Return a network's spec as earlier versions wrote it: fingerprints of their runs were made from that."""
    for former, name in FORMER_NAMES.items():
        if spec.startswith(f"{name},"):
            return former + spec.removeprefix(name)
    return spec


def names() -> tuple[str, ...]:
    """Return the names of all networks of the catalogue."""
    return tuple(CATALOGUE)


def factory(name: str) -> Factory:
    """Return the function that builds a network: `(num_classes, *, in_channels=3, ...) -> nn.Module`.

    Args:
        name: A name of the catalogue.

    Raises:
        UserError: The catalogue has no such name.
    """
    if name not in CATALOGUE:
        raise unknown("network", name, CATALOGUE)
    return CATALOGUE[name]
