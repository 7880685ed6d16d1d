"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Search.

    Attributes:
        score: How untrained networks are scored: diswot, parameters, multiply-adds, depth, or package.module:Class.
            Options follow after a colon: diswot:variant=paper,semantic=0.
        limit: What the size must be: params=0.5M,multiply_adds=70M; params=0.1M..0.5M has a lower limit too.
        candidates: Networks to score. What is over a limit or does not build is not counted.
        population: How many of the best so far have children.
        children: Networks that are examined before the parents are chosen anew.
        mutations: The most options in which a child differs from its parent.
        best: How many of the best are kept; found:FOLDER,rank=2 is the second one.
        draws: How often each network is scored, with fresh weights each time; the mean counts.
        batch_size: Training samples by which networks are scored, the same for all.
        seed: Seed of everything.
        workers: Processes that score side by side; 0 scores in this process. The result is the same, bit for bit.
        device: auto, cpu, cuda, mps.
    """

    score: str = "diswot"
    limit: str | None = None
    candidates: int = 200
    population: int = 32
    children: int = 8
    mutations: int = 2
    best: int = 10
    draws: int = 1
    batch_size: int = 64
    seed: int = 0
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("candidates", "population", "children", "mutations", "best", "draws"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be 1 or more.")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be zero or above.")
