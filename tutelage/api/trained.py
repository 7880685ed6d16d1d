"""What trained networks are asked: scores, answers, and files that run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from tutelage.api.progress import reporter_of
from tutelage.data.criterion import Density
from tutelage.data.dataset import Data
from tutelage.data.novel import Novel
from tutelage.data.ood import foreign_data
from tutelage.data.reclassed import among
from tutelage.data.resolve import DataSource, resolve_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.evaluation.scores import Evaluation, evaluate_network
from tutelage.experiments.predicting import answer, question_of
from tutelage.exporting.export import export_network
from tutelage.exporting.target import target
from tutelage.exporting.verification import Verified
from tutelage.models.blueprint import Source, blueprint, check_classes, several
from tutelage.models.ensemble import Ensemble
from tutelage.models.saving import class_names_of, density_of
from tutelage.models.scores import tell_scores
from tutelage.models.tokenizers import encoded_for
from tutelage.system.chance import kept
from tutelage.system.devices import device_type


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
    splits, members = _measured(sources, splits, trust_code=trust_code)
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
    splits = _labelled(data, split, task=task, metric=metric)
    splits, [built] = _measured([network], splits, trust_code=trust_code)
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


def _measured(network: Sequence[Source], splits: Data, *, trust_code: bool) -> tuple[Data, list[nn.Module]]:
    """Return the data as trained networks read them, with the classes of the first one, and the networks."""
    splits = encoded_for(splits, network)
    first = network[0]
    splits = among(splits, (class_names_of(first) if isinstance(first, str) else None) or ())
    return splits, [_trained(source, splits, trust_code=trust_code) for source in network]


def _trained(network: Source, data: Data, *, trust_code: bool) -> nn.Module:
    plan = blueprint(network, data, trained=True, trust_code=trust_code)
    if not plan.trained:
        raise UserError(f"{plan.name} comes without weights for these classes. Name a run, or add @FILE.")
    # The seed has no effect: all weights are given.
    built = plan.build(0, "network")
    tell_scores(check_classes(built, data, who="network"), data.task, who="network")
    return built
