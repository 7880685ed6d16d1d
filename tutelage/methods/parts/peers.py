"""Networks that learn together, for methods without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.core.method import OptimizerSpec
from tutelage.data.batch import Output
from tutelage.data.criterion import CROSS_ENTROPY, Criterion
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.models.blueprint import part_of
from tutelage.models.segmenters import without_auxiliary

ENSEMBLE = "ensemble"


class Peers(nn.ModuleDict):
    """Networks that learn together, each with its own optimizer: `student`, `student-2`, `student-3` and so on.

    Args:
        networks: The networks, at least two.
        lr_scales: Factor on the run's learning rate, one for all networks or one for each.
        weight_decay_scales: Factor on the run's weight decay, one for all networks or one for each.
        layers: Layers to read from each network; none by default.
        examples: For each network inputs for one forward pass, or a `Trace` of it. Needed if layers are read.
        criterion: Combines all answers into one, `ensemble`.

    Raises:
        UserError: If there are fewer than two networks, two of them start from the same weights, or the factors do not
            fit.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        lr_scales: Sequence[float] = (1.0,),
        weight_decay_scales: Sequence[float] = (1.0,),
        layers: Sequence[Sequence[str]] | None = None,
        examples: Sequence[Any] | None = None,
        criterion: Criterion = CROSS_ENTROPY,
    ) -> None:
        count = len(networks)
        if count < 2:
            raise UserError(f"Networks that learn from each other must be two or more, and got {count}.")
        _refuse_twins(networks)
        # No layers are read by default, so no example is needed.
        read, seen = layers or [()] * count, examples or [None] * count
        named = zip(map(partial(part_of, "student"), range(count)), networks, read, seen, strict=True)
        super().__init__({name: FeatureExtractor(one, these, example=example) for name, one, these, example in named})
        self._criterion = criterion
        self.lr_scales = _one_for_each("lr_scales", lr_scales, count)
        self.weight_decay_scales = _one_for_each("weight_decay_scales", weight_decay_scales, count)
        # Zero is allowed for the weight decay alone.
        if 0.0 in self.lr_scales:
            raise UserError(f"lr_scales={list(lr_scales)} must be above zero.")

    @property
    def extractors(self) -> Mapping[str, FeatureExtractor]:
        """The networks by name."""
        return cast("dict[str, FeatureExtractor]", dict(self.items()))

    def outputs(self, inputs: Any) -> list[Output]:
        """Return the output of each network, from one forward pass each."""
        return [network(inputs) for network in self.values()]

    def predictions(self, inputs: Any) -> dict[str, Tensor]:
        """Return the logits of each network by name, and last their combination, `ensemble`."""
        logits = [output.logits for output in self.outputs(inputs)]
        # The ensemble comes last, because the first prediction is the deployed network's.
        return {**dict(zip(self, logits, strict=True)), ENSEMBLE: self._criterion.mean(torch.stack(logits))}

    def first(self) -> nn.Module:
        """Return the first network, which is deployed, without hooks."""
        return without_auxiliary(next(iter(self.extractors.values())).release())

    def others(self) -> dict[str, nn.Module]:
        """Return the other networks by name, without hooks."""
        return {name: without_auxiliary(network.release()) for name, network in list(self.extractors.items())[1:]}

    def optimizers(self) -> dict[str, OptimizerSpec]:
        """Return an optimizer for each network: the run's default with the network's own scales."""
        scales = zip(self.lr_scales, self.weight_decay_scales, strict=True)
        return {
            name: OptimizerSpec(params=trained(network), lr_scale=lr, weight_decay_scale=decay)
            for (name, network), (lr, decay) in zip(self.items(), scales, strict=True)
        }


def gather(
    students: Sequence[nn.Module], make_student: Callable[[str], nn.Module] | None, networks: int | None
) -> list[nn.Module]:
    """Return the networks that learn together.

    Args:
        students: The given networks.
        make_student: Makes more networks of the first architecture, each from the seed of its name.
        networks: Number of networks. By default as many as are given, but at least two.

    Raises:
        UserError: If that is fewer than two, or more than are given and `make_student` is missing.
    """
    count = max(2, len(students)) if networks is None else networks
    if count < 2:
        raise UserError(f"networks={networks} must be 2 or more: the networks learn from each other.")
    found = list(students[:count])
    if len(found) < count and make_student is None:
        raise UserError(f"networks={count}, and only {len(found)} were given: give {count}, or make_student.")
    return found + [make_student(part_of("student", position)) for position in range(len(found), count) if make_student]


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _one_for_each(name: str, values: Sequence[float], count: int) -> tuple[float, ...]:
    if len(values) not in (1, count):
        raise UserError(f"{name}={list(values)} must be one number for all {count} networks, or one for each.")
    if not all(value >= 0 for value in values):
        raise UserError(f"{name}={list(values)} must not be negative.")
    return tuple(values) * (count if len(values) == 1 else 1)


def _refuse_twins(networks: Sequence[nn.Module]) -> None:
    """Refuse networks with the same weights: on the same batches they stay equal and teach each other nothing."""
    for one, other in combinations(range(len(networks)), 2):
        ours, theirs = (list(networks[number].parameters()) for number in (one, other))
        # The lengths are compared below, before the pairs are.
        pairs = zip(ours, theirs, strict=False)
        if ours and len(ours) == len(theirs) and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs):
            names = " and ".join(part_of("student", number) for number in (one, other))
            raise UserError(
                f"The networks {names} start from the same weights, and so would stay equal and learn nothing from "
                "each other. Pass names or factories, which draw weights for each."
            )
