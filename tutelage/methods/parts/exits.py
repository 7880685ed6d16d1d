"""Exits: classifiers at the ends of the stages of any network, and networks that end at one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.pairing import AUTO, taps
from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.anatomy import EMBEDDING, Tap, stages
from tutelage.features.ending import Ending
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.maps import MapLayout
from tutelage.features.order import is_stem, unused
from tutelage.features.padding import mean_over_places, valid_tokens
from tutelage.features.trace import Trace, first_input, tensor_at
from tutelage.losses import log_mean_probability
from tutelage.methods.parts.branches import Answer, Branch, BranchPlan, Kind, Size
from tutelage.models.answers import answer, uncompiled
from tutelage.models.composed import composed
from tutelage.models.copies import copy_of
from tutelage.models.loading import load_network
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalized, bare
from tutelage.models.saving import architecture_of
from tutelage.models.spec import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place at which an exit leaves a network.

    Attributes:
        layer: The layer whose output is the last that is computed: a submodule, or `name:in` for its first input.
        calls: How often a forward pass calls it; the last call counts.
        layout: How its output becomes a map.
        unused: Names of the modules that are not reached before the exit.
    """

    layer: str
    calls: int
    layout: MapLayout
    unused: tuple[str, ...]


class Exits(nn.Module):
    """The shallow exits of a network, each with a branch, in the order in which a forward pass reaches them.

    Args:
        places: The places at which the branches begin.
        plans: The facts from which the branches are built.
        embedding: The input of the network's own classifier, which is the deepest exit.
    """

    def __init__(self, places: Sequence[Place], plans: Sequence[BranchPlan], embedding: Tap) -> None:
        super().__init__()
        self.places, self.plans, self.embedding = tuple(places), tuple(plans), embedding
        self.branches = nn.ModuleList(Branch(plan) for plan in plans)

    def forward(self, output: Output) -> list[Answer]:
        """Return the answers of all exits, from the shallowest to the deepest, which is the network's own."""
        shallow = []
        for place, branch in zip(self.places, self.branches, strict=True):
            # The network has run once, and each branch starts from what it left at the branch's layer.
            feature = output.features[place.layer]
            shallow.append(branch(place.layout.to_map(feature), place.layout.mask(feature, output.valid)))
        deepest = mean_over_places(self.embedding.map(output), self.embedding.mask(output))
        return [*shallow, Answer(output.logits, deepest)]

    def predictions(self, output: Output) -> dict[str, Tensor]:
        """Return the logits of the deepest exit as `student`, of the others as `exit-1` and on, and `ensemble`.

        `ensemble` is the log of the mean probability over all exits, the deepest included.
        """
        *shallow, deepest = (answer.logits for answer in self(output))
        named = {f"exit-{number}": logits for number, logits in enumerate(shallow, 1)}
        return {"student": deepest, **named, "ensemble": log_mean_probability(torch.stack([*shallow, deepest]))}

    def members(self, student: nn.Module) -> dict[str, nn.Module]:
        """Return a separate network for each shallow exit. It shares nothing with the student.

        Args:
            student: The network, without hooks.
        """
        parts = zip(self.places, self.plans, self.branches, strict=True)
        return {f"exit-{number}": _ended(student, *part) for number, part in enumerate(parts, 1)}


def attach(
    student: nn.Module, example: Any, *, kind: Kind, exits: str = AUTO, separable: bool = False
) -> tuple[FeatureExtractor, Exits]:
    """Return a network that reads the layers of its exits, and the exits. The network itself is not changed.

    Args:
        student: Any network whose classifier can be found.
        example: Inputs for one forward pass (batch of two or more).
        kind: The kind of the branches.
        exits: `auto` puts one at the end of every stage but the last; otherwise layers by name, joined by `+`.
        separable: Whether the branch's large convolutions work on one channel each, followed by a 1x1 convolution.

    Raises:
        UserError: If there is no stage before the last, a layer does not exist or cannot be a map, or the classifier
            cannot be found.
    """
    student = uncompiled(student)
    trace = Trace.of(student, example)
    found = stages(student, trace)
    chosen = _chosen(found, trace, exits)
    extractor = FeatureExtractor(student, [*(tap.layer for tap in chosen), EMBEDDING], example=trace)
    # In eval mode, because looking at a network must not move its statistics.
    with evaluating(extractor), torch.no_grad():
        output = extractor(example)
    extractor.release()
    own = Tap.of(EMBEDDING, output.features[EMBEDDING], example)
    build = partial(
        BranchPlan,
        kind=kind,
        width=own.channels,
        # A branch that ends in a ReLU could never meet an embedding with negative values.
        relu=bool((output.features[EMBEDDING] >= 0).all()),
        num_classes=output.logits.shape[1],
        separable=separable,
    )
    plans = [build(path=_path(tap, found, trace)) for tap in chosen]
    places = [
        Place(layer=tap.layer, calls=trace.calls(tap.layer), layout=tap.layout, unused=unused(trace, tap.layer))
        for tap in chosen
    ]
    head = adapting(Exits(places, plans, own), student)
    return extractor, _checked(head, student, output, example)


class ShallowExit(nn.Module):
    """A network that ends at one of its exits: later layers are neither computed nor stored.

    Args:
        network: The bare network, which nothing else may use: it is changed in place.
        place: The place at which it ends.
        branch: The branch that follows there.
    """

    def __init__(self, network: nn.Module, place: Place, branch: Branch) -> None:
        super().__init__()
        self.layer, self.layout = place.layer.removesuffix(":in"), place.layout
        inner = network.get_submodule(self.layer)
        # What is not reached is neither kept in memory nor saved.
        for name in place.unused:
            network.set_submodule(name, nn.Identity())
        # A layer may be called several times; only its last call ends the pass.
        self.ending = Ending({place.layer: place.calls})
        gate = _Gate(inner, place, self.ending)
        # A shared module has several names, and the network may call it by any of them.
        for name in [name for name, one in network.named_modules(remove_duplicate=False) if one is inner]:
            network.set_submodule(name, gate)
        self.network, self.branch = network, branch

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the exit's logits `[batch, class]`."""
        feature = self.ending.run(lambda: self.network(*args, **kwargs))
        if feature is None:
            raise UserError(f"The network ran without reaching the layer {self.layer!r} of this exit.")
        said: Answer = self.branch(self.layout.to_map(feature), self.layout.mask(feature, valid_tokens(kwargs)))
        return said.logits


@composed
def shallow(
    student: str | NetworkSpec,
    layer: str,
    calls: int,
    layout: tuple[Literal["map", "channels-last", "tokens", "vector"], int, float | None],
    unused: str,
    branch: Kind,
    path: tuple[Size, ...],
    width: int,
    relu: bool,
    separable: bool,
    *,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Return the network that ends at an exit, without weights. A saved one is built again with this.

    Args:
        student: The whole network's architecture, as `NetworkSpec` reads it.
        layer: The layer whose output is the last that is computed.
        calls: How often a forward pass calls it.
        layout: The fields of its `MapLayout`.
        unused: Names of the modules that are not reached before the exit, joined by `+`.
        branch: Kind of the branch, `bottleneck` or `residual`.
        path: Channels, height and width of the map that it reads, and of the end of each later stage.
        width: Channels of the branch's embedding.
        relu: Whether the branch ends in a ReLU.
        separable: Whether the branch's large convolutions work on one channel each, followed by a 1x1 convolution.
        num_classes: Number of classes.
        in_channels: Channels of the images.
    """
    network = load_network(student, num_classes=num_classes, in_channels=in_channels).model
    absent = tuple(filter(None, unused.split("+")))
    place = Place(layer=layer, calls=calls, layout=MapLayout(*layout), unused=absent)
    plan = BranchPlan(branch, path, width, relu, num_classes, separable)
    return ShallowExit(network, place, Branch(plan))


class _Gate(nn.Module):
    """Wraps a module and ends the forward pass at its last call: after it, or before it if its input is read."""

    def __init__(self, inner: nn.Module, place: Place, ending: Ending) -> None:
        super().__init__()
        self.layer, self.calls, self.of_input = place.layer, place.calls, place.layer.endswith(":in")
        self.ending = ending
        # If its only call ends the pass at its input, the module itself never runs.
        self.inner = nn.Identity() if self.of_input and place.calls == 1 else inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output, unless the pass ends here."""
        if self.of_input:
            self._note(first_input(args, kwargs))
        output = self.inner(*args, **kwargs)
        if not self.of_input:
            self._note(output)
        return output

    def _note(self, value: Any) -> None:
        self.ending.note(self.layer, tensor_at(self.layer, value))


def _ended(student: nn.Module, place: Place, plan: BranchPlan, branch: nn.Module) -> nn.Module:
    """Return a copy of a network that ends at an exit. It keeps the normalisation and gets its own spec."""
    shipped = copy_of(uncompiled(student))
    network = ShallowExit(bare(shipped), place, copy_of(branch))  # type: ignore[arg-type]
    if not isinstance(shipped, Normalized):
        # New modules begin in train mode, whatever the mode of the student.
        return network.train(student.training)
    shipped.model = network
    shipped.spec = None if shipped.spec is None else _spec_of(shipped.spec, place, plan)
    return shipped.train(student.training)


def _spec_of(student: str, place: Place, plan: BranchPlan) -> str:
    """Return the spec from which the network that ends at an exit can be built again."""
    options = {
        "student": architecture_of(student),
        **{"layer": place.layer, "calls": place.calls, "layout": astuple(place.layout)},
        "unused": "+".join(place.unused),
        **{"branch": plan.kind, "path": plan.path, "width": plan.width},
        **{"relu": plan.relu, "separable": plan.separable},
    }
    return str(NetworkSpec(target="exit", options=options, normalize=NetworkSpec.parse(student).normalize))


def _chosen(found: Sequence[Tap], trace: Trace, exits: str) -> Sequence[Tap]:
    """Return the taps of the exits, from the shallowest to the deepest."""
    if exits != AUTO:
        names = [name.strip() for name in re.split(r"[+,]", exits)]
        if EMBEDDING in names:
            raise UserError(
                f"exits={exits} names the classifier's input, where the network's own exit already is: leave it out."
            )
        named = taps(trace.model, names, trace, who="student")
        # In the order of the forward pass, because the deepest answer teaches and members are numbered by depth.
        return sorted(named.values(), key=lambda tap: trace.when(tap.layer))
    # The first resolution may be the stem's, which is too early to classify anything.
    chosen = [tap for tap in found[:-1] if not is_stem(trace, tap.layer)]
    if not chosen:
        raise UserError(
            f"{type(trace.network).__name__} has one stage, which ends in its own classifier, so there is no place for "
            "another exit. Name the layers to exit at: exits=LAYER+LAYER."
        )
    return chosen


def _path(tap: Tap, found: Sequence[Tap], trace: Trace) -> tuple[Size, ...]:
    """Return the size of the map at an exit, and those at the ends of the later stages."""
    # The residual branch needs a block for each of them.
    later = [stage for stage in found if trace.when(stage.layer) > trace.when(tap.layer)]
    return tuple((one.channels, *one.size) for one in (tap, *later))


def _checked(head: Exits, student: nn.Module, output: Output, example: Any) -> Exits:
    """Let a network that ends at an exit keep its unused modules if it answers differently without them."""
    with evaluating(head, student), torch.no_grad():
        expected = head(output)
        for number, parts in enumerate(zip(head.places, head.plans, head.branches, strict=True)):
            if not _answers(_ended(student, *parts), example, expected[number].logits):
                kept = replace(parts[0], unused=())
                head.places = (*head.places[:number], kept, *head.places[number + 1 :])
    return head


def _answers(network: nn.Module, example: Any, expected: Tensor) -> bool:
    try:
        found = answer(network, example)
    # Code that uses a removed module in any way fails in one of these ways.
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
