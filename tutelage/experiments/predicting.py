"""What networks answer to samples that need no labels: a table, or pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tutelage.data.asked import INDEX, Asked, Wanted, load_asked
from tutelage.data.batch import Batch
from tutelage.data.dataset import TEST, Data
from tutelage.data.glue import glue_task
from tutelage.data.names import parse_spec
from tutelage.data.own import as_samples
from tutelage.data.paired import PairedImages
from tutelage.data.samples import Samples
from tutelage.data.task import Task, task_named
from tutelage.errors import UserError
from tutelage.evaluation.scores import answers_of, measuring_loader
from tutelage.evaluation.written import TABLES, check_target, joined, picture_names, write_maps, write_table
from tutelage.models.answers import at_size
from tutelage.models.blueprint import Source, blueprint, check_takes
from tutelage.models.classes import own_classes
from tutelage.models.ensemble import Ensemble
from tutelage.models.saving import metadata_of
from tutelage.models.scores import tell_scores
from tutelage.models.spec import NetworkSpec
from tutelage.models.tokenizers import encoded_for
from tutelage.system.console import Reporter
from tutelage.system.devices import device_type


@dataclass(frozen=True)
class Question:
    """Samples, and the networks that are asked about them.

    Attributes:
        asked: The samples.
        data: The same samples as data, in the split `test`.
        network: The network, or an `Ensemble` of several.
        numbered: Whether a file for GLUE takes the numbers of the classes.
    """

    asked: Asked
    data: Data
    network: nn.Module
    numbered: bool = False


def question_of(
    sources: Sequence[Source],
    data: Any,
    *,
    task: str | None = None,
    split: str | None = None,
    image_size: int | None = None,
    trust_code: bool = False,
) -> Question:
    """Return what is to be answered, by which network.

    Args:
        sources: The network, or several that answer as an ensemble.
        data: A place by name, `Data`, or a dataset of the user's own.
        task: The task; by default the one that the run was trained for, or else classification.
        split: The split, for data by name and `Data`.
        image_size: The size of the images; by default the run's.
        trust_code: Whether saved networks may run the code that they name.

    Raises:
        UserError: If the data or a network cannot be found, or they do not fit each other.
    """
    if not sources:
        raise UserError("No network was given: pass one, or several as an ensemble.")
    metadata = metadata_of(sources[0]) if isinstance(sources[0], str) else None
    kind = task_named(task or (metadata and metadata.task) or "classification")
    if not kind.writes_answers:
        raise UserError(f"The answers of the task {kind.name!r} are not written to files: use the network itself.")
    wanted = Wanted(longest=image_size)
    if metadata is not None:
        wanted = Wanted(metadata.in_channels, tuple(metadata.input_size or ()), image_size)
    asked = _asked(data, kind, split, wanted)
    count, names = own_classes(NetworkSpec.parse(sources[0])) if isinstance(sources[0], str) else (0, ())
    found = encoded_for(_as_data(asked, kind, count, names), sources)
    first = _member(sources[0], found, own_classes=True, trust_code=trust_code)
    outputs = check_takes(first, found, who="network").shape[1]
    names = names if len(names) == outputs else tuple(map(str, range(outputs)))
    found = replace(found, num_classes=outputs, class_names=names)
    # The others' classes are brought into the order of the first one's.
    others = [_member(source, found, own_classes=False, trust_code=trust_code) for source in sources[1:]]
    members = [first, *others]
    for member in members:
        answer = check_takes(member, found, who="network")
        shape, samples = tuple(answer.shape), len(Batch(inputs=found.example(2)))
        kind.check_answer(shape, samples, outputs, who="network", data=found.name)
        tell_scores(answer, kind, who="network")
    network = members[0] if len(members) == 1 else Ensemble(members)
    known = glue_task(parse_spec(data).folder, names) if isinstance(data, str) else None
    return Question(asked, found, network, numbered=known is not None and known.numbered)


def answer(question: Question, out: Path | None, reporter: Reporter, *, overwrite: bool = False) -> dict[str, Any]:
    """Return a network's answers as columns, the first one the names of the samples; and write them.

    Args:
        question: The samples and the network.
        out: The file of a table, or the folder of pictures; None to write nothing.
        reporter: Shows the progress.
        overwrite: Whether what is at `out` may be replaced.

    Raises:
        UserError: If `out` cannot be written, or is missing for pictures.
    """
    task = question.data.task
    if out is None and task.has_maps:
        raise UserError("The answers are pictures: name a folder for them, out=...")
    if out is not None:
        check_target(out, is_table=not task.has_maps, overwrite=overwrite)
    asked, data = question.asked, question.data
    parts = answers_of(question.network, data, TEST, device=device_type("auto"))
    watched = _watched(parts, len(measuring_loader(data, TEST, "cpu")), reporter, f"answers to {asked.place}")
    if out is not None and task.has_maps:
        return _write_pictures(question, watched, out)
    names = data.class_names
    if out is not None and out.suffix.lower() == TABLES[1] and question.numbered:
        names = tuple(map(str, range(len(names))))
    columns = joined([(positions, task.answer_columns(said, names)) for positions, said in watched])
    found = {asked.column: _column(asked.names), **columns}
    if out is not None:
        write_table(out, found)
    return found


def _write_pictures(question: Question, parts: Iterator[tuple[Sequence[int], Any]], out: Path) -> dict[str, Any]:
    asked, task = question.asked, question.data.task
    files = picture_names(asked.names)

    def maps() -> Iterator[tuple[str, NDArray[Any]]]:
        for positions, said in parts:
            for position, one in zip(positions, said, strict=True):
                whole = one[None]
                if isinstance(asked.samples, PairedImages):
                    # In the size of the image's file, whatever the network saw.
                    whole = at_size(whole, asked.samples.size_at(position))
                yield files[position], task.answer_maps(whole)[0]

    write_maps(out, maps(), classes=question.data.class_names)
    return {asked.column: _column(asked.names), "prediction": _column([str(out / file) for file in files])}


def _watched(
    parts: Iterator[tuple[Sequence[int], Any]], total: int, reporter: Reporter, title: str
) -> Iterator[tuple[Sequence[int], Any]]:
    reporter.begin(title, total=total, done=0)
    finished = False
    try:
        for part in parts:
            yield part
            reporter.advance(1)
        finished = True
    finally:
        reporter.end(finished=finished)


def _asked(data: Any, task: Task, split: str | None, wanted: Wanted) -> Asked:
    if isinstance(data, str):
        return load_asked(data, task, split=split, wanted=wanted)
    if isinstance(data, Data):
        samples, name = data.split(split or TEST), data.name
    else:
        samples, name = as_samples(data, task), "data"
    if not isinstance(samples, Samples):
        raise UserError("A DataLoader has an order of its own: pass its dataset, whose samples are answered in order.")
    return Asked(samples.with_targets(None) if samples.has_targets else samples, INDEX, range(len(samples)), name)


def _as_data(asked: Asked, task: Task, outputs: int, names: tuple[str, ...]) -> Data:
    return Data(
        name=asked.place,
        splits={TEST: asked.samples},
        task=task,
        num_classes=outputs,
        class_names=names,
        in_channels=asked.samples.channels,
        image_size=asked.samples.size,
        fingerprint="",
        unlabelled=frozenset({TEST}),
    )


def _member(source: Source, data: Data, *, own_classes: bool, trust_code: bool) -> nn.Module:
    plan = blueprint(source, data, trained=True, own_classes=own_classes, trust_code=trust_code)
    if not plan.trained:
        raise UserError(f"{plan.name} comes without weights. Name a run, or add @FILE.")
    # The seed has no effect: all weights are given.
    return plan.build(0, "network")


def _column(values: Sequence[Any]) -> NDArray[Any]:
    return np.asarray(list(values), dtype=np.int64 if isinstance(values, range) else object)
