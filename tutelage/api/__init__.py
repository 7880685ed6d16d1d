"""What one call does: distill, compare, evaluate and so on. The command line calls the same functions."""

from tutelage.api.searching import search, search_into
from tutelage.api.synthesis import synthesize
from tutelage.api.trained import evaluate, export, predict
from tutelage.api.training import compare, compare_into, distill, distill_all, distill_into

__all__ = [
    "compare",
    "compare_into",
    "distill",
    "distill_all",
    "distill_into",
    "evaluate",
    "export",
    "predict",
    "search",
    "search_into",
    "synthesize",
]
