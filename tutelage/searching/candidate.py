"""A network as scores see it: untrained, with one batch of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING, classified, classifier_copy
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.trace import Trace
from tutelage.models.answers import call
from tutelage.models.modes import evaluating, keeping_statistics
from tutelage.models.size import forward_flops

# Samples of the pass in which the parts of a network are found.
_TRACED = 2


@dataclass(frozen=True)
class Reading:
    """What a network shows of a batch of B samples with K classes.

    Attributes:
        logits: Its answers `[B, K]`.
        embedding: The inputs of its classifier `[B, C]`.
        maps: The maps `[B, C, H, W]` whose mean is the embedding; of one place for networks without such a map.
            Padding is zero.
        weight: The weights of its classifier `[K, C]`.
    """

    logits: Tensor
    embedding: Tensor
    maps: Tensor
    weight: Tensor


# Without ==, which for tensors would give no single truth value.
@dataclass(frozen=True, eq=False)
class Candidate:
    """A network, a batch, and what scores ask about them. What no score asks for is not computed.

    Attributes:
        network: The network.
        batch: The batch.
    """

    network: nn.Module
    batch: Batch
    _trace: Trace

    @classmethod
    def of(cls, network: nn.Module, batch: Batch) -> Candidate:
        """Return a network with its parts, which one pass over two samples shows.

        Args:
            network: The network.
            batch: The batch, on the device of the network.
        """
        return cls(network, batch, Trace.of(network, _first(batch.inputs, _TRACED), mode=by_batch))

    @cached_property
    def parameters(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @cached_property
    def multiply_adds(self) -> int:
        """How many multiplications, each with its addition, its answer to one sample takes; counting takes a pass."""
        # The samples of the trace, which it is known to take.
        flops = forward_flops(self.network, lambda: call(self.network, self._trace.example))
        # The counter counts a multiplication and its addition as two operations.
        return flops // (2 * self._trace.samples)

    @cached_property
    def classifier(self) -> nn.Linear:
        """A copy of its classifier, which maps the embedding to the logits.

        Raises:
            UserError: If it has none that can be found.
        """
        return classifier_copy(self.network, self._trace)

    @cached_property
    def reading(self) -> Reading:
        """What it shows of the batch, from one forward pass without gradients.

        Batch norm normalises by the batch, and dropout is off.

        Raises:
            UserError: If the layers cannot be found.
        """
        weight, tap = self.classifier.weight, classified(self.network, self._trace)
        layers = list(dict.fromkeys((tap.layer, EMBEDDING)))
        extractor = FeatureExtractor(self.network, layers, example=self._trace)
        with by_batch(self.network), torch.no_grad():
            output = extractor(self.batch.inputs)
        # Hooks tie the network to the extractor in a circle, which would keep both in memory for a while.
        extractor.release()
        maps, mask = tap.map(output), tap.mask(output)
        return Reading(
            logits=output.logits,
            embedding=output.features[EMBEDDING].flatten(1),
            maps=maps if mask is None else maps * mask,
            weight=weight,
        )


def check_width(candidate: Candidate, width: int) -> None:
    """Refuse a network whose classifier has another number of inputs.

    Args:
        candidate: The network.
        width: Inputs of the teacher's classifier.

    Raises:
        UserError: If the numbers differ.
    """
    found = candidate.classifier.in_features
    if found != width:
        raise UserError(f"its classifier has {found} inputs and the teacher's has {width}, which must be equal")


@contextmanager
def by_batch(network: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch, without an update of its statistics, and every other layer evaluate.

    Before training its running statistics are of nothing, and numbers would grow from block to block.
    """
    with evaluating(network):
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.training = True
        with keeping_statistics(network):
            yield


def _first(inputs: Any, samples: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _first(value, samples) for name, value in inputs.items()}
    return inputs[:samples]
