"""What one call does: distill, compare, evaluate, predict, synthesize. The command line calls the same functions."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from tutelage.core.method import DEPLOYED
from tutelage.core.teachers import Teacher
from tutelage.core.teachers.class_map import TeacherClasses
from tutelage.core.teachers.combining import How, Together
from tutelage.core.teachers.naming import TeacherSource
from tutelage.data.criterion import Density
from tutelage.data.dataset import Data
from tutelage.data.novel import Novel
from tutelage.data.ood import foreign_data
from tutelage.data.reclassed import among
from tutelage.data.resolve import DataSource, resolve_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError, unknown
from tutelage.evaluation.scores import Evaluation, evaluate_network
from tutelage.experiments import catalogue
from tutelage.experiments.assembly import baseline_of, experiment_of, seeds_of, split_settings
from tutelage.experiments.choice import Choice, check_options, parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.predicting import answer, question_of
from tutelage.exporting.export import export_network
from tutelage.exporting.target import target
from tutelage.exporting.verification import Verified
from tutelage.models.blueprint import Source, blueprint, check_classes, several
from tutelage.models.ensemble import Ensemble
from tutelage.models.normalization import bare
from tutelage.models.saving import class_names_of, density_of, save_network
from tutelage.models.scores import tell_scores
from tutelage.models.tokenizers import encoded_for
from tutelage.report.html import write_report
from tutelage.report.search import write_search_page
from tutelage.searching.search import Search
from tutelage.searching.settings import SearchSettings
from tutelage.synthesis import writing as synthesis
from tutelage.system.chance import kept
from tutelage.system.console import Reporter, Silent, Terminal
from tutelage.system.devices import device_type
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


@kept()
def evaluate(
    network: Source | Sequence[Source],
    *,
    data: DataSource,
    split: str = "test",
    task: str = "classification",
    metric: str | None = None,
    novel: Novel | None = None,
    foreign: DataSource | None = None,
    density: Density | None = None,
    trust_code: bool = False,
) -> Evaluation:
    """Return a network's scores on a split of the data, in float32, and how good its uncertainty is.

    Args:
        network: A module, a factory, or a name such as `runs/kd` or `resnet20@weights.pth`. Several are an ensemble.
        data: A dataset or loader of (image, label), measured whole; or a name or path as on the command line.
        split: Of data by name: `train`, `validation` or `test`.
        task: What the targets are: `classification`, `multi-label`, `regression`, `segmentation`, `depth`, `language`,
            `discovery` or `unlabelled`.
        metric: What is measured first, such as `mcc` or `macro-f1`; further metrics follow after `+`. By default the
            task's own, or GLUE's for its data.
        novel: For the task `discovery`, the number of novel classes, or their names.
        foreign: Data from elsewhere, in the same forms, which the uncertainty should tell from the data: a dataset is
            measured whole, of data by name the test split, in the size and the channels of `data`.
        density: What the logits of one network are; a run's folder says so itself, anything else is `categorical`.
        trust_code: Whether a run may execute the code that its `network.json` names, though you never named that code
            yourself.

    Raises:
        UserError: If the data have no such split, or the classes differ.
    """
    splits = _labelled(data, split, task=task, metric=metric, novel=novel)
    if foreign is not None:
        splits = replace(splits, foreign=foreign_data(foreign, splits))
    sources = several(network)
    if not sources:
        raise UserError("No network was given: pass one, or several as an ensemble.")
    splits = encoded_for(splits, sources)
    splits = among(splits, (class_names_of(sources[0]) if isinstance(sources[0], str) else None) or ())
    members = [_trained(source, splits, trust_code=trust_code) for source in sources]
    one = members[0] if len(members) == 1 else Ensemble(members)
    # What the user says wins over what the folder says.
    kind = density or (density_of(sources[0]) if isinstance(sources[0], str) else "categorical")
    return evaluate_network(one, splits, split, device=device_type("auto"), density=kind)


@kept()
def predict(
    network: Source | Sequence[Source],
    *,
    data: DataSource,
    out: str | Path | None = None,
    split: str | None = None,
    task: str | None = None,
    image_size: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    trust_code: bool = False,
) -> dict[str, NDArray[Any]]:
    """Return what a network answers to samples with or without labels, and write it.

    Args:
        network: A module, a factory, or a name such as `runs/kd`. Several answer as an ensemble.
        data: A folder of images in any order, one image, a table of images or texts, a dataset; labels are not needed,
            and not read.
        out: A file `.csv` or `.parquet` of predictions and probabilities; `.tsv` of predictions alone, as GLUE takes
            them; or for masks, a folder for PNG files.
        split: Of data with splits: `test` by default.
        task: What is predicted; by default what the run was trained for, or else `classification`.
        image_size: The size to which images are resized; by default that of the run's images. Of images with masks, the
            longer side; by default they keep their size.
        overwrite: Whether what is at `out` may be replaced.
        progress: Whether to show progress.
        trust_code: Whether a run may execute the code that its `network.json` names, though you never named that code
            yourself.

    Returns:
        Columns in the order of the samples: `file` or `index`, `prediction`, and for classes `p_NAME`, the probability
        of each. For masks, `prediction` is the PNG file.

    Raises:
        UserError: If anything does not fit, or something is at `out` already.

    Examples:
        >>> import tutelage
        >>> student = tutelage.distill("supervised", student="tiny_cnn", data="digits", epochs=1, progress=False)
        >>> list(tutelage.predict(student, data="digits", progress=False))[:3]
        ['index', 'prediction', 'p_0']
    """
    target = None if out is None else Path(out)
    question = question_of(several(network), data, task=task, split=split, image_size=image_size, trust_code=trust_code)
    return answer(question, target, reporter_of(progress), overwrite=overwrite)


@kept()
def export(
    network: Source,
    *,
    to: str | Sequence[str],
    data: DataSource,
    out: str | Path | None = None,
    split: str = "test",
    task: str = "classification",
    metric: str | None = None,
    progress: bool = True,
    trust_code: bool = False,
) -> dict[str, Verified]:
    """Write a trained network to files that run without Tutelage, each checked and scored on real samples.

    A file is asked about samples of the split, scored on all of it, and timed beside the network. Where a format
    computes in the network's precision and its answers differ, nothing is kept. The findings are in `export.json`.
    Inputs are normalised within the file, batches may have any size, and the class names travel with it.

    Args:
        network: A module, a factory, or a name such as `runs/kd`.
        to: The formats: `onnx`, `onnx-int8` (eight bits, with ranges from training samples), `openvino`, `pt2`
            (`torch.export`), `timm` (networks of timm). Several are a list, or joined by `+`.
        data: The data that the network was trained for, as in `evaluate`.
        out: The folder to write to; by default `export` in the run's folder.
        split: The split of the samples.
        task: What the targets are.
        metric: What is measured first, as in `evaluate`.
        progress: Whether to show progress.
        trust_code: Whether a run may execute the code that its `network.json` names, though you never named that code
            yourself.

    Returns:
        What was found out about each file, by format.

    Raises:
        UserError: If a format does not exist or its packages are missing, if the network cannot be written so, with the
            operator or the branch that forbids it, or if the file answers otherwise.
    """
    names = to.split("+") if isinstance(to, str) else list(to)
    if out is None and not (isinstance(network, str) and Path(network).is_dir()):
        raise UserError("Say where to write: --out FOLDER (out=). Only of a saved run is there a folder for it.")
    formats = [target(name) for name in dict.fromkeys(name.strip() for name in names)]
    splits = encoded_for(_labelled(data, split, task=task, metric=metric), [network])
    splits = among(splits, (class_names_of(network) if isinstance(network, str) else None) or ())
    built = _trained(network, splits, trust_code=trust_code)
    place = Path(out) if out is not None else Path(str(network)) / "export"
    kind = density_of(network) if isinstance(network, str) else "categorical"
    reporter = reporter_of(progress)
    found = export_network(built, splits, formats, out=place, split=split, density=kind, reporter=reporter)
    return {one.target: one for one in found}


def _labelled(data: DataSource, split: str, *, task: str, metric: str | None, novel: Novel | None = None) -> Data:
    """Return data that can be measured on a split: whole datasets, or data by name with that split."""
    if isinstance(data, str | Data):
        splits = resolve_data(data, task=task, metric=metric, novel=novel)
    elif novel is not None:
        raise UserError("Novel classes of a dataset cannot be told from its samples alone: pass data by name, or Data.")
    else:
        splits = resolve_data(as_data(data, test=data, task=task, for_training=False), metric=metric)
    # Refuses a split that does not exist, before any network is built.
    splits.split(split)
    if split in splits.unlabelled:
        raise UserError(f"The {split} split of {splits.name} has no targets, so nothing can be measured.")
    return splits


def _trained(network: Source, data: Data, *, trust_code: bool) -> nn.Module:
    plan = blueprint(network, data, trained=True, trust_code=trust_code)
    if not plan.trained:
        raise UserError(f"{plan.name} comes without weights for these classes. Name a run, or add @FILE.")
    # The seed has no effect: all weights are given.
    built = plan.build(0, "network")
    tell_scores(check_classes(built, data, who="network"), data.task, who="network")
    return built


@kept()
def search(
    space: str,
    *,
    data: DataSource,
    teacher: TeacherSource = None,
    validation: DataSource | float | None = None,
    task: str = "classification",
    out: str | Path = "runs/search",
    progress: bool = True,
    trust_code: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Look for a student in a space of networks by scores that need no training.

    Writes `search.json` and `search.html` into `out`; what is scored there is never scored again. The best network is
    then trained as `student="found:OUT"`.

    Args:
        space: A network with ranges of options, such as `resnet_by_stage,stage1=1|3|5,stage2=1..7,stage3=1..7`,
            `timm:vit_tiny_patch16_224,depth=4..12,embed_dim=96|192` or `module:factory,width=8|16|32`; or `s0`.
        data: A dataset or loader of (input, target), or a name or path; one batch of it is used.
        teacher: The network with which candidates are compared: a module, a factory or a name. Its weights are not
            used, unless the score asks for them.
        validation: Validation data, or the share of the training samples that is held out for it.
        task: What the targets are, as for `distill`.
        out: Where everything goes.
        progress: Whether to show progress.
        trust_code: Whether a saved teacher may run the code that it names.
        **settings: Fields of `SearchSettings`, such as `limit="params=0.5M"`, `candidates=500` or `workers=2`.

    Returns:
        The content of `search.json`; its `best` are the best networks, each with its score and size.

    Raises:
        UserError: If anything does not fit, or no network of the space can be scored.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.

    Examples:
        >>> import tutelage
        >>> space = "resnet_by_stage,width=4,stage1=1|2|3"
        >>> found = tutelage.search(space, teacher="resnet20,width=4", data="digits", out=folder, progress=False)
        >>> len(found["best"])
        3
    """
    known = [field.name for field in fields(SearchSettings)]
    for name in settings:
        if name not in known:
            raise unknown("setting", name, known)
    wanted = Search.of(
        space,
        teacher,
        resolve_data(data, validation=validation, task=task),
        SearchSettings(**settings),
        folder=Path(out),
        command=f"tutelage.search({space!r}, ...)",
        trust_code=trust_code,
    )
    return search_into(wanted, reporter_of(progress))


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


def search_into(wanted: Search, reporter: Reporter) -> dict[str, Any]:
    """Run a search and write its page."""
    content = wanted.run(reporter)
    write_search_page(content, wanted.folder / "search.html")
    return content


def synthesize(
    teacher: Source | Teacher,
    *,
    out: str | Path,
    scheme: str = "bn-statistics+inception",
    per_class: int = 20,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    normalize: str | None = None,
    weights: Mapping[str, float] | None = None,
    rival: Source | None = None,
    part: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **settings: Any,
) -> Path | None:
    """Make a dataset of images from a trained network alone, which every other call takes as its data.

    The folder gets Parquet files in `data/`, `contact-sheet.png`, `losses.png`, and `synthesis.json` with everything
    that the images depend on. The same call continues after an interruption.

    Args:
        teacher: A trained network: a module, a run's folder, or a name with weights.
        out: The folder.
        scheme: What the images are made to do: `gaussian` (nothing, they are noise), `inception` (the network is sure
            of a class), `bn-statistics` (the inputs of its batch norms have the statistics that it remembers),
            `bn-statistics+inception` (both), or `deepinversion`.
        per_class: How many images there are for each class.
        classes: The network's number of classes, where it does not tell.
        channels: Channels of its images, where it does not tell; 3 by default.
        image_size: Side of its images in pixels; a saved run tells it.
        normalize: Input statistics of a module, such as `cifar10`; networks by name have their own.
        weights: Weights of the scheme's losses, such as `{"smoothness": 20}`.
        rival: A student that should disagree with the teacher, for `weights={"competition": 1}` of `deepinversion`.
        part: Which share of the batches to make, such as `2/4`, if several processes share the folder.
        device: `auto`, `cpu`, `cuda` or `mps`.
        threads: Processor threads to compute with.
        progress: Whether to show progress.
        trust_code: Whether a saved network may run the code that it names.
        **settings: Fields of `tutelage.synthesis.settings.Settings`: `iterations`, `optimizer`, `lr`, `direction`,
            `copies`, `augment`, `jitter`, `rounding`, `batch_size`, `snapshots`, `seed`.

    Returns:
        The folder; None if other parts are still at work.

    Raises:
        UserError: If anything does not fit, such as a network without batch norms.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.

    Examples:
        >>> import tutelage
        >>> net = tutelage.load_network("tiny_cnn", num_classes=3, in_channels=1)
        >>> facts = {"channels": 1, "image_size": 8, "normalize": "none"}
        >>> made = tutelage.synthesize(net, out=folder, per_class=4, iterations=2, progress=False, **facts)
        >>> tutelage.load_data(str(made), hold_out_test=False, validation=0).count("train")
        12
    """
    found = synthesis.synthesize(
        teacher,
        out=out,
        scheme=scheme,
        per_class=per_class,
        classes=classes,
        channels=channels,
        image_size=image_size,
        normalize=normalize,
        weights=weights,
        rival=rival,
        part=part,
        device=device,
        thread_count=threads,
        reporter=reporter_of(progress),
        trust_code=trust_code,
        **settings,
    )
    if not found.is_finished:
        return None
    # Late, because it imports matplotlib, which nothing else of a training needs.
    from tutelage.report.pictures import contact_sheet, loss_curves

    for shelf in found.shelves:
        contact_sheet(shelf.folder / "contact-sheet.png", shelf.preview())
        if any(curves := shelf.curves()):
            loss_curves(shelf.folder / "losses.png", curves)
    return found.shelf.folder


def reporter_of(progress: bool) -> Reporter:
    """Return a reporter that shows progress, or none."""
    return Terminal() if progress else Silent()
