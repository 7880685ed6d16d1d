"""A method that trains like another one, on altered batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec, Progress, TransferSet, Update
from tutelage.data.batch import Batch
from tutelage.features.extractor import FeatureExtractor

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples


class Altered(Method):
    """Another method on altered training batches. Predictions use unaltered inputs.

    Args:
        method: The other method; its parameters keep their names, under `method.`.
        change: Makes the altered batch from a training batch and the `Progress`.
    """

    def __init__(self, method: Method, change: nn.Module) -> None:
        # The weights of the losses in use come from `weight` below, which asks the method.
        super().__init__(method.weights)
        self.method, self.change = method, change
        self.pairs, self.density = method.pairs, method.density

    @property
    def student(self) -> FeatureExtractor:  # type: ignore[override]  # A second name would be a second set of weights.
        """The network that is trained and deployed, for methods that have one."""
        return self.method.student

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the updates that follow from the altered batch."""
        # `yield from` hands over the method's own updates, so its code after a yield still runs after the step.
        yield from self.method.step(self.change(batch, progress), progress)

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the method's optimizers."""
        return self.method.optimizers()

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the method's predictions."""
        return self.method(inputs)  # type: ignore[no-any-return]

    def export(self) -> nn.Module:
        """Return the network that ships."""
        return self.method.export()

    def members(self) -> Mapping[str, nn.Module]:
        """Return the other networks that can ship."""
        return self.method.members()

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data that the method trains on."""
        return self.method.transfer_set(dataset)

    def total(self, update: Update, progress: Progress) -> Tensor:
        """Return the weighted sum of an update's losses, a scalar."""
        return self.method.total(update, progress)

    def weight(self, name: str, progress: Progress) -> float:
        """Return the weight of a loss at this point of the run."""
        return self.method.weight(name, progress)
