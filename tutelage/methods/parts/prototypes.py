"""Cosine prototypes as a classifier, for known and for novel classes, and networks that end in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.features.adapting import adapting
from tutelage.features.anatomy import classifier
from tutelage.features.products import unit_rows
from tutelage.losses import wide
from tutelage.models.answers import uncompiled
from tutelage.models.composed import composed, place_of
from tutelage.models.copies import copy_of
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalized, bare
from tutelage.models.saving import architecture_of
from tutelage.models.spec import NetworkSpec

# Shorter features, as of black images, are nearly nothing but rounding errors, and have no direction.
_SHORTEST = 1e-3


class Prototypes(nn.Module):
    """A direction for each class; a sample's score is the cosine of its own direction with it.

    Args:
        width: Channels of the features.
        classes: Number of classes.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width))
        self.renormalise()

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines `[batch, class]` of features `[batch, channel]`, in float32 at least."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(unit_rows(features, shortest=_SHORTEST), wide(self.weight))

    @torch.no_grad()
    def renormalise(self) -> None:
        """Bring all prototypes back to length one."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


class NovelHead(nn.Module):
    """Prototypes of the novel classes, behind an MLP of one hidden layer.

    Args:
        features: Channels of the network's embedding.
        hidden: Channels of the hidden layer; with 0 there is no MLP, and the prototypes read the embedding.
        width: Channels of what the MLP returns.
        classes: Number of novel classes.
    """

    def __init__(self, features: int, hidden: int, width: int, classes: int) -> None:
        super().__init__()
        self.projector: nn.Module = nn.Identity()
        if hidden:
            layers = nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
            self.projector = nn.Sequential(*layers)
        self.prototypes = Prototypes(width if hidden else features, classes)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return cosines `[batch, novel class]` of an embedding `[batch, channel]`."""
        cosines: Tensor = self.prototypes(self.projector(embedding))
        return cosines


class OpenHead(nn.Module):
    r"""A classifier over known and novel classes: their cosines, side by side, divided by a temperature.

    Args:
        known: The prototypes of the known classes.
        novel: Heads of the novel classes; the first answers, unless `note` has found a better one. With none, the known
            classes are all.
        temperature: $\tau$.
    """

    losses: Tensor

    def __init__(self, known: Prototypes, novel: Sequence[NovelHead], temperature: float) -> None:
        super().__init__()
        self.known, self.novel, self.temperature = known, nn.ModuleList(novel), temperature
        # In the checkpoint, because a resumed run must ship the same head; a single head has none to choose from.
        if len(novel) > 1:
            self.register_buffer("losses", torch.zeros(len(novel)))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits `[batch, class]`, known classes first, of an embedding `[batch, channel, ...]`."""
        embedding = _without_short(embedding.flatten(1))
        parts = [self.known(embedding)]
        if len(self.novel):
            parts.append(self.novel[self.best](embedding))
        return torch.cat(parts, dim=1) / self.temperature

    def cosines(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines with known prototypes `[batch, class]`, and those of each head `[head, batch, class]`."""
        embedding = _without_short(embedding.flatten(1))
        return self.known(embedding), torch.stack([head(embedding) for head in self.novel])

    @property
    def best(self) -> int:
        """The number of the novel head whose training losses were the lowest."""
        return int(self.losses.argmin()) if len(self.novel) > 1 else 0

    @torch.no_grad()
    def note(self, losses: Tensor, *, anew: bool) -> None:
        """Add the heads' losses of a batch, `[head]`, to their sums, which begin anew with each epoch."""
        if len(self.novel) > 1:
            self.losses.copy_(losses if anew else self.losses + losses)

    def renormalise(self) -> None:
        """Bring all prototypes back to length one."""
        for module in self.modules():
            if isinstance(module, Prototypes):
                module.renormalise()

    def shipped(self) -> OpenHead:
        """Return a copy with the best novel head alone."""
        novel = [copy_of(self.novel[self.best])] if len(self.novel) else []
        return OpenHead(copy_of(self.known), novel, self.temperature).train(self.training)  # type: ignore[arg-type]


def _without_short(embedding: Tensor) -> Tensor:
    """Return an embedding in which rows without a direction are zeros, and have no gradient."""
    lengths = torch.linalg.vector_norm(wide(embedding.detach()), dim=1, keepdim=True)
    return embedding.masked_fill(lengths < _SHORTEST, 0.0)


def attach_prototypes(network: nn.Module, example: object, *, classes: int, temperature: float) -> None:
    """Replace a network's classifier by prototypes of the known classes, in place.

    Args:
        network: The network. If it was built by name, its spec says from then on how to build it again.
        example: Inputs for one forward pass.
        classes: Number of known classes.
        temperature: Divides the cosines.

    Raises:
        UserError: If its classifier cannot be found.
    """
    name = classifier(uncompiled(network), example)
    own = bare(uncompiled(network)).get_submodule(name)
    assert isinstance(own, nn.Linear | nn.Conv2d)
    head = OpenHead(Prototypes(own.weight.shape[1], classes), [], temperature)
    if isinstance(network, Normalized) and network.spec is not None:
        known = NetworkSpec.parse(network.spec)
        options = {"student": architecture_of(network.spec), "classifier": name, "known": classes}
        options |= {"features": own.weight.shape[1], "temperature": temperature}
        network.spec = str(NetworkSpec(target=place_of(open_network), options=options, normalize=known.normalize))
    put_head(network, adapting(head, network), name=name)


def head_of(network: nn.Module) -> tuple[str, OpenHead]:
    """Return the name of a network's head of prototypes, and the head."""
    found = ((name, one) for name, one in bare(uncompiled(network)).named_modules() if isinstance(one, OpenHead))
    return next(found)


def put_head(network: nn.Module, head: OpenHead, *, name: str | None = None) -> None:
    """Replace a network's head by another one, in place, and say so in its spec.

    Args:
        network: The network.
        head: The head.
        name: The layer to replace; its head of prototypes by default.
    """
    bare(uncompiled(network)).set_submodule(name or head_of(network)[0], head)
    if isinstance(network, Normalized) and network.spec is not None and len(head.novel):
        spec, novel = NetworkSpec.parse(network.spec), head.novel[0]
        assert isinstance(novel, NovelHead)
        hidden = novel.projector[0].out_features if isinstance(novel.projector, nn.Sequential) else 0
        sizes = {"hidden": hidden, "width": novel.prototypes.weight.shape[1]}
        network.spec = str(NetworkSpec(target=spec.target, options={**spec.options, **sizes}, normalize=spec.normalize))


@composed
def open_network(
    student: str | NetworkSpec,
    classifier: str,
    known: int,
    features: int,
    temperature: float,
    hidden: int = 0,
    width: int = 0,
    *,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Return a network that answers over known and novel classes, without weights. A saved one is built with this.

    Args:
        student: The architecture of the network within, as `NetworkSpec` reads it.
        classifier: Name of the classifier that the prototypes replace.
        known: Number of known classes; the others are novel.
        features: Channels of the classifier's input.
        temperature: Divides the cosines.
        hidden: Channels of the hidden layer of the novel head; 0 for prototypes alone.
        width: Channels that the novel prototypes read.
        num_classes: Number of classes.
        in_channels: Channels of the images.
    """
    network = load_network(student, num_classes=num_classes, in_channels=in_channels).model
    novel = num_classes - known
    heads = [NovelHead(features, hidden, width, novel)] if novel else []
    network.set_submodule(classifier, OpenHead(Prototypes(features, known), heads, temperature))
    return network
