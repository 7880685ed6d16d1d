"""The second stage of discovery: clusters of novel classes are found beside the known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import DEPLOYED, Method, Progress, TransferSet, Update
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.samplers import MixedBatches
from tutelage.data.samples import Samples
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED
from tutelage.methods.parts.known_classes import Snapshot, learn_known
from tutelage.methods.parts.open_losses import assignments, relation_loss, swapped_loss
from tutelage.methods.parts.prototypes import NovelHead, OpenHead, head_of, put_head
from tutelage.models.copies import copy_of
from tutelage.system import processes
from tutelage.training.run import Run

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples

# Views of an image whose cluster is a target, and which the snapshot is asked about. Smaller crops only learn.
LARGE = 2
# With a larger contrast, the smallest entries of the kernel are no longer normal numbers of float32.
_LEAST_EPSILON = 1 / 80


@dataclass(frozen=True, kw_only=True)
class Views:
    """How the views of an image in a batch differ.

    Attributes:
        strong: The augmentation of the second view; `auto` is that of the data and random tones. The first view has
            the data's own.
        small_views: Number of further views.
        small: Their augmentation.
    """

    strong: str = "auto"
    small_views: int = 0
    small: str = "resized-crop:0.2:0.5,flip"

    def of(self, data: Data) -> tuple[Augmentation, ...]:
        """Return the augmentation of each view.

        Raises:
            UserError: If one cannot be read, there are fewer than no views, or random tones are chosen for images that
                are normalised already, which they would cut off.
        """
        if self.small_views < 0:
            raise UserError(f"small_views={self.small_views} must be 0 or more.")
        own, example = data.augmentation, data.example(2)
        if self.strong == "auto" and (example.min() < 0 or example.max() > 1):
            raise UserError(
                f"The images of {data.name} are normalised already, and random tones are for images in [0, 1]: name "
                "the second view's augmentation, such as strong='crop:4,flip', or let a network by name normalise."
            )
        usual = f"{own},colour:0.4" if own else "colour:0.4"
        strong = usual if self.strong == "auto" else self.strong
        return (own, Augmentation.parse(strong), *[Augmentation.parse(self.small)] * self.small_views)


@dataclass(frozen=True)
class Relation:
    """How answers keep their relation to the known classes.

    Attributes:
        alpha: Weight of the term.
        temperature: Softens both answers.
        loss: The term, as a function of the snapshot's logits, the network's and the temperature.
    """

    alpha: float = 0.1
    temperature: float = 4.0
    loss: Callable[..., Tensor] = relation_loss

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.temperature > 0):
            raise UserError(
                f"alpha={self.alpha} must be zero or more, and relation_temperature={self.temperature} above zero."
            )


@dataclass(frozen=True)
class Heads:
    """The novel heads.

    Attributes:
        count: Their number.
        hidden: Channels of the hidden layer of each; 0 for prototypes of the embedding itself.
        width: Channels that the prototypes read.
    """

    count: int = 4
    hidden: int = 512
    width: int = 128

    def __post_init__(self) -> None:
        if self.count < 1 or self.hidden < 0 or self.width < 1:
            raise UserError(
                f"heads={self.count} and width={self.width} must be 1 or more, and hidden={self.hidden} 0 or more."
            )


@dataclass(frozen=True)
class Clustering:
    """How clusters are assigned.

    Attributes:
        temperature: Divides all cosines.
        epsilon: Sharpness of the assignment; smaller is sharper.
        iterations: Sinkhorn's iterations.
        assign: Returns the clusters of samples from their cosines.
        loss: The loss of all views with those clusters.
    """

    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    assign: Callable[..., Tensor] = assignments
    loss: Callable[..., Tensor] = swapped_loss

    def __post_init__(self) -> None:
        if not self.epsilon >= _LEAST_EPSILON or self.iterations < 1:
            raise UserError(
                f"epsilon={self.epsilon} must be {_LEAST_EPSILON} or more, and iterations={self.iterations} 1 or more."
            )


def discover(
    run: Run,
    make_student: Callable[[], nn.Module],
    data: Data,
    example: Any,
    batch_size: int,
    *,
    relation: Relation | None,
    heads: Heads,
    clustering: Clustering,
    views: Views,
    known_epochs: int,
) -> Discover:
    """Return the method of the second stage, after the first one.

    Args:
        run: The run.
        make_student: Makes the network.
        data: Data with novel classes.
        example: Inputs for one forward pass.
        batch_size: Samples in a batch.
        relation: The relation to the known classes; None leaves it out.
        heads: The novel heads.
        clustering: How clusters are assigned.
        views: How views differ.
        known_epochs: Epochs of the first stage; 0 for as many as the run has.
    """
    augmentations = views.of(data)
    # For its errors: too few samples are told before the first stage, and not after it.
    mixed_batches(data.train, batch_size, len(augmentations))
    network = learn_known(run, make_student, data, example, temperature=clustering.temperature, epochs=known_epochs)
    snapshot = None if relation is None else Snapshot(copy_of(network))
    novel = data.num_classes - data.task.known
    features = head_of(network)[1].known.weight.shape[1]
    found = [NovelHead(features, heads.hidden, heads.width, novel) for _ in range(heads.count)]
    # The known prototypes go on from what they have learned.
    head = OpenHead(head_of(network)[1].known, found, clustering.temperature)
    put_head(network, adapting(head, network))
    return Discover(network, snapshot, example, batch_size, augmentations, clustering, relation)


class Discover(Method):
    """The second stage: clusters of novel classes beside the known ones, and their relation to the snapshot.

    Args:
        network: A network that ends in prototypes, with some novel heads.
        snapshot: What the relation keeps to; None leaves it out.
        example: Inputs for one forward pass.
        batch_size: Samples in a batch.
        augmentations: The augmentation of each view.
        clustering: How clusters are assigned.
        relation: The relation; None leaves it out.
    """

    def __init__(
        self,
        network: nn.Module,
        snapshot: Snapshot | None,
        example: Any,
        batch_size: int,
        augmentations: tuple[Augmentation, ...],
        clustering: Clustering,
        relation: Relation | None,
    ) -> None:
        super().__init__({} if relation is None else {"relation": relation.alpha})
        layer = f"{head_of(network)[0]}:in"
        # The head is run by the method, because it has several answers.
        self.student = FeatureExtractor(network, [layer], example=example, logits=False)
        self.snapshot, self.batch_size = snapshot, batch_size
        self.views = tuple(map(str, augmentations))
        self.temperature, self.epsilon = clustering.temperature, clustering.epsilon
        self.iterations = clustering.iterations
        self.relation_temperature = None if relation is None else relation.temperature
        self._layer, self._augmentations = layer, augmentations
        self._clustering, self._related = clustering, relation

    @property
    def head(self) -> OpenHead:
        """The network's head of prototypes."""
        return head_of(self.student.model)[1]

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data in batches of labelled and unlabelled samples, each in all its views.

        Raises:
            UserError: If the data are a DataLoader, or the samples are too few for the batches.
        """
        views = self._augmentations
        batches = mixed_batches(dataset, self.batch_size, len(views))
        return TransferSet(dataset, batches, sections=len(views), views=len(views), augmentations=views)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the losses as `cluster` and `relation`, and renormalise the prototypes after the step."""
        losses, of_heads = self._losses(batch)
        yield Update(losses)
        self.head.note(of_heads, anew=progress.first_of_epoch)
        self.head.renormalise()

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return logits `[batch, class]` of the best novel head beside the known classes."""
        return {DEPLOYED: self.head(self.student(inputs).features[self._layer])}

    def export(self) -> nn.Module:
        """Return a copy of the network with the best novel head alone."""
        network = copy_of(self.student.release())
        put_head(network, self.head.shipped())
        return network

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses by name, and each head's loss of the clusters, `[head]`."""
        views = len(self._augmentations)
        labels = batch.labels.view(views, -1)[0]
        known, novel = self.head.cosines(self.student(batch.inputs).features[self._layer])
        heads, classes = len(novel), known.shape[1] + novel.shape[2]
        # [head, view, sample, class]
        cosines = torch.cat([known.expand(heads, -1, -1), novel], dim=2).view(heads, views, -1, classes)
        targets = self._targets(cosines[:, :LARGE, :, known.shape[1] :].detach(), labels, classes)
        logits = cosines / self.temperature
        of_heads = self._clustering.loss(logits, targets)
        found = {"cluster": of_heads.mean()}
        if self.snapshot is not None:
            found["relation"] = self._relation(batch, logits[:, :LARGE], labels == UNLABELLED)
        return found, of_heads.detach()

    def _targets(self, novel: Tensor, labels: Tensor, classes: int) -> Tensor:
        """Return the targets of each head and large view, `[head, view, sample, class]`."""
        known = classes - novel.shape[-1]
        targets = novel.new_zeros((*novel.shape[:-1], classes))
        has_label = labels != UNLABELLED
        targets[:, :, has_label] = F.one_hot(labels[has_label], classes).to(targets.dtype)
        for head, views in enumerate(novel[:, :, ~has_label]):
            for view, cosines in enumerate(views):
                options = {"epsilon": self.epsilon, "iterations": self.iterations}
                targets[head, view, ~has_label, known:] = self._clustering.assign(cosines, **options)
        return targets

    def _relation(self, batch: Batch, logits: Tensor, is_novel: Tensor) -> Tensor:
        """Return the relation of unlabelled samples in their large views, logits `[head, view, sample, class]`."""
        assert self.snapshot is not None and self._related is not None  # noqa: PT018 - one condition
        inputs = batch.inputs.view(len(self._augmentations), len(is_novel), *batch.inputs.shape[1:])
        asked = inputs[:LARGE, is_novel].flatten(0, 1)
        old = self.snapshot(replace(batch, inputs=asked, targets=None, indices=None, extras={})).logits
        new = logits[:, :, is_novel]
        # The snapshot answers once for all heads.
        old = old.view(1, LARGE, -1, old.shape[-1]).expand(len(new), -1, -1, -1)
        return self._related.loss(old.flatten(0, 2), new.flatten(0, 2), self._related.temperature)


def mixed_batches(dataset: AnySamples, batch_size: int, views: int) -> MixedBatches:
    """Return batches of labelled and unlabelled samples, each in all its views.

    Args:
        dataset: The samples.
        batch_size: Samples in a batch.
        views: Number of views.

    Raises:
        UserError: If the data are a DataLoader, or the samples are too few for the batches.
    """
    if not isinstance(dataset, Samples) or dataset.targets is None:
        raise UserError("Views of labelled and unlabelled samples need samples by position: pass the dataset.")
    return MixedBatches(
        dataset.targets != UNLABELLED, batch_size=batch_size, views=views, drop_last=processes.count() > 1
    )
