"""Train: one student by one method, or methods beside each other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.api.progress import reporter_of
from tutelage.core.method import DEPLOYED
from tutelage.core.teachers.class_map import TeacherClasses
from tutelage.core.teachers.combining import How, Together
from tutelage.core.teachers.naming import TeacherSource
from tutelage.data.novel import Novel
from tutelage.data.resolve import DataSource, resolve_data
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.assembly import baseline_of, experiment_of, seeds_of, split_settings
from tutelage.experiments.choice import Choice, check_options, parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.models.blueprint import Source, several
from tutelage.models.normalization import bare
from tutelage.models.saving import save_network
from tutelage.report.html import write_report
from tutelage.system.chance import kept
from tutelage.system.console import Reporter
from tutelage.system.signatures import same_arguments
from tutelage.training.loggers import LoggerSource, logged
from tutelage.training.run import MEMBERS, Run


@kept()
def distill_all(
    method: str,
    /,
    *,
    student: Source | Sequence[Source],
    data: DataSource,
    teacher: TeacherSource = None,
    teacher_classes: TeacherClasses | None = None,
    teachers: How = "mean",
    teacher_weights: Sequence[float] = (),
    queries: int | None = None,
    validation: DataSource | float | None = None,
    test: DataSource | None = None,
    task: str = "classification",
    metric: str | None = None,
    foreign: DataSource | None = None,
    unlabelled: DataSource | None = None,
    novel: Novel | None = None,
    augment: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    logger: LoggerSource | Sequence[LoggerSource] = (),
    trust_code: bool = False,
    **settings: Any,
) -> dict[str, nn.Module]:
    """Train as `distill` does, and return every network that can ship: peers that learn together, exits.

    Args:
        method: A name such as `kd` (see `tutelage methods`), or an import path `package.module:Class`.
        student: A module (a copy of it is trained), a factory, or a name such as `resnet20`; several for methods that
            train several.
        data: A dataset or loader of (input, target), or a name or path.
        teacher: A trained module, a `Teacher`, a `Recording`, or a name; several answer as an ensemble.
        teacher_classes: A file or a mapping from the classes of a trained teacher to those of the data.
        teachers: How several teachers answer together: `mean` (of their probabilities), `weighted` (a weighted mean of
            logits), `surest` (for each sample the teacher that is surest), or `label` (the one surest of its label).
        teacher_weights: Weights of the teachers, for `weighted`; the same for all by default.
        queries: How many samples the teacher may be asked about in all, if its answers have a price.
        validation: Data to choose the best epoch on, or the share of `data` to hold out for that; a tenth by default.
        test: Data that are only reported on.
        task: What the targets are: `classification`, `multi-label`, `regression`, `segmentation`, `depth`, `language`,
            `discovery` or `unlabelled`.
        metric: What chooses the best epoch and compares rows, such as `mcc` or `macro-f1`; further metrics, which are
            only measured, follow after `+`. By default the task's own, or GLUE's for its data.
        foreign: Data from elsewhere, which the networks' uncertainty should tell from the test images.
        unlabelled: Images without labels that are trained on beside the labelled ones, in the same forms as `data`.
        novel: For the task `discovery`, the novel classes: their number, or the names of those whose labels are hidden
            in training.
        augment: What is done to training images, such as `crop:4,flip`.
        out: Where to keep checkpoints, weights and the report; the networks beside the first are in
            `out/members/NAME`. Nothing is kept by default.
        seed: Seed of everything.
        progress: Whether to show progress.
        logger: Where every epoch's metrics are logged too: `tensorboard`, `csv`, `wandb` or `mlflow`, or a function
            from a training's name, such as `kd, seed 0: distill`, to a Lightning logger. Several are a list. What is
            written to files is in `out/logs`.
        trust_code: Whether saved networks and recordings may run the code that they name.
        **settings: Hyper-parameters of the method (`temperature=4.0`) and fields of `Training` (`epochs=30`).

    Returns:
        The networks in eval mode by name: `student`, which `distill` returns, then `student-2` or `exit-1` and so on.

    Raises:
        UserError: If anything does not fit; the message says what, and how to fix it.
        Interrupted: If Ctrl-C or SIGTERM came; with `out` the same call continues from there.

    Examples:
        >>> import tutelage
        >>> pair = ["tiny_cnn", "tiny_cnn,width=8"]
        >>> networks = tutelage.distill_all("dml", student=pair, data="digits", epochs=1, progress=False)
        >>> list(networks)
        ['student', 'student-2']
    """
    splits = resolve_data(
        data,
        validation=validation,
        test=test,
        task=task,
        metric=metric,
        foreign=foreign,
        unlabelled=unlabelled,
        novel=novel,
        augment=augment,
    )
    if logger and out is None:
        raise UserError("Logs are kept with the run: name a folder for it, out=..., or leave out logger=.")
    # A setting is the run's if `Training` has a field of that name, else the method's.
    training, options = split_settings(settings, [method])
    entry = catalogue.get(method)
    choice = Choice(entry, check_options(entry, options))
    with ExitStack() as stack:
        # Without `out` the stages still need a place, which is gone after the call.
        folder = Path(out) if out else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tutelage-")))
        comparison = Comparison(
            choices=[choice],
            experiment=experiment_of(
                student,
                teacher,
                splits,
                teacher_classes=teacher_classes,
                together=Together(teachers, tuple(teacher_weights)),
                queries=queries,
                trust_code=trust_code,
            ),
            training=training,
            teacher_training=training,
            seeds=[seed],
            folder=folder,
            baseline=choice.label,
            title=f"{entry.title}: {splits.name}",
            command=f"tutelage.distill({method!r}, ...)",
            strict=True,
        )
        networks = distill_into(comparison, logged(reporter_of(progress), logger, folder))
    # A user's own module comes back as it was given; a network by name keeps its normalisation, which belongs to it.
    by_name = any(isinstance(source, str) for source in several(student))
    return {name: network if by_name else bare(network) for name, network in networks.items()}


@same_arguments(distill_all)
def distill(*args: Any, **arguments: Any) -> nn.Module:  # noqa: D417 - the documented arguments are those of `distill_all`
    """Train a student by a method and return it, in eval mode, with the weights of its best validation epoch.

    Args:
        method: A name such as `kd` or `tf-kd-self` (see `tutelage methods`), or an import path `package.module:Class`.
        student: A module (a copy of it is trained), a factory, or a name such as `resnet20`. Several for methods that
            train several.
        data: A map-style dataset or loader of (image, label), or a name or path as on the command line. Float tensors
            reach a module as they are; a network by name gets its own normalisation.
        teacher: A trained module, a `Teacher`, or a name; a name that comes without weights is trained first. Several
            modules or names answer as an ensemble. A `Recording`, or `recording:PATH`, is replayed in its place.
        teacher_classes: For a trained teacher of other classes than the data's: a file or a mapping from its classes
            to the data's, by name or number.
        teachers: How several teachers answer together: `mean` (of their probabilities), `weighted` (a weighted mean of
            logits), `surest` (for each sample the teacher that is surest), or `label` (the one surest of its label).
        teacher_weights: Weights of the teachers, for `weighted`; the same for all by default.
        queries: How many samples the teacher may be asked about in all, if its answers have a price.
        validation: Data to choose the best epoch on, or the share of `data` to hold out for that; a tenth by default.
        test: Data that are only reported on.
        task: What the targets are: `classification`, `multi-label`, `regression`, `segmentation`, `depth`, `language`,
            `discovery`; or `unlabelled`, to learn from inputs and a teacher alone.
        metric: What chooses the best epoch and compares rows, such as `mcc` or `macro-f1`; further metrics, which are
            only measured, follow after `+`. By default the task's own, or GLUE's for its data.
        foreign: Data from elsewhere, whose images the networks' uncertainty should tell from the test images.
        unlabelled: Images without labels that are trained on beside the labelled ones, in the same forms as `data`.
        novel: For the task `discovery`, the novel classes: their number, or the names of those whose labels are hidden
            in training.
        augment: What is done to training images, such as `crop:4,flip`, on top of a dataset's own transforms; by
            default what is usual for data by name, and nothing for a dataset.
        out: Where to keep checkpoints, weights and the report; nothing is kept by default.
        seed: Seed of everything.
        progress: Whether to show progress.
        logger: Where every epoch's metrics are logged too: `tensorboard`, `csv`, `wandb` or `mlflow`, or a function
            from a training's name, such as `kd, seed 0: distill`, to a Lightning logger. Several are a list. What is
            written to files is in `out/logs`.
        trust_code: Whether saved networks and recordings may run the code that they name, though you never named that
            code yourself.
        **settings: Hyper-parameters of the method (`temperature=4.0`) and fields of `Training` (`epochs=30`).

    Raises:
        UserError: If anything does not fit; the message says what, and how to fix it.
        Interrupted: If Ctrl-C or SIGTERM came; with `out` the same call continues from there.

    Examples:
        >>> import tutelage
        >>> student = tutelage.distill("tf-kd-reg", student="tiny_cnn", data="digits", epochs=1, progress=False)
        >>> sum(p.numel() for p in student.parameters()) > 1000
        True
    """
    return next(iter(distill_all(*args, **arguments).values()))


@kept()
def compare(
    methods: Sequence[str],
    *,
    student: Source | Sequence[Source],
    data: DataSource,
    teacher: TeacherSource = None,
    teacher_classes: TeacherClasses | None = None,
    teachers: How = "mean",
    teacher_weights: Sequence[float] = (),
    queries: int | None = None,
    validation: DataSource | float | None = None,
    test: DataSource | None = None,
    task: str = "classification",
    metric: str | None = None,
    foreign: DataSource | None = None,
    unlabelled: DataSource | None = None,
    novel: Novel | None = None,
    augment: str | None = None,
    seeds: int | Sequence[int] = 3,
    baseline: str | None = None,
    out: str | Path = "runs/comparison",
    progress: bool = True,
    logger: LoggerSource | Sequence[LoggerSource] = (),
    trust_code: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train a student by several methods under several seeds, and return the table with paired differences.

    Writes `comparison.json` and `report.html` into `out`. What is finished there is never run again.

    Args:
        methods: The rows: names, each with options of its own if wanted, such as `kd:temperature=20`.
        student: A module (a copy of it is trained), a factory, or a name such as `resnet20`; several for methods that
            train several.
        data: A dataset or loader of (input, target), or a name or path.
        teacher: A trained module, a `Teacher`, a `Recording`, or a name; several answer as an ensemble.
        teacher_classes: A file or a mapping from the classes of a trained teacher to those of the data.
        teachers: How several teachers answer together: `mean` (of their probabilities), `weighted` (a weighted mean of
            logits), `surest` (for each sample the teacher that is surest), or `label` (the one surest of its label).
        teacher_weights: Weights of the teachers, for `weighted`; the same for all by default.
        queries: How many samples the teacher may be asked about in all, if its answers have a price.
        validation: Data to choose the best epoch on, or the share of `data` to hold out for that; a tenth by default.
        test: Data that are only reported on.
        task: What the targets are: `classification`, `multi-label`, `regression`, `segmentation`, `depth`, `language`,
            `discovery` or `unlabelled`.
        metric: What chooses the best epoch and compares rows, such as `mcc` or `macro-f1`; further metrics, which are
            only measured, follow after `+`. By default the task's own, or GLUE's for its data.
        foreign: Data from elsewhere, which the networks' uncertainty should tell from the test images.
        unlabelled: Images without labels that are trained on beside the labelled ones, in the same forms as `data`.
        novel: For the task `discovery`, the novel classes: their number, or the names of those whose labels are hidden
            in training.
        augment: What is done to training images, such as `crop:4,flip`.
        seeds: How many, or which.
        baseline: The row that the others are compared with; `supervised` where it is among them, else the first.
        out: Where everything goes.
        progress: Whether to show progress.
        logger: Where every epoch's metrics are logged too: `tensorboard`, `csv`, `wandb` or `mlflow`, or a function
            from a training's name, such as `kd, seed 0: distill`, to a Lightning logger. Several are a list. What is
            written to files is in `out/logs`.
        trust_code: Whether saved networks and recordings may run the code that they name.
        **settings: Fields of `Training`.

    Raises:
        UserError: If anything does not fit.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.
    """
    splits = resolve_data(
        data,
        validation=validation,
        test=test,
        task=task,
        metric=metric,
        foreign=foreign,
        unlabelled=unlabelled,
        novel=novel,
        augment=augment,
    )
    training, unknown_settings = split_settings(settings, [])
    # Without methods to ask, anything else has been refused.
    assert not unknown_settings
    choices = [parse_choice(text) for text in methods]
    comparison = Comparison(
        choices=choices,
        experiment=experiment_of(
            student,
            teacher,
            splits,
            teacher_classes=teacher_classes,
            together=Together(teachers, tuple(teacher_weights)),
            queries=queries,
            trust_code=trust_code,
        ),
        training=training,
        teacher_training=training,
        seeds=seeds_of(seeds),
        folder=Path(out),
        baseline=baseline_of(choices, baseline),
        command=f"tutelage.compare({list(methods)!r}, ...)",
    )
    return compare_into(comparison, logged(reporter_of(progress), logger, comparison.folder))


def distill_into(comparison: Comparison, reporter: Reporter) -> dict[str, nn.Module]:
    """Run a comparison of one row, leave its networks in its folder, and return them, the deployed one first."""
    finished: list[tuple[nn.Module, Run]] = []
    content = comparison.run(reporter, take=lambda network, run: finished.append((network, run)))
    write_report(content, comparison.folder / "report.html")
    # One row and one seed. A failure would have been raised, because such a comparison is strict.
    [(network, run)] = finished
    data = comparison.experiment.data
    save_network(
        comparison.folder,
        network,
        spec=getattr(network, "spec", None),
        num_classes=data.num_classes,
        in_channels=data.in_channels,
        class_names=data.class_names,
        input_size=data.image_size,
        density=run.fitted[-1].density,
        task=data.task.name,
    )
    # Those of an earlier run into the same folder, whose first network was just replaced.
    shutil.rmtree(comparison.folder / MEMBERS, ignore_errors=True)
    for name, folder in run.member_folders().items():
        shutil.copytree(folder, comparison.folder / MEMBERS / name, dirs_exist_ok=True)
    return {DEPLOYED: network, **run.members}


def compare_into(comparison: Comparison, reporter: Reporter) -> dict[str, Any]:
    """Run a comparison and write its report."""
    content = comparison.run(reporter)
    write_report(content, comparison.folder / "report.html")
    return content
