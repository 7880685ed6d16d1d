"""Comparisons: each method is trained with each seed, and a table shows paired differences."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text
from torch import nn

from tutelage.core.method import DEPLOYED
from tutelage.core.teachers.stand_in import rehearsed
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice, without_flags, written
from tutelage.experiments.description import (
    describe_data,
    environment,
    recording_facts,
    teacher_facts,
)
from tutelage.experiments.experiment import Experiment, no_teacher
from tutelage.experiments.rows import record, summarise
from tutelage.models.blueprint import Blueprint, answers_as_asked
from tutelage.models.normalization import Normalized, bare
from tutelage.models.size import size_for
from tutelage.system import chance, digests
from tutelage.system.console import Reporter, Silent
from tutelage.system.devices import device_type
from tutelage.system.files import write_json
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run
from tutelage.training.settings import Training
from tutelage.version import VERSION

Take = Callable[[nn.Module, Run], None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods to compare, and everything that they share.

    Attributes:
        choices: The methods with their hyper-parameters, one for each row.
        experiment: Data and networks.
        training: The settings of every training.
        teacher_training: The settings of the shared teacher's training, if it comes untrained.
        seeds: The seeds of every row.
        folder: The folder of all results.
        baseline: Label of the row that the others are compared with.
        command: The user's command, for the report.
        flags: The flags of that command that `distill` also accepts.
        title: Title of the report.
        strict: Whether a failed row ends the comparison. If not, the row is reported as failed.
    """

    choices: Sequence[Choice]
    experiment: Experiment
    training: Training
    teacher_training: Training
    seeds: Sequence[int]
    folder: Path
    baseline: str
    command: str = ""
    flags: Sequence[str] = ()
    title: str = "A comparison of distillation methods"
    strict: bool = False

    def run(self, reporter: Reporter | None = None, *, take: Take | None = None) -> dict[str, Any]:
        """Run what has not been run, write `comparison.json` after every row, and return its content.

        Args:
            reporter: Shows the progress.
            take: Called with the trained network and the run of every finished cell.

        Raises:
            UserError: If a row cannot be built, or its method needs a teacher and there is none.
            Interrupted: If a signal came; the same command continues from there.
        """
        reporter = reporter or Silent()
        for note in self.experiment.notes:
            reporter.note(note)
        # A single training is built once anyway, and fails before it starts.
        if self._is_long:
            self.check()
        return self.with_teacher(reporter)._run(reporter, take)

    @property
    def _is_long(self) -> bool:
        """Whether some training comes before the last method is built, and would be wasted if that failed."""
        several = len(self.choices) * len(self.seeds) > 1
        return several or self._lacks_teacher or any(choice.entry.is_recipe for choice in self.choices)

    @property
    def _lacks_teacher(self) -> bool:
        """Whether a row needs a trained teacher that does not exist yet."""
        return self.experiment.answers is None and any("teacher" in choice.fixtures for choice in self.choices)

    def check(self) -> None:
        """Build every row's methods once, with the teacher untrained, so that errors show before any training.

        Raises:
            UserError: If a row cannot be built, or its method needs a teacher and there is none.
        """
        before = chance.random_state()
        try:
            # The teacher is built but not trained, and a paid one is not asked.
            experiment = unasked(self._with_answers(lambda: DryRun(self.teacher_training)).experiment)
            for choice in self.choices:
                _build(choice, experiment, DryRun(self.training))
        finally:
            # The real training must not depend on the random numbers that this trial drew.
            chance.restore_random_state(before)

    def with_teacher(self, reporter: Reporter) -> Comparison:
        """Return the comparison with its shared teacher trained or loaded, if a row needs one.

        Raises:
            UserError: If a method needs a teacher and there is none.
        """
        return self._with_answers(
            lambda: Run(self.folder / self._teacher_folder(), self.teacher_training, reporter=reporter)
        )

    def _with_answers(self, make_run: Callable[[], Run]) -> Comparison:
        experiment = self.experiment
        if self._lacks_teacher:
            return replace(self, experiment=replace(experiment, answers=experiment.train_teacher(make_run())))
        return self

    def _run(self, reporter: Reporter, take: Take | None) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [self._empty_row(choice) for choice in self.choices]
        # The rows are filled in place, so each writing below has the state of the moment.
        content = self._head() | {"rows": rows}
        # Seeds outside, methods inside: an interrupted comparison has complete pairs for the first seeds.
        for seed in self.seeds:
            for choice, row in zip(self.choices, rows, strict=True):
                self._cell(choice, seed, row, reporter, take)
                reporter.finish_one()
                self._summarise(rows)
                write_json(self.folder / "comparison.json", content)
        return content

    def _teacher_folder(self) -> str:
        names = [teacher.name for teacher in self.experiment.teachers]
        if self.experiment.answers is not None and not names:
            names = [self.experiment.answers.identity()]
        if not names:
            raise no_teacher()
        identity = [self.teacher_training.identity(), self.experiment.data.fingerprint, *names]
        return f"teacher-{_digest(identity)}"

    def _cell(self, choice: Choice, seed: int, row: dict[str, Any], reporter: Reporter, take: Take | None) -> None:
        title = f"{choice.label}, seed {seed}:"
        run = Run(self._folder(choice, seed), self.training, seed=seed, reporter=reporter, title=title)
        try:
            network = self.experiment.execute(choice, run)
        except UserError as error:
            # One failed row must not cost the other rows their results.
            if self.strict:
                raise
            reporter.note(Text.assemble(("failed", "red"), f"  {title} {error}"))
            # The row keeps the runs of its other seeds.
            row["error"] = f"seed {seed}: {error}"
            return
        size = size_for(network, self.experiment.data)
        row |= {"parameters": size.parameters, "multiply_adds": size.multiply_adds}
        row |= {"deployed": DEPLOYED, "network": network.spec if isinstance(network, Normalized) else None}
        row["runs"].append(record(run, seed, self.folder))
        if take is not None:
            take(network, run)

    def _folder(self, choice: Choice, seed: int) -> Path:
        """Return the folder of a cell. Its name depends on everything that changes the result."""
        experiment, fixtures = self.experiment, choice.fixtures
        # Only what the method takes: a change of the teacher must not repeat runs that have none.
        students = experiment.students if "students" in fixtures else experiment.students[:1]
        teachers = experiment.teachers if fixtures & {"teacher", "make_teacher"} else ()
        answers = experiment.answers if "teacher" in fixtures else None
        identity = [
            choice.hyper_parameters,
            self.training.identity(),
            experiment.data.fingerprint,
            str(experiment.data.augmentation),
            [student.name for student in students],
            [teacher.name for teacher in teachers],
            answers.identity() if answers is not None else None,
        ]
        # Only where there are any, so that folders of runs without them keep their names.
        if experiment.data.foreign is not None:
            identity.append(experiment.data.foreign.fingerprint)
        recording = None if answers is None else answers.replays()
        if recording is not None and (origin := recording.origin()) is not None:
            # Without the number of views: if a recording has grown, the stage in the folder notices and says so.
            identity.append(origin)
        # Readable for people; the digest tells apart what the shortened label does not.
        slug = re.sub(r"[^\w.=-]+", "-", choice.label)[:80]
        return self.folder / "runs" / f"{slug}-{_digest(identity)}" / f"seed-{seed}"

    def _empty_row(self, choice: Choice) -> dict[str, Any]:
        return {
            "label": choice.label,
            "method": choice.entry.name,
            "options": choice.hyper_parameters,
            "title": choice.entry.title,
            "trains": choice.entry.trains,
            "plain": choice.entry.plain,
            "seeds": list(self.seeds),
            "command": self._row_command(choice),
            "runs": [],
        }

    def _row_command(self, choice: Choice) -> str:
        """Return the commands that repeat the row's runs, one line a seed; without flags, the comparison's command."""
        if not self.flags:
            return self.command
        # A hyper-parameter of the method replaces a common flag of the same name.
        flags = without_flags(self.flags, choice.entry.hyper_parameters)
        options = [f"--{name.replace('_', '-')}={written(value)}" for name, value in choice.options.items()]
        words = ["tutelage", "distill", choice.entry.name, *options, *flags]
        return "\n".join(shlex.join([*words, "--seed", str(seed)]) for seed in self.seeds)

    def _summarise(self, rows: Sequence[dict[str, Any]]) -> None:
        by_label = {row["label"]: row for row in rows}
        for row in rows:
            if row["runs"]:
                row["baseline"] = self._baseline_of(row, rows)
                row["summary"] = summarise(row, by_label.get(row["baseline"]), self.experiment.data.task)

    def _baseline_of(self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Return the label of the row to compare with, which must train the same network; None if there is none."""
        if row["trains"] == "student":
            return self.baseline
        # A row that trains the teacher's architecture is compared with plain training of that architecture.
        return next((other["label"] for other in rows if other["plain"] and other["trains"] == row["trains"]), None)

    def _head(self) -> dict[str, Any]:
        methods = [choice.entry.name for choice in self.choices]
        papers = {name: catalogue.cite([name]) for name in methods}
        return {
            "version": 1,
            "tutelage": VERSION,
            "title": self.title,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "environment": environment(),
            "task": self.experiment.data.task.describe(),
            "data": describe_data(self.experiment.data),
            "student": self._describe_student(),
            "teacher": self._describe_teacher(),
            "settings": asdict(self.training),
            "baseline": self.baseline,
            "citations": {name: bibtex for name, bibtex in papers.items() if bibtex},
        }

    def _describe_student(self) -> dict[str, Any]:
        students, data = self.experiment.students, self.experiment.data
        size = size_for(self.experiment.build_student(0, "student"), data)
        return {"spec": _named(students), **asdict(size)}

    def _describe_teacher(self) -> dict[str, Any] | None:
        teachers, answers, data = self.experiment.teachers, self.experiment.answers, self.experiment.data
        recording = None if answers is None else answers.replays()
        if recording is not None:
            return recording_facts(recording, data)
        network = None if answers is None else answers.as_network()
        if answers is None or network is None:
            return None
        device = device_type(self.teacher_training.device)
        together = self.experiment.together.name
        named = _named(teachers) or type(bare(network)).__name__
        spec = named if together is None else f"{named} ({together})"
        facts = {"spec": spec, **asdict(size_for(network, data))}
        # A teacher that answers for other classes has no scores on these data.
        if answers_as_asked(network, data):
            # Foreign data change the scores, and so have a stage of their own.
            others = [data.foreign.fingerprint] if data.foreign is not None else []
            # The same networks answer otherwise when they answer together in another way.
            beside = "".join(f"-{_digest(one)}" for one in (*others, together) if one is not None)
            facts |= Run(self.folder / self._teacher_folder(), self.teacher_training).stage(
                f"scores{beside}",
                lambda: teacher_facts(network, data, device=device),
                weights=digests.of_tensors(network.state_dict()),
                data=data.fingerprint,
            )
        return {**facts, "trained_here": not all(teacher.trained for teacher in teachers)}


def unasked(experiment: Experiment) -> Experiment:
    """Return the experiment with a stand-in for a teacher whose answers have a price, so that a trial costs nothing."""
    if experiment.answers is None:
        return experiment
    return replace(experiment, answers=rehearsed(experiment.answers, experiment.data.num_classes))


def _build(choice: Choice, experiment: Experiment, run: DryRun) -> None:
    try:
        experiment.execute(choice, run)
    except UserError as error:
        raise UserError(f"{choice.label}: {error}") from error


def _named(plans: Sequence[Blueprint]) -> str:
    """Return the names of networks, each once with its count: `5 × resnet20`."""
    counts = Counter(plan.name for plan in plans)
    return " + ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())


def _digest(identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]
