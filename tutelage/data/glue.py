"""The data of the GLUE benchmark: their names, the metric of each, and how its test labels are asked for.

Paper: Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tutelage.errors import unknown

GLUE_PREFIX = "glue/"
_HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """What GLUE says of one of its tasks.

    Attributes:
        outputs: The names of its classes, as the tables have them; of numbers, the name of their column.
        metric: The metric that it is judged by, if that is not the usual one of classification.
        numbered: Whether a file for GLUE holds the classes' numbers rather than their names.
    """

    outputs: tuple[str, ...]
    metric: str | None = None
    numbered: bool = False


_ENTAILMENT = ("entailment", "not_entailment")
_NLI = GlueTask(("entailment", "neutral", "contradiction"))
GLUE: Mapping[str, GlueTask] = MappingProxyType(
    {
        "ax": _NLI,
        "cola": GlueTask(("unacceptable", "acceptable"), "mcc", numbered=True),
        "mnli": _NLI,
        "mrpc": GlueTask(("not_equivalent", "equivalent"), "f1", numbered=True),
        "qnli": GlueTask(_ENTAILMENT),
        "qqp": GlueTask(("not_duplicate", "duplicate"), "f1", numbered=True),
        "rte": GlueTask(_ENTAILMENT),
        "sst2": GlueTask(("negative", "positive"), numbered=True),
        "stsb": GlueTask(("label",), "pearson+spearman"),
        "wnli": GlueTask(("not_entailment", "entailment"), numbered=True),
    }
)
"""The tasks by the name of their configuration on the hub, and of their folder."""


def on_hub(place: str) -> str:
    """Return the hub's name of one of GLUE's tasks, such as `glue/cola`.

    Raises:
        UserError: If GLUE has no such task.
    """
    name = _plain(place.removeprefix(GLUE_PREFIX))
    if name not in GLUE:
        raise unknown("task of GLUE", place, [f"{GLUE_PREFIX}{known}" for known in GLUE])
    return f"{_HUB}:{name}"


def glue_task(place: str, outputs: tuple[str, ...]) -> GlueTask | None:
    """Return the task of GLUE that some data are; None if they are none.

    A folder of such a name counts only with the classes that GLUE has, because the name alone is short.

    Args:
        place: The data's name on the hub, or that of their folder.
        outputs: The names of the classes, or of the column of numbers.
    """
    found = GLUE.get(_plain(place.removeprefix(f"{_HUB}:")))
    return found if found is not None and found.outputs == outputs else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
