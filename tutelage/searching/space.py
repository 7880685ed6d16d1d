"""Spaces of networks: a network's name with several values for some of its options."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any

from tutelage.errors import UserError
from tutelage.models.spec import NetworkSpec
from tutelage.models.trust import Origin
from tutelage.system.grammar import literal, read, split_all

SPACES: Mapping[str, str] = MappingProxyType({"s0": "resnet_by_stage,stage1=1|3|5|7,stage2=1|3|5|7,stage3=1|3|5|7"})
"""Spaces of papers, by name. `s0` is that of DisWOT: CIFAR ResNets with 1, 3, 5 or 7 blocks in each stage."""

Genes = tuple[int, ...]
"""A network of a space: for each axis, the position of its value."""

_TARGET = "the network"
_MOST_VALUES = 10_000


@dataclass(frozen=True)
class Axis:
    """An option and the values that it can take.

    Attributes:
        name: The option.
        values: Its values, in the order in which they were written.
    """

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Space:
    """Networks that differ in some options.

    Attributes:
        text: The space as the user wrote it.
        axes: What differs. The first axis is the network itself.
        fixed: The options that all networks share.
        normalize: The input statistics that all networks share; None for the default.
    """

    text: str
    axes: tuple[Axis, ...]
    fixed: Mapping[str, Any]
    normalize: str | None = None

    @classmethod
    def parse(cls, text: str) -> Space:
        """Read a space.

        Args:
            text: A name of `SPACES`; or a network's name with ranges, such as
                `timm:vit_tiny_patch16_224,depth=4..12,embed_dim=96|192`. `4..12` are the whole numbers from 4 to 12,
                `4..12..2` every second of them, `96|192` either of the two, `resnet8|resnet14` either network.

        Raises:
            UserError: If a range is malformed, nothing differs, or the networks come with weights.
        """
        written = read(SPACES.get(text.strip(), text.strip()), kind="space", is_place=True)
        options = {key: _values(key, value, text) for key, value in written.options.items() if key != "normalize"}
        targets = _unique(_TARGET, tuple(split_all(written.name, "|")), text)
        pretrained = options.pop("pretrained", (False,))
        if pretrained != (False,):
            raise UserError(f"The space {text!r}: its networks are scored untrained, so leave out `pretrained=`.")
        varied = [Axis(key, values) for key, values in options.items() if len(values) > 1]
        space = cls(
            text=text,
            axes=(Axis(_TARGET, targets), *varied),
            fixed={key: values[0] for key, values in options.items() if len(values) == 1},
            normalize=written.options.get("normalize"),
        )
        if space.size == 1:
            raise UserError(
                f"The space {text!r} holds one network only: give options several values, such as width=8|16|32 or "
                f"depth=4..12. Spaces with names: {', '.join(SPACES)}."
            )
        for position in range(len(targets)):
            space._check_target((position, *(0 for _ in varied)))
        return space

    @property
    def size(self) -> int:
        """How many networks it holds."""
        return math.prod(len(axis.values) for axis in self.axes)

    def network(self, genes: Genes) -> NetworkSpec:
        """Return one of its networks, untrained. The user named its code by naming the space.

        Args:
            genes: For each axis, the position of its value.
        """
        target, *values = (axis.values[gene] for axis, gene in zip(self.axes, genes, strict=True))
        options = {axis.name: value for axis, value in zip(self.axes[1:], values)} | dict(self.fixed)
        spec = NetworkSpec(target=target, options=options, normalize=self.normalize)
        # Trusted, and not remembered: a search would remember the code of hundreds of networks.
        return replace(spec.architecture(), normalize=self.normalize, origin=Origin(self.text, trusted=True))

    def smallest(self) -> Genes:
        """Return the network with the least value on each axis, which is often the smallest one."""
        return tuple(min(range(len(axis.values)), key=lambda at: _order(axis.values[at])) for axis in self.axes)

    def all(self) -> Iterator[Genes]:
        """Return all networks, in order."""
        return product(*(range(len(axis.values)) for axis in self.axes))

    def any(self, chance: random.Random) -> Genes:
        """Return a network by chance."""
        return tuple(chance.randrange(len(axis.values)) for axis in self.axes)

    def mutated(self, genes: Genes, chance: random.Random, *, most: int) -> Genes:
        """Return a network that differs in one option or more.

        Args:
            genes: The network that it comes from.
            chance: Where random numbers come from.
            most: The most options that change.
        """
        open_axes = [at for at, axis in enumerate(self.axes) if len(axis.values) > 1]
        chosen = chance.sample(open_axes, min(chance.randint(1, most), len(open_axes)))
        changed = list(genes)
        for at in chosen:
            # One of the other values: adding this number, modulo their count, never gives the same one.
            changed[at] = (genes[at] + chance.randrange(1, len(self.axes[at].values))) % len(self.axes[at].values)
        return tuple(changed)

    def _check_target(self, genes: Genes) -> None:
        spec = self.network(genes)
        # Asking for its kind refuses names of nothing.
        if spec.kind == "run":
            raise UserError(
                f"The space {self.text!r} names the saved run {spec.target!r}, whose options are fixed: name an "
                "architecture, such as resnet20 or timm:NAME."
            )


def _values(key: str, text: str, space: str) -> tuple[Any, ...]:
    """Return the values of an option that a text writes."""
    parts = split_all(text, "|")
    if not all(parts):
        raise UserError(f"{key}={text} in the space {space!r} has an empty value: write {key}=8|16|32, or {key}=4..12.")
    return _unique(key, tuple(value for part in parts for value in _range(key, part, space)), space)


def _range(key: str, text: str, space: str) -> Sequence[Any]:
    """Return the whole numbers of `LOW..HIGH` or `LOW..HIGH..STEP`, or the one value of any other text."""
    if ".." not in text or text[0] in "'\"([{":
        return [literal(text)]
    wrong = f"{key}={text} in the space {space!r} is no range"
    ends = text.split("..")
    if len(ends) not in (2, 3) or not all(end.strip().removeprefix("-").isdecimal() for end in ends):
        raise UserError(
            f"{wrong}: a range is of whole numbers, {key}=4..12 or {key}=4..12..2 for every second of them. List any "
            f"other values: {key}=0.5|1.0."
        )
    low, high, step = (*map(int, ends), 1)[:3]
    if low > high or step < 1:
        raise UserError(f"{wrong}: it runs from the smaller number to the larger one, in steps of 1 or more.")
    if (high - low) // step >= _MOST_VALUES:
        raise UserError(f"{wrong} that can be searched: it has more than {_MOST_VALUES:,} values. Take larger steps.")
    return range(low, high + 1, step)


def _unique(key: str, values: tuple[Any, ...], space: str) -> tuple[Any, ...]:
    texts = [repr(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None) if len(texts) < _MOST_VALUES else None
    if twice is not None:
        raise UserError(f"{key} has the value {twice} twice in the space {space!r}: write each value once.")
    return values


def _order(value: Any) -> float:
    """Return a number by which values are ordered: numbers by themselves, lists by their sum, others not at all."""
    if isinstance(value, list | tuple):
        return sum(map(_order, value))
    return float(value) if isinstance(value, int | float) else 0.0
