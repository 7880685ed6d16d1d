"""Loggers of experiments: what every epoch measured, sent to TensorBoard, CSV files, Weights & Biases or MLflow.

They are Lightning's own. A run knows none of them: they listen to what it reports.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tutelage.errors import UserError, unknown
from tutelage.system.console import Reporter
from tutelage.system.processes import is_first

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

LoggerSource = str | Callable[[str], Any]
"""A logger's name, or a function from the name of a training to a Lightning logger."""

PROJECT = "tutelage"


@dataclass(frozen=True)
class Log:
    """The log of one training, which is about to be opened.

    Attributes:
        title: What the training is called, such as `kd, seed 0: distill`.
        folder: Where loggers that write files put them.
        epoch: The first epoch that will be logged, counted from one. The files of an earlier process may already have
            it and later ones: a run that was killed continues from its last checkpoint.
    """

    title: str
    folder: Path
    epoch: int

    @property
    def slug(self) -> str:
        """The title as a name of a folder."""
        plain = re.sub(r"[^\w.=+-]+", "-", self.title).strip("-") or "training"
        if re.fullmatch(r"[\w.=+:, -]*", self.title):
            return plain
        # Other characters are rare, and without them two titles could become one.
        return f"{plain}-{hashlib.sha256(self.title.encode()).hexdigest()[:6]}"


def _tensorboard(log: Log) -> Logger:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    # TensorBoard forgets what an earlier process logged of the epochs that are trained again.
    return TensorBoardLogger(log.folder, name=log.slug, version="", purge_step=log.epoch)


def _csv(log: Log) -> Logger:
    from lightning_fabric.loggers.csv_logs import CSVLogger

    logger = CSVLogger(log.folder, name=log.slug, version="", flush_logs_every_n_steps=1)
    file = Path(logger.log_dir) / "metrics.csv"
    kept = _rows_before(log.epoch, file)
    # It would delete the file itself, with a warning.
    file.unlink(missing_ok=True)
    for row in kept:
        step = int(row.pop("step"))
        logger.log_metrics({name: float(value) for name, value in row.items() if value}, step=step)
    return logger


def _rows_before(epoch: int, file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if int(row["step"]) < epoch]


def _wandb(log: Log) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    # By its identifier an interrupted run is found again. Its steps only grow: those that it has are ignored.
    identifier = hashlib.sha256(str(log.folder.resolve() / log.slug).encode()).hexdigest()[:16]
    made: Logger = WandbLogger(name=log.title, project=PROJECT, save_dir=log.folder, id=identifier, resume="allow")
    return made


def _mlflow(log: Log) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    # Where it logs to is said by MLFLOW_TRACKING_URI, as for every program that uses MLflow.
    made: Logger = MLFlowLogger(experiment_name=PROJECT, run_name=log.title)
    return made


@dataclass(frozen=True)
class Kind:
    """A kind of logger.

    Attributes:
        open: Makes the logger of a training.
        packages: What it needs beside Tutelage's own requirements: for each thing, the packages one of which will do.
        install: What to install for it.
    """

    open: Callable[[Log], Logger]
    packages: Sequence[tuple[str, ...]] = ()
    install: str = ""


KINDS: dict[str, Kind] = {
    "tensorboard": Kind(_tensorboard, [("tensorboard", "tensorboardX")], "'tutelage[tensorboard]'"),
    "csv": Kind(_csv),
    "wandb": Kind(_wandb, [("lightning",), ("wandb",)], "lightning wandb"),
    "mlflow": Kind(_mlflow, [("lightning",), ("mlflow",)], "lightning mlflow"),
}


def opener(source: LoggerSource) -> Callable[[Log], Logger]:
    """Return what opens a logger for a training.

    Args:
        source: The logger's name, or a function from the name of a training to a Lightning logger.

    Raises:
        UserError: If there is no logger of that name, or a package that it needs is not installed.
    """
    if not isinstance(source, str):
        return lambda log: source(log.title)
    if source not in KINDS:
        raise unknown("logger", source, KINDS)
    kind = KINDS[source]
    lacking = [" or ".join(some) for some in kind.packages if not any(map(find_spec, some))]
    if lacking:
        raise UserError(f"The logger {source} needs {' and '.join(lacking)}: pip install {kind.install}")
    return kind.open


class Logged:
    """A reporter that shows what another one shows, and logs what every epoch measured.

    The step of a logger is the epoch, counted from one.

    Args:
        reporter: What shows the progress.
        sources: The loggers.
        folder: Where loggers that write files put them, each training in a folder of its own.

    Raises:
        UserError: If a logger does not exist, or a package that it needs is not installed.
    """

    def __init__(self, reporter: Reporter, sources: Sequence[LoggerSource], folder: Path) -> None:
        self._reporter, self._folder = reporter, folder
        self._openers = [opener(source) for source in sources]
        self._title = ""
        # None until the first epoch ends, which says from where a resumed training goes on.
        self._loggers: list[Logger] | None = None

    def note(self, text: str | Text, *, once: bool = False) -> None:
        """Write one line."""
        self._reporter.note(text, once=once)

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Start a bar, and the logs of a training."""
        self._title, self._loggers = title, None
        self._reporter.begin(title, total=total, done=done)

    def advance(self, steps: int) -> None:
        """Move the bar on."""
        self._reporter.advance(steps)

    def status(self, text: str) -> None:
        """Show some words beside the bar."""
        self._reporter.status(text)

    def epoch(self, number: int, epochs: int, metrics: Mapping[str, float], *, headline: str = "") -> None:
        """Show how an epoch went, and log it."""
        self._reporter.epoch(number, epochs, metrics, headline=headline)
        # Of several processes that train as one, the first one writes.
        if not is_first():
            return
        if self._loggers is None:
            log = Log(self._title, self._folder, number)
            self._loggers = [open_one(log) for open_one in self._openers]
        for logger in self._loggers:
            logger.log_metrics(dict(metrics), step=number)
            # At once, so that a training can be watched.
            logger.save()

    def end(self, *, finished: bool) -> None:
        """End the bar, and the logs of this training."""
        for logger in self._loggers or ():
            logger.finalize("success" if finished else "failed")
            # A run of Weights & Biases would otherwise take in the next training too.
            if callable(finish := getattr(getattr(logger, "experiment", None), "finish", None)):
                finish()
        self._loggers = None
        self._reporter.end(finished=finished)

    def finish_one(self) -> None:
        """Move the overall bar on by one cell."""
        self._reporter.finish_one()


def logged(reporter: Reporter, sources: LoggerSource | Sequence[LoggerSource], folder: Path) -> Reporter:
    """Return a reporter that also logs; the reporter itself where there are no loggers.

    Args:
        reporter: What shows the progress.
        sources: One logger or several.
        folder: The folder of the run or of the comparison.

    Raises:
        UserError: If a logger does not exist, or a package that it needs is not installed.
    """
    several = [sources] if isinstance(sources, str) or callable(sources) else list(sources)
    return Logged(reporter, several, folder / "logs") if several else reporter
