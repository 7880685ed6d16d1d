"""Who is compared, and which switches are on for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of those that are compared.

    Attributes:
        title: What it is called in tables.
        where: Where its function is, `module:function`: from setting and pace to the trained network.
        switches: Which switches are on.
        needs: The package that it comes from; None if it needs no other.
        distils: Whether it is a training by distillation, or a part of one that is measured alone.
        keeps_memory: Whether Tutelage's setting of the allocator is lent to it.
    """

    title: str
    where: str
    switches: str
    needs: str | None = None
    distils: bool = True
    keeps_memory: bool = False

    @property
    def missing(self) -> str | None:
        """Why it cannot take part; None if it can."""
        if self.needs is None or find_spec(self.needs) is not None:
            return None
        return f"{self.needs} is not installed: pip install 'tutelage[bench]'"

    def train(self) -> Callable[..., nn.Module]:
        """Return its function."""
        module, _, function = self.where.partition(":")
        found: Callable[..., nn.Module] = getattr(import_module(module), function)
        return found


_PIL = "torchvision's PIL transforms in worker processes"
_LENT = "Tutelage's resident uint8 images, batch-wise augmentation and kept memory, lent to it"
_BF16 = "bf16 autocast (where bf16 is native)"
_FAST = f"{_BF16}, channels-last, torch.compile of student and teacher, fused SGD"

CONTENDERS: Mapping[str, Contender] = {
    "textbook": Contender(
        title="textbook loop",
        where="contenders.plain:textbook",
        switches=f"float32, contiguous, eager; {_PIL}; loss.item() each step",
    ),
    "torchdistill": Contender(
        title="torchdistill, as its samples",
        where="contenders.toolkits:torchdistill_sample",
        switches=f"float32, contiguous, eager; {_PIL}; loss.item() each step",
        needs="torchdistill",
    ),
    "torchdistill-best": Contender(
        title="torchdistill, at its best",
        where="contenders.toolkits:torchdistill_best",
        switches=f"{_FAST} (through its configuration); {_LENT}; no loss.item()",
        keeps_memory=True,
        needs="torchdistill",
    ),
    "timm": Contender(
        title="timm's task, plain",
        where="contenders.toolkits:timm_plain",
        switches=f"float32, contiguous, eager; timm's loader without prefetcher, {_PIL}",
        needs="timm",
    ),
    "timm-best": Contender(
        title="timm's task, all switches on",
        where="contenders.toolkits:timm_fast",
        switches=f"{_FAST}; timm's loader with prefetcher (uint8, normalised a batch at a time), {_PIL}",
        needs="timm",
    ),
    "timm-lent": Contender(
        title="timm's task, all switches on, with lent batches",
        where="contenders.toolkits:timm_lent",
        switches=f"{_FAST}; {_LENT}",
        keeps_memory=True,
        needs="timm",
    ),
    "live": Contender(
        title="Tutelage, live",
        where="contenders.ours:live",
        switches="whatever it decides by itself",
    ),
    "recorded": Contender(
        title="Tutelage, recorded",
        where="contenders.ours:recorded",
        switches="whatever it decides by itself; answers and views from a recording",
    ),
    "bare": Contender(
        title="bare student step",
        where="contenders.plain:bare_step",
        switches=f"{_BF16}, channels-last, torch.compile, fused SGD, kept memory; cross-entropy alone, one batch",
        distils=False,
        keeps_memory=True,
    ),
    "teacher": Contender(
        title="teacher alone",
        where="contenders.ours:teacher_alone",
        switches="the teacher of a live training, asked about one batch that is there",
        distils=False,
    ),
}
