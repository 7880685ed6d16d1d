"""A network that is trained only up to the layers that are read. Later layers stay frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.features.anatomy import place
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.order import entered_before
from tutelage.features.trace import Trace
from tutelage.models.modes import evaluating


class Trunk(FeatureExtractor):
    """A network that is trained only below the layers that are read. In train mode later layers do not run.

    The parameters above are frozen until `thaw`, and their modules stay in eval mode. Otherwise their batch norms would
    collect statistics of features that still change.

    Args:
        model: Any module that maps inputs to logits; its part above the layers is frozen in place.
        layers: Names of the layers to read.
        example: Inputs for one forward pass (batch of two or more), or a `Trace` of it.

    Attributes:
        waiting: Names of the parameters that were frozen.

    Raises:
        UserError: If nothing trainable lies below the layers.
    """

    waiting: tuple[str, ...] = ()
    _above: frozenset[str] = frozenset()

    def __init__(self, model: nn.Module, layers: Sequence[str], *, example: Any) -> None:
        trace = Trace.of(model, example)
        super().__init__(model, layers, example=trace)
        # Autograd decides, not the order of the modules: a parameter may be used anywhere.
        below = parameters_below(self, trace.example)
        trainable = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        self.waiting = tuple(name for name in trainable if name not in below)
        for name in self.waiting:
            self.model.get_parameter(name).requires_grad_(False)
        self._above = self._not_entered(trace)

    @property
    def gives_logits(self) -> bool:
        """Whether its outputs have logits: in eval mode, because validation needs the whole network."""
        return not self.training

    def train(self, mode: bool = True) -> Self:
        """Enter train mode below the layers, and stay in eval mode above."""
        super().train(mode)
        waiting = set(self.waiting)
        for name, module in self.model.named_modules():
            # A module with anything left to train stays in train mode.
            waits = any(parameter in waiting for parameter, _ in module.named_parameters(prefix=name))
            if (waits or name in self._above) and not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()
        return self

    def _not_entered(self, trace: Trace) -> frozenset[str]:
        """Return the names of the modules that have not started when the last layer is read."""
        begun = set(entered_before(trace, [place(self.model, layer, trace) for layer in self.layers]))
        modules = dict(self.model.named_modules())
        below = {name for name, module in modules.items() if module in begun}
        # A network may call a module directly, so the modules around it count as started too.
        holders = {name[:end] for name in below for end, sign in enumerate(name) if sign == "."}
        return frozenset(modules.keys() - below - holders - {""})


def parameters_below(extractor: FeatureExtractor, example: Any) -> frozenset[str]:
    """Return the names of the trainable parameters that influence the layers that are read.

    Args:
        extractor: The network and its layers.
        example: Inputs for one forward pass.

    Raises:
        UserError: If there are none.
    """
    named = {name: parameter for name, parameter in extractor.model.named_parameters() if parameter.requires_grad}
    # The caller may have turned gradients off.
    with evaluating(extractor), torch.enable_grad():
        features = [feature for feature in extractor(example).features.values() if feature.requires_grad]
    if not features:
        raise UserError(f"No trainable parameter lies below the layers {list(extractor.layers)}. Choose later layers.")
    # One backward pass reaches all parameters that influence any feature; the others get None.
    total = torch.stack([feature.sum() for feature in features]).sum()
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(named, gradients, strict=True) if gradient is not None)


def thaw(network: nn.Module, waiting: Sequence[str]) -> nn.Module:
    """Make the frozen parameters of a network trainable again, and return the network.

    Args:
        network: The network of a `Trunk`, or a copy of it.
        waiting: Names of the frozen parameters.
    """
    for name in waiting:
        network.get_parameter(name).requires_grad_(True)
    return network
