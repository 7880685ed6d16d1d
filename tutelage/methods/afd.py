"""AFD: networks that match each other's answers, and by an adversarial contest each other's last maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.core.pairing import AUTO, LayerPair, taps
from tutelage.core.registry import Paper, register
from tutelage.core.schedules import check_milestones, steps
from tutelage.data.batch import Batch
from tutelage.data.criterion import CROSS_ENTROPY
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.anatomy import Tap, stages
from tutelage.features.maps import resize
from tutelage.features.padding import padded, valid_tokens
from tutelage.features.trace import Trace
from tutelage.losses import wide
from tutelage.methods.parts.peers import Peers, gather, trained
from tutelage.models.blueprint import part_of
from tutelage.models.modes import keeping_statistics

CHUNG = Paper(
    key="chung2020feature",
    title="Feature-map-level Online Adversarial Knowledge Distillation",
    authors="Chung, Inseop and Park, SeongUk and Kim, Jangho and Kwak, Nojun",
    venue="International Conference on Machine Learning",
    year=2020,
    arxiv="2002.01775",
)


@register(
    "afd",
    papers=[CHUNG],
    losses=["kd_loss", "discriminator_loss", "generator_loss"],
    reads={"targets", "answers"},
    reads_if={"adversarial": {"images"}},
    family="peers",
)
class AFD(Method):
    r"""AFD, online adversarial distillation: each network matches its peer's answer, and makes maps like its peer's.

    $$ L_k = H(q, p_k) + T^2 \, \mathrm{KL}(p^{k-1}_T \,\|\, p^k_T), \qquad
    L_{G_k} = [1 - D_k(F_k)]^2, \qquad L_{D_k} = [1 - D_k(F_{k-1})]^2 + D_k(F_k)^2 $$

    $F_k$ is the last map of network $k$, brought to the smallest height, width and (by a 1x1 convolution, the transfer
    layer) number of channels of all. The peer of a network is the one before it, and the peer of the first is the last:
    two networks learn from each other, and $K$ in a circle, with $K$ discriminators $D_k$. To a network its peer's
    answer and map are constants. In a circle of three or more, no network learns from the one that learns from it:
    differences travel round instead of shrinking, and momentum feeds them. At a momentum of 0.9, a circle tolerates
    only steps ninety times smaller than a pair (`docs/results/self-online.md`). Lower `--momentum`, or take `dml`.

    A batch has three steps. First each network lowers $L_k$ by the run's optimizer. Then, from a second forward pass,
    the discriminators lower $L_{D_k}$, and the networks with their transfer layers $L_{G_k}$, by optimizers of their
    own: Adam, with a learning rate, decay and course that are given here and not by the run. The second pass does not
    change the running statistics of batch norm, which have already counted the batch. Layers behind the map get no
    gradient from $L_{G_k}$. The first network is deployed, all are kept, and their mean probability is scored as
    `ensemble`.

    Args:
        students: The networks, the deployed one first.
        example: Inputs for one forward pass, from which layers and shapes are known.
        make_student: Makes more networks of the first architecture, from the seed of their name.
        data: The data, whose task says what the answer of all networks together is; classification by default.
        networks: Number of networks. If fewer are given, fresh copies of the first architecture are added; if more, the
            first ones are taken. By default as many as are given, but at least two.
        adversarial: Whether there is a contest at all; without it only $L_k$ is left.
        layers: Where the maps are read: `auto`, the end of the last stage; or a layer by name, one for all networks or
            one for each, joined by `+`.
        temperature: $T$, which softens the answers, above zero.
        t_squared: Whether the divergence is multiplied by $T^2$.
        feature_lr: Learning rate of the contest, for networks and discriminators.
        feature_weight_decay: Coupled weight decay of the contest, for networks and discriminators.
        feature_milestones: Shares of the run after which `feature_lr` falls. There is no warm-up.
        feature_gamma: The factor by which it falls.
        lr_scales: Factor on the run's learning rate, for $L_k$: one for all networks or one for each.
        weight_decay_scales: Factor on the run's weight decay, one for all networks or one for each.

    Raises:
        UserError: If there are fewer than two networks, two start from the same weights, a layer does not exist or
            gives no map, or a number is out of its range.

    Paper: Chung, Park, Kim, Kwak, Feature-map-level Online Adversarial Knowledge Distillation, ICML 2020.

    Differences: There is no code of the authors. The discriminator (two convolutions, which give one number for a map
        of 4 x 4), its optimizer, decay and milestones are those of a re-implementation by others. Its first convolution
        has no bias here, which the batch norm would cancel. Our choice: on other maps the mean over the places, taken
        before the sigmoid; that each network is trained together with its transfer layer, which all discriminators
        read, and that only what is wider than the narrowest has one; the second forward pass, so that the gradient of
        the contest is that of the weights it changes; that discriminators step first; and that real and fake maps are
        normalised apart.
    """

    def __init__(
        self,
        students: Sequence[nn.Module],
        example: Any,
        make_student: Callable[[str], nn.Module] | None = None,
        data: Data | None = None,
        *,
        networks: int | None = None,
        adversarial: bool = True,
        layers: str = AUTO,
        temperature: float = 3.0,
        t_squared: bool = True,
        feature_lr: float = 2e-5,
        feature_weight_decay: float = 0.1,
        feature_milestones: Sequence[float] = (0.25, 0.5),
        feature_gamma: float = 0.1,
        lr_scales: Sequence[float] = (1.0,),
        weight_decay_scales: Sequence[float] = (1.0,),
    ) -> None:
        _check(temperature, feature_lr, feature_weight_decay)
        super().__init__()
        self.temperature, self.t_squared = temperature, t_squared
        self.feature_lr, self.feature_weight_decay = feature_lr, feature_weight_decay
        self.feature_milestones, self.feature_gamma = tuple(feature_milestones), feature_gamma
        check_milestones(self.feature_milestones)
        found = gather(students, make_student, networks)
        if adversarial and valid_tokens(example) is not None:
            raise padded("afd's discriminators mix neighbouring places; adversarial=false leaves them out")
        # One traced pass of each network tells its stages, its shapes and how to read it. Without a contest no map is
        # read.
        traces = [Trace.of(network, example) for network in found] if adversarial else []
        read = _read(traces, layers) if adversarial else []
        self.peers = Peers(
            found,
            lr_scales=lr_scales,
            weight_decay_scales=weight_decay_scales,
            layers=[[tap.layer] for tap in read] or None,
            examples=traces or None,
            criterion=CROSS_ENTROPY if data is None else data.task.criterion,
        )
        # Index -1 makes the last network the peer of the first.
        self.pairs = tuple(LayerPair(tap, read[number - 1]) for number, tap in enumerate(read))
        # The default is for no contest at all, where no map is read.
        width = min((tap.channels for tap in read), default=0)
        self.size = tuple(map(min, zip(*(tap.size for tap in read), strict=True)))
        self.transfers = nn.ModuleList(transfer(tap.channels, width) for tap in read)
        self.discriminators = nn.ModuleList(Discriminator(width, (self.size[0], self.size[1])) for _ in read)
        for adapters in (self.transfers, self.discriminators):
            # Not strict: without a contest there are networks, but no adapters.
            for adapter, network in zip(adapters, found):
                adapting(adapter, network)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield for each network `ce` and `peers`; then for each `discriminator`; then for each `adversarial`."""
        # One pass of each network serves all updates: a step changes one network only, so the other graphs stay valid.
        logits = [output.logits for output in self.peers.outputs(batch.inputs)]
        for number, (name, network) in enumerate(self.peers.items()):
            # The divergence stops the gradient at the peer's answer.
            own, peer = logits[number], logits[number - 1]
            soft = batch.criterion.divergence(own, peer, self.temperature, t_squared=self.t_squared)
            yield Update({"ce": batch.loss(own), "peers": soft, **self.auxiliary(batch, network)}, name)
        if self.discriminators:
            yield from self._contest(batch)

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return for each network an optimizer for the logits, one for the map, and one for its discriminator."""
        specs = self.peers.optimizers()
        # Not strict: without a contest there are no transfer layers and discriminators.
        parts = zip(self.peers.items(), self.transfers, self.discriminators, strict=False)
        for (name, network), adapter, discriminator in parts:
            specs[_map_of(name)] = self._adam([*trained(network), *adapter.parameters()])
            specs[_judge_of(name)] = self._adam(list(discriminator.parameters()))
        return specs

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the logits of each network, and of all as `ensemble`."""
        return self.peers.predictions(inputs)

    def export(self) -> nn.Module:
        """Return the first network."""
        return self.peers.first()

    def members(self) -> Mapping[str, nn.Module]:
        """Return the other networks."""
        return self.peers.others()

    def _contest(self, batch: Batch) -> Iterator[Update]:
        # A second forward pass: the first steps changed the weights in place, which the first pass's gradients need.
        with keeping_statistics(self.peers):
            maps = self._maps(batch.inputs)
        contestants = list(zip(self.peers, self.discriminators, strict=True))
        for number, (name, discriminator) in enumerate(contestants):
            # Detached, because a discriminator's step changes no network. Networks may differ in their type of numbers.
            peer = maps[number - 1].detach().to(maps[number].dtype)
            real, fake = discriminator(peer), discriminator(maps[number].detach())
            yield Update({"discriminator": discriminator_loss(real, fake)}, _judge_of(name))
        for number, (name, discriminator) in enumerate(contestants):
            # Its running statistics count a batch once, in the discriminator's own step.
            with keeping_statistics(discriminator):
                # The gradient passes through the discriminator into the map; the update changes only the network and
                # its transfer.
                fake = discriminator(maps[number])
            yield Update({"adversarial": generator_loss(fake)}, _map_of(name))

    def _maps(self, inputs: Any) -> list[Tensor]:
        """Return the map of each network, all of one shape."""
        if valid_tokens(inputs) is not None:
            raise padded("afd's discriminators mix neighbouring places; adversarial=false leaves them out")
        # That of the example: later inputs may have another size, and the discriminators are built for one.
        size = (self.size[0], self.size[1])
        maps = [pair.student.map(output) for pair, output in zip(self.pairs, self.peers.outputs(inputs), strict=True)]
        return [adapter(resize(one, size)) for one, adapter in zip(maps, self.transfers, strict=True)]

    def _adam(self, params: Sequence[nn.Parameter]) -> OptimizerSpec:
        build = partial(torch.optim.Adam, lr=self.feature_lr, weight_decay=self.feature_weight_decay, fused=True)
        # A factor on the learning rate that Adam is built with, so it starts at 1.
        course = steps(1.0, milestones=self.feature_milestones, gamma=self.feature_gamma)
        return OptimizerSpec(params=params, build=build, schedule=course)


class Discriminator(nn.Module):
    """Rates a map from 0, its own network's, to 1, the peer's.

    Args:
        channels: Channels of the maps.
        size: Their height and width; an axis of one place is not convolved.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        first = (min(2, size[0]), min(2, size[1]))
        # What the first convolution leaves of height and width.
        left = (size[0] - first[0] + 1, size[1] - first[1] + 1)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, first, bias=False),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(),
            nn.Conv2d(hidden, 1, (min(2, left[0]), min(2, left[1])), stride=2),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return one number for each map, `[batch]`, in float32."""
        # A map of 4 x 4 places leaves one number here, and the mean changes nothing, as in the re-implementation.
        return wide(self.layers(maps)).mean((1, 2, 3)).sigmoid()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""Return $[1 - D(\text{real})]^2 + D(\text{fake})^2$, the mean over the batch.

    Args:
        real: The discriminator's ratings of the peer's maps, `[batch]`.
        fake: Its ratings of its own network's maps, `[batch]`.
    """
    return (1 - real).square().mean() + fake.square().mean()


def generator_loss(fake: Tensor) -> Tensor:
    r"""Return $[1 - D(\text{fake})]^2$, the mean over the batch.

    Args:
        fake: The discriminator's ratings of its own network's maps, `[batch]`.
    """
    return (1 - fake).square().mean()


def transfer(channels: int, width: int) -> nn.Module:
    """Return the layer that brings a map to a number of channels: a 1x1 convolution if the number differs."""
    return nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, bias=False)


def _read(traces: Sequence[Trace], layers: str) -> list[Tap]:
    """Return the tap at which each network is read."""
    if layers == AUTO:
        return [stages(trace.model, trace)[-1] for trace in traces]
    names = layers.split("+")
    if len(names) not in (1, len(traces)):
        raise UserError(f"layers={layers!r} must name one layer for all {len(traces)} networks, or one for each.")
    # One name stands for all networks.
    read = names * len(traces) if len(names) == 1 else names
    named = enumerate(zip(traces, read, strict=True))
    return [taps(one.model, [name], one, who=part_of("student", number))[name] for number, (one, name) in named]


def _check(temperature: float, feature_lr: float, feature_weight_decay: float) -> None:
    if not (temperature > 0 and feature_lr > 0):
        raise UserError(f"temperature={temperature} and feature_lr={feature_lr} must be above zero.")
    if not feature_weight_decay >= 0:
        raise UserError(f"feature_weight_decay={feature_weight_decay} must not be negative.")


def _map_of(name: str) -> str:
    return f"{name}-features"


def _judge_of(name: str) -> str:
    return f"{name}-discriminator"
