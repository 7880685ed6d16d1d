"""What a person sees while training runs: live bars on a terminal, plain lines elsewhere, nothing in a library call."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tutelage.system.processes import is_first

# Where there is no bar, something is said at least this often.
SILENCE_SECONDS = 300.0


class Reporter(Protocol):
    """Told how training goes."""

    def note(self, text: str | Text, *, once: bool = False) -> None:
        """Say one line as it is, square brackets included; if `once`, unless it has been said."""

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Start a bar of `total` batches, of which `done` are behind."""

    def advance(self, steps: int) -> None:
        """Move the bar on by some batches."""

    def status(self, text: str) -> None:
        """Show some words beside the bar, in place of those before."""

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show how a finished epoch went.

        Args:
            number: The epoch, counted from one.
            epochs: How many there are.
            metrics: What was measured in it; its losses are shown.
            headline: What to show before them, such as `validation 95.12 %`.
        """

    def end(self, *, finished: bool) -> None:
        """Finish the bar, of a training run that has finished or that stopped on its way."""

    def finish_one(self) -> None:
        """Note that one cell of a comparison is finished."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str | Text, *, once: bool = False) -> None:
        """Say nothing."""

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Show nothing."""

    def advance(self, steps: int) -> None:
        """Show nothing."""

    def status(self, text: str) -> None:
        """Show nothing."""

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show nothing."""

    def end(self, *, finished: bool) -> None:
        """Show nothing."""

    def finish_one(self) -> None:
        """Show nothing."""


class Terminal:
    """A reporter for people: a live bar with the latest epoch on a terminal, and elsewhere a line for each epoch.

    Where nobody looks on, as in the log of a cluster, an epoch that takes long has a line every few minutes as well.

    Args:
        console: Where to write; standard output by default.
        plan: Number of cells of a whole comparison, for an overall bar; none by default.
    """

    def __init__(self, console: Console | None = None, *, plan: int | None = None) -> None:
        self.console = console or screen()
        self._live = self.console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", style="cyan", markup=False),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._overall = None if plan is None else self._bars.add_task("all cells", total=plan, status="")
        self._task: TaskID | None = None
        self._status = ""
        self._title = ""
        self._pace = _Pace(total=0, done=0)
        self._said: set[str] = set()

    def note(self, text: str | Text, *, once: bool = False) -> None:
        """Say one line above the bars."""
        if once and str(text) in self._said:
            return
        self._said.add(str(text))
        self.console.print(text if isinstance(text, Text) else Text(text), soft_wrap=True)

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Start a bar."""
        self._bars.start()
        self._title, self._status, self._pace = title, "", _Pace(total=total, done=done)
        self._task = self._bars.add_task(title, total=total, completed=done, status="")

    def advance(self, steps: int) -> None:
        """Move the bar on."""
        if self._task is not None:
            self._bars.advance(self._task, steps)
            self._pace.done += steps
            if self._pace.is_silent:
                self._tell(self._pace.share)

    def status(self, text: str) -> None:
        """Show some words beside the bar."""
        self._status = text
        if self._task is not None:
            self._bars.update(self._task, status=text)

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show the headline and the losses beside the bar."""
        losses = (f"{name} {value}" for name, value in shown(metrics).items())
        self.status("  ".join(filter(None, (f"epoch {number}/{epochs}", headline, *losses))))
        if number < epochs:  # After the last one comes the line of the end.
            self._tell(number / epochs)

    def end(self, *, finished: bool) -> None:
        """Turn the bar into a line."""
        if self._task is not None:
            seconds = self._bars.tasks[self._bars.task_ids.index(self._task)].elapsed or 0.0
            self._bars.remove_task(self._task)
            outcome = ("done", "green") if finished else ("stopped", "yellow")
            self.note(Text.assemble(outcome, f"  {self._title}  {self._status}  {seconds:.1f} s"))
        self._task = None
        if self._overall is None:
            self._bars.stop()

    def finish_one(self) -> None:
        """Move the overall bar on by one cell."""
        if self._overall is not None:
            self._bars.advance(self._overall)

    def close(self) -> None:
        """Stop drawing."""
        self._bars.stop()

    def _tell(self, share: float) -> None:
        """Say that a share of a training is done, where there is no bar that shows it."""
        if not self._live:
            words = (self._title, self._status, self._pace.told(share))
            self.note("  ".join(filter(None, words)))


class _Pace:
    """How fast a training goes.

    Args:
        total: Its batches.
        done: Those that were behind when it began.
    """

    def __init__(self, *, total: int, done: int) -> None:
        self.done, self._total, self._before = done, max(total, 1), done
        self._began = self._spoke = monotonic()

    @property
    def is_silent(self) -> bool:
        """Whether nothing was said for long."""
        return monotonic() - self._spoke >= SILENCE_SECONDS

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return self.done / self._total

    def told(self, share: float) -> str:
        """Return the time that it has taken and the time that is left, and note that something was said.

        Args:
            share: How much of it is done, from 0 to 1.
        """
        self._spoke = monotonic()
        spent, made = self._spoke - self._began, share - self._before / self._total
        return f"{duration(spent)}, {duration(spent * (1 - share) / made)} left" if made > 0 else duration(spent)


def duration(seconds: float) -> str:
    """Return a time for a person to read, such as `45 s`, `12 min` or `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def screen(*, stderr: bool = False) -> Console:
    """Return the console of standard output; of several processes, only the first one speaks.

    What is printed on it stands there as it is: names of files may hold square brackets and words between colons, which
    the console would take for markup and emoji.

    Args:
        stderr: Whether to return that of standard error instead, on which every process speaks.
    """
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, quiet=not stderr and not is_first())


def shown(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the losses worth a place on one line, formatted."""
    # Of several networks, the losses of the others and of their contests would fill the line.
    losses = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
    return {name: f"{value:.4f}" for name, value in losses.items() if "/" not in name}
