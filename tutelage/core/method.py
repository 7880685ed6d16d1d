"""Distillation methods: losses on a batch, and the optimizers that step on them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tutelage.data.batch import Batch
from tutelage.data.criterion import Density
from tutelage.data.own import as_samples
from tutelage.data.sections import SectionedAugmentation
from tutelage.errors import UserError
from tutelage.features.extractor import AUXILIARY, FeatureExtractor, is_trained
from tutelage.models.segmenters import without_auxiliary

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from tutelage.core.pairing import LayerPair
    from tutelage.data.augment import Augmentation
    from tutelage.data.dataset import Data
    from tutelage.data.loader import Loader
    from tutelage.data.samplers import BatchSampler

    AnySamples = Dataset[Any] | DataLoader[Any]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training run has come. Schedules of weights and temperatures are functions of it.

    Attributes:
        step: Batches seen before this one.
        total_steps: Batches that the whole run will see.
        epoch: Epochs finished before this one.
        first_of_epoch: Whether this is the first batch of its epoch.
    """

    step: int = 0
    total_steps: int = 1
    epoch: int = 0
    first_of_epoch: bool = False

    @property
    def fraction(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        # A run without batches must not divide by zero.
        return self.step / max(1, self.total_steps)


# As in the training recipes of PSPNet, DeepLab and torchvision.
_AUXILIARY_WEIGHT = 0.4

DEPLOYED = "student"
"""Name of the deployed network's prediction."""

Weight = float | Callable[[Progress], float]


@dataclass(frozen=True)
class Update:
    """One optimizer step: named, unweighted, scalar losses, and the optimizer that steps on their weighted sum."""

    losses: Mapping[str, Tensor]
    optimizer: str = "student"


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """The parameters that an optimizer trains, and its differences from the run's default.

    Attributes:
        params: Its parameters. An update touches no others.
        build: Makes the optimizer from the parameters; None takes the run's default.
        lr_scale: Factor on the run's learning rate.
        weight_decay_scale: Factor on the run's weight decay.
        clip_norm: Largest gradient norm; None takes the run's.
        schedule: Factor on its peak learning rate; None takes the run's schedule with its warm-up.
    """

    params: Sequence[nn.Parameter]
    build: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    lr_scale: float = 1.0
    weight_decay_scale: float = 1.0
    clip_norm: float | None = None
    schedule: Callable[[Progress], float] | None = None


@dataclass(frozen=True)
class TransferSet:
    """The data that a method trains on.

    Attributes:
        dataset: The samples.
        batches: Chooses the samples of each batch, if the method needs special ones.
        sections: Number of equal sections in a batch of that sampler, such as samples and then their partners. Several
            processes share each section, so that a sample and its partner stay in one process.
        views: Number of views of a sample that a batch of that sampler shows at once.
        augmentations: The augmentation of each section, where they differ; otherwise all have that of the data.
        make_loader: Makes the batches from the arguments of `Data.loader`, for samples that no dataset holds, such as
            a generator's.
    """

    dataset: AnySamples
    batches: BatchSampler | None = field(default=None)
    sections: int = 1
    views: int = 1
    augmentations: tuple[Augmentation, ...] = ()
    make_loader: Callable[..., Loader] | None = None

    def loader(self, data: Data, **arguments: Any) -> Loader:
        """Return the training batches of the data, with these samples instead of its own.

        Args:
            data: The data.
            **arguments: Arguments of `Data.loader`, such as the batch size and the seed.

        Raises:
            UserError: If the views are recorded, and these are other samples or need more views than were recorded.
        """
        self.check(data)
        if self.make_loader is not None:
            return self.make_loader(**arguments)
        if self.augmentations:
            data = replace(data, augmentation=SectionedAugmentation(sections=self.augmentations))
        # Through `Data`, so that these samples get the same augmentation, workers and rules for the last batch.
        return data.with_splits(train=as_samples(self.dataset, data.task)).loader(
            "train", train=True, batch_sampler=self.batches, sections=self.sections, **arguments
        )

    def check(self, data: Data) -> None:
        """Refuse samples and views that a recording does not have.

        Args:
            data: The data.

        Raises:
            UserError: If the views are recorded, and these are other samples or need more views than were recorded.
        """
        # Identity, not equality: recorded views belong to exactly the data's own samples.
        if data.recording is not None and self.dataset is not data.train:
            raise UserError(
                "This method trains on samples that it puts together itself, but a recording has only those of the "
                "data: pass the teacher itself."
            )
        if data.recording is not None and data.recording.views < self.views:
            raise UserError(
                f"A batch shows {self.views} views of each image at once, but only {data.recording.views} of each are "
                f"recorded: record more (tutelage record --views {self.views}), or show fewer in a batch."
            )


class Method(nn.Module, ABC):
    """A distillation method: it owns its networks and defines the losses of a batch.

    Most methods define only `losses`. Define `step` instead if several optimizers alternate. Code after a `yield` in
    `step` runs after the optimizer has stepped. A method does not depend on a training framework.

    Attributes:
        weights: Weight of each loss by name: a number or a function of `Progress`. A loss that is absent weighs 1.
        student: The network that is trained and deployed, for methods that have one.
        pairs: Which layer of the student is compared with which of the teacher, for methods that compare layers.
        density: Kind of its predictions' logits, of a softmax or a Dirichlet distribution; saved with the network.
    """

    weights: Mapping[str, Weight]
    student: FeatureExtractor
    pairs: Sequence[LayerPair] = ()
    density: Density = "categorical"

    def __init__(self, weights: Mapping[str, Weight] | None = None) -> None:
        super().__init__()
        # A copy, so that later changes of the caller's mapping have no effect.
        self.weights = dict(weights or {})

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the named, unweighted losses of a batch, each a scalar."""
        raise TypeError(f"{type(self).__name__} must define losses(batch) or step(batch, progress)")

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the updates that follow from a batch."""
        yield Update({**self.losses(batch), **self.auxiliary(batch)})

    def auxiliary(self, batch: Batch, network: nn.Module | None = None) -> dict[str, Tensor]:
        """Return the supervised loss of a network's auxiliary head, times 0.4, if it has one and there are targets.

        Segmentation networks of torchvision have such a head. A method with a `step` of its own adds this itself.

        Args:
            batch: The batch that the network has just answered.
            network: A network of the method; by default its student.
        """
        reader = getattr(self, "student", None) if network is None else network
        answer = reader.take_auxiliary() if isinstance(reader, FeatureExtractor) else None
        if answer is None or batch.targets is None:
            return {}
        return {AUXILIARY: _AUXILIARY_WEIGHT * batch.loss(answer)}

    def memory_of_terms(self, samples: int) -> Mapping[str, int]:
        """Return the memory that losses take beside what the networks keep, in bytes by the loss's name.

        For losses that can take more than the networks do, so that it is known before it is taken.

        Args:
            samples: Samples of a batch.
        """
        return {}

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the optimizers by name; by default one, `"student"`, of all trainable parameters."""
        # A teacher is a submodule too; its parameters are frozen, and so are left out.
        return {"student": OptimizerSpec(params=[p for p in self.parameters() if p.requires_grad])}

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return named predictions, each logits `[batch, class]`. The first is deployed; the others are its members."""
        return {DEPLOYED: self.student(inputs).logits}

    def export(self) -> nn.Module:
        """Return the network that ships, without adapters and hooks. It computes the first prediction."""
        return without_auxiliary(self.student.release())

    def members(self) -> Mapping[str, nn.Module]:
        """Return the other networks that can ship, such as peers or exits, each by the name of its prediction."""
        return {}

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data to train on, with pairs, views or negatives if the method needs them."""
        return TransferSet(dataset)

    def total(self, update: Update, progress: Progress) -> Tensor:
        """Return the weighted sum of an update's losses, a scalar.

        Raises:
            UserError: If the update carries no loss.
        """
        terms = [self.weight(name, progress) * loss for name, loss in update.losses.items()]
        if not terms:
            raise UserError(f"{type(self).__name__} yielded an update without losses.")
        # Starting from the first term, not from 0, keeps the sum a tensor.
        return sum(terms[1:], start=terms[0])

    def weight(self, name: str, progress: Progress) -> float:
        """Return the weight of a loss at this point of the run."""
        weight = self.weights.get(name, 1.0)
        return weight(progress) if callable(weight) else weight


def networks(method: Method, *, trained: bool) -> list[FeatureExtractor]:
    """Return the networks of a method that are trained, or those that are not."""
    found = (module for module in method.modules() if isinstance(module, FeatureExtractor))
    return [network for network in found if is_trained(network) == trained]
