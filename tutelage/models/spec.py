"""The one-line name of a network, its spec: `TARGET[,key=value]*[@WEIGHTS]`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tutelage.errors import UserError, unknown
from tutelage.models import hub
from tutelage.models.catalogue import CATALOGUE, FORMER_NAMES
from tutelage.models.composed import is_composed
from tutelage.models.found import PREFIX as FOUND
from tutelage.models.found import found_network
from tutelage.models.language import HEAD, PREFIX, is_causal, is_resized, is_shrunk
from tutelage.models.normalization import Normalization
from tutelage.models.segmenters import is_segmenter
from tutelage.models.trust import Origin
from tutelage.system.grammar import literal, read, split_last

Kind = Literal["catalogue", "timm", "torchvision", "smp", "transformers", "file", "import", "composed", "run"]

# Kinds whose networks others have trained: their weights can be fetched.
_HUBS = ("timm", "torchvision", "smp", "transformers")

# Prefixes of names that are no networks and can only teach. The place of each kind is text, not an import, because
# teachers may import this folder and not the reverse.
TEACHERS: Mapping[str, str] = MappingProxyType(
    {
        "recording": "tutelage.recording.naming:RECORDINGS",
        "http": "tutelage.core.teachers.remote:REMOTES",
        "https": "tutelage.core.teachers.remote:REMOTES",
        "file": "tutelage.core.teachers.bought:BOUGHT",
    }
)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Where a network comes from.

    Attributes:
        target: A name of the catalogue, `timm:NAME`, `torchvision:NAME`, `smp:NAME`, `transformers:NAME_OR_FOLDER`,
            `package.module:factory`, `path/to/file.py:factory`, or the path of a saved run's folder or weights.
        options: Arguments of the factory, besides classes and channels.
        normalize: The input statistics: a name, `data` (the dataset's) or `mean/..:std/..`; None takes the default.
        pretrained: Whether the weights of timm, torchvision or transformers are fetched; None means yes unless
            `weights` are given or options that no such weights fit, but no for networks that classify pixels. Of
            `smp:` these are the encoder's.
        weights: A file of weights, or a saved run's folder.
        origin: The file from which the spec was read; None if the user wrote it. The text does not show it.
    """

    target: str
    # A dictionary has no hash; equal specs still have equal ones.
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    normalize: str | None = None
    pretrained: bool | None = None
    weights: str | None = None
    # Who wrote a spec down does not change which network it is.
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.normalize not in (None, "data"):
            Normalization.parse(self.normalize)
        if self.pretrained and self.kind not in _HUBS:
            raise UserError(
                "`pretrained=true` is for `timm:`, `torchvision:`, `smp:` and `transformers:` networks, not for "
                f"{self.target!r}: give a file of weights as `@FILE`."
            )
        if self.pretrained and self.weights:
            raise UserError(f"{self}: choose `pretrained=true` or `@{self.weights}`, not both.")

    @classmethod
    def parse(cls, text: str) -> NetworkSpec:
        """Read a spec, such as `tiny_cnn,width=8` or `timm:resnet18,pretrained=false@weights.pth`.

        Args:
            text: `TARGET[,key=value]*[@WEIGHTS]`; values are Python literals, or words without quotes. `found:FOLDER`
                stands for the best network that a search found, `found:FOLDER,rank=2` for the second best.

        Raises:
            UserError: The text does not follow this grammar.
        """
        text = text.strip()
        if _exists(text):  # An existing path may hold commas or @; then it is no spec to take apart.
            return cls(target=text)
        head, weights = split_last(text, "@")
        if weights is not None and not weights.strip():
            raise UserError(f"The network {text!r} ends in `@` without a file of weights.")
        written = read(head.strip(), kind="network", is_place=True)
        options = {key: item if key == "normalize" else literal(item) for key, item in written.options.items()}
        if not written.name:
            raise UserError(f"The network {text!r} has no name before its options.")
        if written.name.startswith(FOUND):
            return cls._found(written.name, options, weights)
        pretrained = options.pop("pretrained", None)
        if pretrained not in (None, True, False):
            raise UserError(f"`pretrained` in the network {text!r} must be true or false, not {pretrained!r}.")
        normalize = options.pop("normalize", None)
        target, weights = FORMER_NAMES.get(written.name, written.name), weights and weights.strip()
        return cls(target=target, options=options, normalize=normalize, pretrained=pretrained, weights=weights)

    @classmethod
    def _found(cls, name: str, options: dict[str, Any], weights: str | None) -> NetworkSpec:
        """Return the spec of a network that a search has found: from here on it is a network like any other."""
        rank, normalize = options.pop("rank", None), options.pop("normalize", None)
        if options:
            raise UserError(
                f"{name} has the options that the search gave it: only `rank=` and `normalize=` can be added, not "
                f"{', '.join(f'`{key}=`' for key in options)}."
            )
        text, file = found_network(name.removeprefix(FOUND), rank)
        spec = replace(cls.parse(text), origin=Origin(str(file), trusted=False))
        return replace(spec, normalize=normalize or spec.normalize, weights=weights and weights.strip())

    def __str__(self) -> str:
        reserved = {"normalize": self.normalize, "pretrained": self.pretrained}
        items = [f"{key}={_text(value)}" for key, value in self.options.items()]
        items += [f"{key}={str(value).lower()}" for key, value in reserved.items() if value is not None]
        return ",".join([self.target, *items]) + (f"@{self.weights}" if self.weights else "")

    @property
    def kind(self) -> Kind:
        """The kind of network that `target` names.

        Raises:
            UserError: It names nothing known.
        """
        if self.target.partition(":")[0] in TEACHERS:
            raise UserError(
                f"{self.target} is not a network, but only a teacher: name it with --teacher. Where a network is "
                "needed, name one, such as the network that was recorded."
            )
        # The last colon, because a path may have others.
        before, colon, after = self.target.rpartition(":")
        # Before import paths, because `timm:resnet18` looks like one.
        if self.target.startswith("timm:"):
            return "timm"
        if self.target.startswith("torchvision:"):
            return "torchvision"
        if self.target.startswith("smp:"):
            return "smp"
        if self.target.startswith(PREFIX):
            return "transformers"
        if colon and before.endswith(".py"):
            return "file"
        # Before import paths, because the factory's place is one.
        if is_composed(self.target):
            return "composed"
        if colon and after.isidentifier() and all(part.isidentifier() for part in before.split(".")):
            return "import"
        # Before paths: a folder that happens to be called `resnet20` does not hide the network.
        if self.target in CATALOGUE:
            return "catalogue"
        if _exists(self.target):
            return "run"
        # It looks like a path, so near names of the catalogue would not help.
        if any(mark in self.target for mark in "/\\:"):
            raise UserError(f"There is nothing at {self.target!r}: neither a saved run nor a file of weights.")
        raise unknown("network", self.target, CATALOGUE)

    @property
    def name(self) -> str:
        """The target without its prefix."""
        return self.target.split(":", 1)[1] if self.kind in _HUBS else self.target

    @property
    def uses_pretrained(self) -> bool:
        """Whether the own weights of a network of a hub, or those of an smp encoder, are fetched."""
        if self.kind not in _HUBS:
            return False
        if self.pretrained is None:
            is_own = self.kind == "smp" or is_segmenter(self.name)
            is_own = is_own or (self.kind == "transformers" and is_resized(self.options))
            return self.weights is None and not is_own
        return self.pretrained

    @property
    def is_trained(self) -> bool:
        """Whether the network comes with any weights; an architecture alone does not."""
        return self.weights is not None or self.kind == "run" or (self.uses_pretrained and self.kind != "smp")

    def trained_for(self, num_classes: int) -> bool:
        """Return whether the network comes with weights and a classifier for this many classes.

        Pretrained weights with another number of classes get a new, untrained classifier. Options can keep their own
        (`num_classes=1000`) or leave it out (`num_classes=0`). Files of weights and runs never get a new one: another
        number of classes is an error, except for a teacher.

        Args:
            num_classes: Classes of the data.
        """
        # Of an smp network, pretrained weights are the encoder's alone.
        if not self.uses_pretrained or self.kind == "smp":
            return self.is_trained
        # Without some of its layers, a network has to be trained again.
        if self.kind == "transformers" and is_shrunk(self.options):
            return False
        if self.kind == "transformers" and HEAD in self.options:
            return is_causal(self.name)
        wanted = self.options.get("num_classes", num_classes)
        return bool(wanted == 0 or hub.pretrained_classes(self.kind, self.name, self.options) == wanted)

    def architecture(self) -> NetworkSpec:
        """Return the spec of the same network without weights and statistics."""
        # What is saved has no auxiliary head: only training needs it.
        left_out = {"aux_loss"} if self.kind == "torchvision" else set()
        options = {key: value for key, value in self.options.items() if key not in left_out}
        bare = replace(self, options=options, normalize=None, pretrained=None, weights=None)
        # Networks of segmentation-models-pytorch fetch nothing unless asked to.
        return replace(bare, pretrained=False) if self.kind in _HUBS and self.kind != "smp" else bare

    def ending_in(self, head: str) -> NetworkSpec:
        """Return the spec of a network of transformers with another head; any other network as it is.

        Args:
            head: What a task asks for, such as `language`; empty for a classifier.
        """
        if not head or self.kind != "transformers":
            return self
        return replace(self, options={**self.options, HEAD: head})

    def absolute(self) -> NetworkSpec:
        """Return the spec with absolute paths, so that it means the same in every working directory."""
        target, weights, options = self.target, self.weights, self.options
        if self.kind == "run":
            target = _absolute(target)
        elif self.kind == "transformers" and Path(self.name).expanduser().is_dir():
            target = PREFIX + _absolute(self.name)
        elif self.kind == "file":
            file, _, factory = target.rpartition(":")
            target = f"{_absolute(file)}:{factory}"
        elif (within := self.within) is not None:
            options = {**options, "student": str(within.absolute())}
        return replace(self, target=target, options=options, weights=None if weights is None else _absolute(weights))

    @property
    def within(self) -> NetworkSpec | None:
        """The inner network of a composed one, with the origin of this spec; None for any other network."""
        student = self.options.get("student") if self.kind == "composed" else None
        return replace(NetworkSpec.parse(student), origin=self.origin) if isinstance(student, str) else None

    @property
    def code(self) -> str | None:
        """The user's factory that builds the network, with its options; None if no code of a user runs."""
        if self.kind in ("file", "import"):
            return str(self.architecture().absolute())
        return None if (within := self.within) is None else within.code


def _absolute(path: str) -> str:
    """Return an absolute path. Links in it stay, unless `..` stands in it: after a link, `..` may lead elsewhere."""
    absolute = Path(path).expanduser().absolute()
    return str(absolute.resolve() if ".." in absolute.parts else absolute)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for texts that are too long for a path.


def _text(value: Any) -> str:
    bare_word = isinstance(value, str) and value.strip() == value and not set(value) & set(",@'\"()[]{}=")
    # Quoted where reading the bare word would give something else, such as the text `true`.
    return value if bare_word and value and literal(value) == value else repr(value)
