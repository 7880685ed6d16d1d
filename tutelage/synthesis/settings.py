"""How images are synthesised: the schemes, and everything that decides what they look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from tutelage.data.augment import Augmentation
from tutelage.errors import UserError, unknown
from tutelage.synthesis.losses import Direction

Scheme = Literal["gaussian", "inception", "bn-statistics", "bn-statistics+inception", "deepinversion"]
Optimizer = Literal["adam", "sgd"]

# As in the authors' code: a mirror with probability 0.2, a crop of a third of the image or more, and a hole.
_VIEWS = "flip:0.2,resized-crop:0.33:1,random-cutout:0.333"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what synthesised images look like, beside the network.

    Attributes:
        scheme: What the images are made to do.
        weights: The weight of each loss, by name.
        iterations: Steps of the optimizer for a batch; 0 leaves the noise as it is.
        optimizer: The optimizer of the pixels.
        lr: Its learning rate, in units of the images' standard deviation. It falls to a tenth after four fifths of the
            iterations.
        direction: Of the divergence of batch-norm statistics: `code` as in the authors' code, from the images'
            statistics to those remembered; `paper` the other way.
        copies: How many views of each image the network sees in an iteration.
        augment: How the views differ, as augmentations are written.
        jitter: By how many pixels all images are shifted at most, around the edge, in each iteration.
        rounding: Whether the network sees the images in 8 bits, as they are stored.
        batch_size: How many images are made together; their statistics are those of the batch.
        snapshots: Iterations after which the images are kept as a dataset of their own.
        seed: The seed of everything.
    """

    scheme: Scheme
    weights: Mapping[str, float] = field(default_factory=dict)
    iterations: int = 1000
    optimizer: Optimizer = "adam"
    lr: float = 0.1
    direction: Direction = "code"
    copies: int = 4
    augment: str = _VIEWS
    jitter: int = 0
    rounding: bool = True
    batch_size: int = 128
    snapshots: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)
        # A plain dictionary in a fixed order, so that equal settings are written alike.
        object.__setattr__(self, "weights", MappingProxyType(dict(sorted(self.weights.items()))))
        object.__setattr__(self, "snapshots", tuple(sorted(set(self.snapshots))))

    @classmethod
    def of(cls, scheme: str, *, weights: Mapping[str, float] | None = None, **given: Any) -> Settings:
        """Return the settings of a scheme. What is None takes the scheme's own value.

        Args:
            scheme: The name of the scheme.
            weights: Weights of its losses, where they are not the scheme's own.
            **given: The other fields.

        Raises:
            UserError: If there is no such scheme, it has no such loss, or a value is impossible.
        """
        if scheme not in SCHEMES:
            raise unknown("scheme", scheme, SCHEMES)
        plain, chosen = SCHEMES[scheme], dict(weights or {})
        for name in chosen:
            if name not in (known := {**plain.weights, **OPTIONAL.get(scheme, {})}):
                raise UserError(
                    f"The scheme {scheme} has no loss {name!r}. "
                    + (f"It has: {', '.join(known)}." if known else "It has none: its images are plain noise.")
                )
        for name in given:
            if name not in (settings := {item.name for item in fields(cls)} - {"scheme", "weights"}):
                raise unknown("setting", name, settings)
        values = {name: value for name, value in given.items() if value is not None}
        return replace(plain, **values, weights={**plain.weights, **chosen})

    @property
    def needs_statistics(self) -> bool:
        """Whether the network's batch norms are read."""
        return bool({"statistics", "features"} & self.weights.keys())

    @property
    def has_classes(self) -> bool:
        """Whether each image is made for a class."""
        return bool({"class", "ce"} & self.weights.keys())

    @property
    def augmentation(self) -> Augmentation:
        """How the views of an image differ."""
        return Augmentation.parse(self.augment)

    def as_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"weights": dict(self.weights), "snapshots": list(self.snapshots)}


def read_weights(text: str) -> dict[str, float]:
    """Return the weights in a text such as `class=0.5,smoothness=20`.

    Raises:
        UserError: If it is none.
    """
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise UserError(
                f"{part!r} is not a weight: write NAME=NUMBER, several joined by commas: class=0.5,smoothness=20."
            ) from error
    return found


def _check(settings: Settings) -> None:
    for name, least in (("iterations", 0), ("copies", 1), ("jitter", 0), ("batch_size", 2), ("seed", 0)):
        if getattr(settings, name) < least:
            raise UserError(f"{name}={getattr(settings, name)} must be {least} or more.")
    if not settings.lr > 0:
        raise UserError(f"lr={settings.lr} must be above zero.")
    for name, allowed in (("optimizer", Optimizer), ("direction", Direction)):
        if getattr(settings, name) not in get_args(allowed):
            raise unknown(name, getattr(settings, name), get_args(allowed))
    for name, weight in settings.weights.items():
        if not weight >= 0:
            raise UserError(f"The weight of {name} is {weight}: it must be zero or more.")
    _check_snapshots(settings.snapshots, settings.iterations)
    # Its error is the user's too.
    _ = settings.augmentation


def _check_snapshots(snapshots: Sequence[int], iterations: int) -> None:
    for number in snapshots:
        if not 0 < number < iterations:
            raise UserError(
                f"A snapshot after iteration {number} is none: choose numbers from 1 to {max(iterations - 1, 1)}; the "
                f"images after all {iterations} iterations are kept anyway."
            )


# Only here, because making settings checks them.
_KNOWLEDGE = {"class": 1.0, "smoothness": 1.0}
SCHEMES: Mapping[str, Settings] = MappingProxyType(
    {
        "gaussian": Settings(scheme="gaussian", iterations=0, copies=1, augment="none"),
        "inception": Settings(scheme="inception", weights=_KNOWLEDGE),
        "bn-statistics": Settings(scheme="bn-statistics", weights={"statistics": 1.0}),
        "bn-statistics+inception": Settings(
            scheme="bn-statistics+inception", weights={"statistics": 1.0, **_KNOWLEDGE}
        ),
        "deepinversion": Settings(
            scheme="deepinversion",
            weights={"ce": 1.0, "features": 10.0, "variation": 2.5e-5, "length": 0.0},
            iterations=2000,
            lr=0.05,
            copies=1,
            augment="flip",
            jitter=2,
            batch_size=256,
        ),
    }
)
"""The schemes, each with the settings that its authors used."""

OPTIONAL: Mapping[str, Mapping[str, float]] = MappingProxyType({"deepinversion": {"competition": 1.0}})
"""Losses that a scheme has if they are asked for."""
