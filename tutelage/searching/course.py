"""The course of a search: candidates are examined, kept, and told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from tutelage.searching.evolution import Evolution
from tutelage.searching.examining import Result
from tutelage.searching.ledger import Ledger
from tutelage.searching.limits import amount
from tutelage.searching.pool import Examining
from tutelage.searching.settings import SearchSettings
from tutelage.searching.space import Genes, Space
from tutelage.system.chance import derive
from tutelage.system.console import Reporter, duration
from tutelage.system.interrupt import Interrupted, Interruption

# So many candidates are timed before the time of all is foretold.
_TIMED = 5


class Course:
    """The course of a search: it examines what evolution asks for, and keeps and tells what comes out.

    Attributes:
        most: How many networks will be scored at most.
        evolution: Which networks are examined, and what was found.

    Args:
        space: The space.
        settings: The settings of the search.
        folder: Where results are kept, for messages.
        examine: Examines candidates.
        ledger: What is known already, and where results are kept.
        interruption: Notes a request to stop.
        reporter: Shows the progress.
    """

    def __init__(
        self,
        space: Space,
        settings: SearchSettings,
        folder: Path,
        examine: Examining,
        ledger: Ledger,
        interruption: Interruption,
        reporter: Reporter,
    ) -> None:
        self._space, self._workers, self._folder = space, settings.workers, folder
        self._examine, self._ledger = examine, ledger
        self._interruption, self._reporter = interruption, reporter
        # Until a candidate is scored nothing is written: a search that cannot begin leaves no folder.
        self._unwritten: list[Result] = []
        self._seconds: list[float] = []
        self._best: Result | None = None
        self.most = min(settings.candidates, space.size)
        self.evolution = Evolution(
            space=space,
            chance=random.Random(derive(settings.seed, 1)),
            candidates=settings.candidates,
            population=settings.population,
            children=settings.children,
            mutations=settings.mutations,
        )

    def examine(self, wanted: Sequence[Genes]) -> list[Result]:
        """Return the results of some candidates, in order."""
        networks = [self._space.network(genes) for genes in wanted]
        known = [self._ledger.get(str(network)) for network in networks]
        fresh = self._examine(compress(networks, [each is None for each in known]))
        return [self._heeded(self._fresh(next(fresh)) if each is None else each) for each in known]

    def _fresh(self, result: Result) -> Result:
        """Keep a new result, and foretell the time once enough are known."""
        self._unwritten.append(result)
        if result.score is not None or len(self._ledger):
            for each in self._unwritten:
                self._ledger.add(each)
            self._unwritten = []
        if result.score is not None:
            self._seconds.append(result.seconds)
            if len(self._seconds) == _TIMED:
                self._foretell()
        return result

    def _heeded(self, result: Result) -> Result:
        """Show a result, and stop if that was asked for."""
        if result.score is not None:
            self._best = result if self._best is None or result.value > self._best.value else self._best
            self._reporter.advance(1)
            self._reporter.status(f"best {self._best.value:.4g}  {amount(self._best.parameters or 0)} parameters")
        if self._interruption.requested is not None:
            where = f"kept in {self._folder}" if len(self._ledger) else "known, too few to keep"
            raise Interrupted(
                self._interruption.requested,
                f"Stopped. {len(self._ledger)} networks are {where}. Run the same command again to continue.",
            )
        return result

    def _foretell(self) -> None:
        each = sum(self._seconds) / len(self._seconds)
        left = self.most - len(self._ledger)
        text = f"{each:.2g} s for a network, about {duration(each * left / max(self._workers, 1))} for {left} more"
        hint = "" if self._workers or each * left < 60 else "; --workers N shares them among N processes"
        self._reporter.note(text + hint)
