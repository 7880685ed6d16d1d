"""Progress output: live bars on a terminal, plain lines elsewhere, nothing in a library call."""

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

# Without a bar, a line is written at least this often.
SILENCE_SECONDS = 300.0


class Reporter(Protocol):
    """Shows the progress of training. Long work calls its methods."""

    def note(self, text: str | Text, *, once: bool = False) -> None:
        """Write one line as it is, square brackets included; with `once`, not if it was written before."""

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Start a bar of `total` batches, of which `done` are finished."""

    def advance(self, steps: int) -> None:
        """Move the bar on by some batches."""

    def status(self, text: str) -> None:
        """Show some words beside the bar, instead of the previous ones."""

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show how a finished epoch went.

        Args:
            number: The epoch, counted from one.
            epochs: How many there are.
            metrics: What was measured in it; its losses are shown.
            headline: Text before the losses, such as `validation 95.12 %`.
        """

    def end(self, *, finished: bool) -> None:
        """End the bar; `finished` tells a run that finished from one that stopped early."""

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
    """A reporter for people: on a terminal a live bar with the latest epoch, elsewhere a line for each epoch.

    Without a terminal, as in the log of a cluster, a long epoch also gets a line every few minutes.

    Args:
        console: The console to write to; standard output by default.
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
            # Gone when it ends, because `end` leaves a line in its place.
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
        """Write one line above the bars."""
        if once and str(text) in self._said:
            return
        self._said.add(str(text))
        # Not broken into lines, so that a path in it can be copied, and a log has one line for each note.
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
            # The number of a task is not its place in the list: that shifts when an earlier task is removed.
            seconds = self._bars.tasks[self._bars.task_ids.index(self._task)].elapsed or 0.0
            self._bars.remove_task(self._task)
            outcome = ("done", "green") if finished else ("stopped", "yellow")
            self.note(Text.assemble(outcome, f"  {self._title}  {self._status}  {seconds:.1f} s"))
        self._task = None
        # The overall bar stays: other cells follow.
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
        """Write a line about the share of a training that is done, if no bar shows it."""
        if not self._live:
            words = (self._title, self._status, self._pace.told(share))
            self.note("  ".join(filter(None, words)))


class _Pace:
    """The speed of a training, for estimates of the time left.

    Args:
        total: Number of its batches.
        done: Number of batches that were finished before it began, in an earlier run.
    """

    def __init__(self, *, total: int, done: int) -> None:
        self.done, self._total, self._before = done, max(total, 1), done
        self._began = self._spoke = monotonic()

    @property
    def is_silent(self) -> bool:
        """Whether no line was written for a long time."""
        return monotonic() - self._spoke >= SILENCE_SECONDS

    @property
    def share(self) -> float:
        """The share that is done, from 0 to 1."""
        return self.done / self._total

    def told(self, share: float) -> str:
        """Return the time taken and the time left, in words, and restart the clock of `is_silent`.

        Args:
            share: The share that is done, from 0 to 1.
        """
        self._spoke = monotonic()
        # What an earlier run did says nothing about the pace of this one.
        spent, made = self._spoke - self._began, share - self._before / self._total
        return f"{duration(spent)}, {duration(spent * (1 - share) / made)} left" if made > 0 else duration(spent)


def duration(seconds: float) -> str:
    """Return a time for a person to read, such as `45 s`, `12 min` or `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def screen(*, stderr: bool = False) -> Console:
    """Return the console of standard output. If several processes train as one, only the first one writes.

    Text is printed as it is: names of files may hold square brackets and words between colons, which the console would
    otherwise read as markup and emoji.

    Args:
        stderr: Whether to return the console of standard error instead, to which every process writes.
    """
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, quiet=not stderr and not is_first())


def shown(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the losses worth a place on one line, formatted."""
    # With several networks, the losses of the others (`name/loss`) would not fit into the line.
    losses = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
    return {name: f"{value:.4f}" for name, value in losses.items() if "/" not in name}
