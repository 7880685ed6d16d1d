"""What a person sees while training runs: live bars on a terminal, plain lines elsewhere, nothing in a library call."""

from __future__ import annotations

from collections.abc import Mapping
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

from tutelage.system.processes import is_first


class Reporter(Protocol):
    """Told how training goes."""

    def note(self, text: str, *, once: bool = False) -> None:
        """Say one line, or, if `once`, say it unless it has been said."""

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

    def note(self, text: str, *, once: bool = False) -> None:
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
    """A reporter for people: one line a training run, and a live bar with the latest epoch while it runs.

    Args:
        console: Where to write; standard output by default.
        plan: Number of cells of a whole comparison, for an overall bar; none by default.
    """

    def __init__(self, console: Console | None = None, *, plan: int | None = None) -> None:
        self.console = console or screen()
        self._live = self.console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", style="cyan"),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._overall = None if plan is None else self._bars.add_task("all cells", total=plan, status="")
        self._task: TaskID | None = None
        self._status = ""
        self._title = ""
        self._said: set[str] = set()

    def note(self, text: str, *, once: bool = False) -> None:
        """Say one line above the bars."""
        if once and text in self._said:
            return
        self._said.add(text)
        self.console.print(text, soft_wrap=True)

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Start a bar."""
        self._bars.start()
        self._title, self._status = title, ""
        self._task = self._bars.add_task(title, total=total, completed=done, status="")

    def advance(self, steps: int) -> None:
        """Move the bar on."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def status(self, text: str) -> None:
        """Show some words beside the bar."""
        self._status = text
        if self._task is not None:
            self._bars.update(self._task, status=text)

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show the headline and the losses beside the bar."""
        losses = (f"{name} {value}" for name, value in shown(metrics).items())
        self.status("  ".join(filter(None, (f"epoch {number}/{epochs}", headline, *losses))))

    def end(self, *, finished: bool) -> None:
        """Turn the bar into a line."""
        if self._task is not None:
            seconds = self._bars.tasks[self._bars.task_ids.index(self._task)].elapsed or 0.0
            self._bars.remove_task(self._task)
            outcome = "[green]done[/green]" if finished else "[yellow]stopped[/yellow]"
            self.note(f"{outcome}  {self._title}  {self._status}  {seconds:.1f} s")
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


def screen() -> Console:
    """Return the console of standard output; of several processes, only the first one speaks."""
    return Console(highlight=False, quiet=not is_first())


def shown(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the losses worth a place on one line, formatted."""
    # Of several networks, the losses of the others and of their contests would fill the line.
    losses = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
    return {name: f"{value:.4f}" for name, value in losses.items() if "/" not in name}
