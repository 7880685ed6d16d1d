"""The page of `tutelage doctor`: problems of a training, found before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tutelage.core.teachers.stand_in import rehearsed
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.dataset import Data
from tutelage.experiments.choice import Choice
from tutelage.experiments.doctor.cost import peak_memory
from tutelage.experiments.doctor.losses import far_apart
from tutelage.experiments.doctor.rehearsal import Rehearsal, Stage
from tutelage.experiments.doctor.teacher import TeacherReport, examine_recording, examine_teacher
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import answers_as_asked
from tutelage.recording.replay import name_of
from tutelage.training.settings import Training

# The most classes that a warning lists.
PAIRS_SHOWN = 4


def examine(choice: Choice, experiment: Experiment, training: Training) -> RenderableType:
    """Return what is known before training: the teacher, the networks, the losses, time and memory.

    The stages of a recipe are examined one after the other. Nothing is written.

    Args:
        choice: The method and its hyper-parameters.
        experiment: Data and networks.
        training: The settings.

    Raises:
        UserError: If the method needs a teacher and there is none, or anything does not fit.
    """
    run = Rehearsal(training)
    experiment, teacher = _teacher(choice, experiment, run)
    experiment.execute(choice, run)
    # The teacher first: what is wrong with it explains the rest.
    warnings = [*_teacher_warnings(teacher, experiment.data)] if isinstance(teacher, TeacherReport) else []
    for stage in run.stages:
        warnings += _stage_warnings(stage, experiment.data.num_classes)
    parts: list[RenderableType] = [_heading(choice, experiment.data), *map(Text, experiment.notes)]
    if teacher is not None:
        parts.append(_teacher_text(teacher) if isinstance(teacher, TeacherReport) else Text(teacher))
    for stage in run.stages:
        parts += ["", *_stage_parts(stage)]
    return Group(*parts, "", _total(run.stages), "", *_verdict(warnings))


def _teacher(choice: Choice, experiment: Experiment, run: Rehearsal) -> tuple[Experiment, TeacherReport | str | None]:
    """Return the experiment with its teacher, and a report about it: measured, in words, or None without one."""
    needs, data = choice.fixtures & {"teacher", "make_teacher"}, experiment.data
    name = " + ".join(teacher.name for teacher in experiment.teachers)
    if "teacher" not in needs:
        return experiment, f"Teacher  {name}: the method trains it itself." if needs and name else None
    answers = experiment.answers or experiment.train_teacher(run)
    experiment = replace(experiment, answers=answers)
    # Nothing is known of a teacher that has learned nothing yet.
    if not all(teacher.trained for teacher in experiment.teachers):
        return (
            experiment,
            f"Teacher  {name} is untrained: it will be trained first. What follows is measured before that.",
        )
    if answers.priced():
        return _rehearsed(experiment, answers)
    recording = answers.replays()
    if recording is not None:
        unread = "not measured, because it has no answers, or a view is too large to read for this."
        return experiment, examine_recording(recording, data) or f"Teacher  {name_of(recording)}: {unread}"
    network = answers.as_network()
    if network is None:
        return experiment, "Teacher  as given; what it knows was not measured."
    if not answers_as_asked(network, data):
        return experiment, "Teacher  it has other classes than the data, or none: only its layers can teach."
    return experiment, examine_teacher(network, data)


def _rehearsed(experiment: Experiment, teacher: Teacher) -> tuple[Experiment, str]:
    """Return the experiment with a stand-in for a teacher whose answers have a price, and a text about it."""
    stand_in = rehearsed(teacher, experiment.data.num_classes)
    return replace(experiment, answers=stand_in), (
        "Teacher  its answers have a price, so it was not asked. Made-up answers stand for its own: the values and "
        "pulls below are rough, and the time that it takes is not in the estimate."
    )


def _heading(choice: Choice, data: Data) -> Text:
    counts = ", ".join(f"{data.count(split)} {split}" for split in ("train", "validation", "test"))
    text = f"{choice.label} on {data.name}"
    # Numbers of a task without classes are called outputs.
    what = "classes" if "classes" in data.task.offers else "outputs"
    return Text.assemble((text, "bold"), f"  {data.task.title}, {counts}, {data.num_classes} {what}")


def _teacher_text(report: TeacherReport) -> Text:
    style = "bold red" if report.at_chance else "yellow" if report.too_few else "green"
    asked = "recorded training views" if report.recording else f"{report.split} samples"
    text = Text.assemble(
        "Teacher  ",
        f"{report.recording}: " if report.recording else "",
        (f"{report.accuracy:.1%}", style),
        f" right on {report.samples} {asked}; a guess is right on {report.chance:.1%}",
        ": too few to tell" if report.too_few else "",
    )
    if report.alternatives:
        others = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in report.alternatives.items())
        text.append(f"\n         with the input statistics {report.normalization}; under others: {others}", "dim")
    return text


def _teacher_warnings(report: TeacherReport, data: Data) -> Iterator[str]:
    causes = []
    # Both faults can hold at once, so both are told.
    if report.better:
        causes.append(
            f"Its input statistics are wrong: {report.accuracy:.1%} with {report.normalization}, "
            f"{report.alternatives[report.better]:.1%} with {report.better}. Name it with normalize={report.better}."
        )
    if report.reordered is not None:
        remedy = (
            "Put the rows of the recorded network's classifier in the order of the data's classes, and record again"
            if report.recording
            else "Reorder the rows of its classifier, or the labels"
        )
        causes.append(
            f"Its classes are in another order: {report.reordered:.1%} in the right one. "
            f"{_pairs(report.order, data.class_names)}. {remedy}."
        )
    if report.too_few:
        asked = "recorded views" if report.recording else f"{report.split} samples"
        yield (
            f"{report.samples} {asked} are too few to tell a teacher from a guess: hold out more with --validation, or "
            f"measure it on more with `tutelage evaluate`. {' '.join(causes)}".rstrip()
        )
    elif report.at_chance:
        doubt = f"it answers with {report.answered} of {report.num_classes} classes"
        yield (
            f"THE TEACHER GUESSES: {report.accuracy:.1%} on {report.samples} samples is no better than chance "
            f"({doubt}). " + (" ".join(causes) or _other_causes(report))
        )
    else:
        yield from (f"The teacher is right on {report.accuracy:.1%}, and could do better. {cause}" for cause in causes)


def _other_causes(report: TeacherReport) -> str:
    if report.recording:
        return "Check the teacher itself: `tutelage doctor kd --teacher ...`, with the network that was recorded."
    tried = f" ({', '.join([report.normalization, *report.alternatives])} give no more)" if report.alternatives else ""
    return (
        f"Neither common input statistics{tried} nor another order of classes explains it. Probably its classifier "
        "is new or belongs to another dataset, or its weights were not loaded: give trained weights as NAME@FILE."
    )


def _pairs(order: Sequence[int], names: Sequence[str]) -> str:
    moved = [(label, answer) for label, answer in enumerate(order) if label != answer]
    shown = ", ".join(f"{names[answer]!r} for {names[label]!r}" for label, answer in moved[:PAIRS_SHOWN])
    more = f" and {len(moved) - PAIRS_SHOWN} more" if len(moved) > PAIRS_SHOWN else ""
    return f"It says {shown}{more}"


def _stage_warnings(stage: Stage, num_classes: int) -> Iterator[str]:
    for gap in far_apart(stage.terms):
        before = "" if gap.weighted else " before their weights"
        weak = "the labels hardly count" if gap.weak.name == "ce" else "it hardly counts"
        # A term far weaker than the labels' is often divided by the number of classes by mistake.
        advice = (
            f"is it divided by the {num_classes} classes on purpose? Otherwise check its temperature and its weight, "
            f"{gap.weak.weight:.3g}."
            if gap.strong.name == "ce"
            else f"{weak} at first; if accuracy stays low, lower the weight of {gap.strong.name}, "
            f"{gap.strong.weight:.3g}."
        )
        yield f"{stage.name}: {gap.weak.name} pulls 1/{gap.ratio:,.0f} as hard as {gap.strong.name}{before}; {advice}"


def _stage_parts(stage: Stage) -> list[RenderableType]:
    title = Text.assemble(
        (f"Stage {stage.name}", "bold"), f"  {stage.epochs} epochs of {stage.steps} batches.  {stage.decision}"
    )
    time = Text(f"{stage.step_seconds * 1000:.0f} ms a batch, {_duration(stage.seconds)} in all.  {_memory(stage)}")
    if stage.rehearsed is not None:
        time.append(
            f"\nA batch takes long, so the losses are those of {stage.rehearsed} samples, and the rest is counted up."
        )
    tables = [_networks(stage), *([_layers(stage)] if stage.pairs else []), _terms(stage)]
    return [title, *(Padding(table, (0, 0, 0, 2)) for table in tables), Padding(time, (0, 0, 0, 2))]


def _networks(stage: Stage) -> Table:
    table = _table("network", "parameters", "multiply-adds", "answer", "")
    for network in stage.networks:
        table.add_row(
            network.name,
            f"{network.size.parameters:,}",
            f"{network.size.multiply_adds / 1e6:,.1f} M",
            "x".join(map(str, network.shape)),
            "trained" if network.trained else "frozen",
        )
    return table


def _layers(stage: Stage) -> Table:
    table = _table("layer of the student", "map", "layer of the teacher", "map", left=(0, 2))
    for pair in stage.pairs:
        shapes = ["x".join(map(str, (tap.channels, *tap.size))) for tap in (pair.student, pair.teacher)]
        table.add_row(pair.student.layer, shapes[0], pair.teacher.layer, shapes[1])
    return table


def _terms(stage: Stage) -> Table:
    table = _table("loss", "value", "weight", "weighted", "pull", "share of the pull")
    for term in stage.terms:
        # Shares within an update's optimizer: terms of others do not compete.
        whole = sum(other.pull for other in stage.terms if other.optimizer == term.optimizer)
        table.add_row(
            term.name if term.optimizer == "student" else f"{term.optimizer}/{term.name}",
            f"{term.value:.4g}",
            f"{term.weight:.3g}",
            f"{term.weight * term.value:.4g}",
            f"{term.pull:.3g}",
            f"{term.pull / whole:.1%}" if whole else "none",
        )
    return table


def _table(*columns: str, left: Sequence[int] = (0,)) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, column in enumerate(columns):
        is_text = position in left
        # On a narrow terminal, names are wrapped, and numbers are not.
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    return table


def _memory(stage: Stage) -> str:
    memory = stage.memory
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        **memory.terms,
    }
    return f"Memory {_size(memory.total)}: " + ", ".join(f"{name} {_size(size)}" for name, size in parts.items()) + "."


def _total(stages: Sequence[Stage]) -> Text:
    of, peak = peak_memory()
    seconds = sum(stage.seconds for stage in stages)
    return Text.assemble(
        "Estimate  ",
        (_duration(seconds), "bold"),
        f" for one seed, {len(stages)} training{'s' if len(stages) > 1 else ''}. "
        f"Most memory so far: {_size(peak)} ({of}, data included).",
    )


def _verdict(warnings: Sequence[str]) -> list[RenderableType]:
    if not warnings:
        return [Text("No problem was found.", "green")]
    return [Text.assemble(("warning  ", "bold red"), warning) for warning in warnings]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
