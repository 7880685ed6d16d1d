"""From a trained network to files that run without Tutelage: each is written, asked, scored, and only then kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.data.criterion import Density
from tutelage.data.dataset import Data
from tutelage.data.samples import Samples
from tutelage.data.split_names import TRAIN
from tutelage.errors import UserError
from tutelage.evaluation.scores import evaluate_network
from tutelage.exporting.target import Subject, Target
from tutelage.exporting.verification import Judged, Verified, batches_of, some_of, verify
from tutelage.models.copies import copy_of
from tutelage.models.language import quiet
from tutelage.models.normalization import Normalization, Normalized, bare
from tutelage.models.tokenizers import tokenizer_of
from tutelage.system.console import Reporter, Silent
from tutelage.system.files import read_json, whole, write_json

EXPORTS = "export.json"
# Samples of an example, and of the calibration of eight bits: a batch of one would be taken for a fixed size.
_EXAMPLE, _CALIBRATION, _BATCH = 2, 256, 32


def export_network(
    network: nn.Module,
    data: Data,
    formats: Sequence[Target],
    *,
    out: Path,
    split: str = "test",
    density: Density = "categorical",
    reporter: Reporter | None = None,
) -> list[Verified]:
    """Write a network in several formats, and return what was found out about each file.

    What is written is asked about samples of the split, scored on all of it, and timed beside the network; then it is
    moved to its place, and the findings to `export.json`. A format that fails leaves nothing, and those before it stay.
    The tokenizer of a network of texts is written beside its files.

    Args:
        network: The trained network, with its input normalisation. It stays as it is: a copy in float32 is exported.
        data: The data it was trained for; formats in eight bits take their ranges from its training samples.
        formats: The formats.
        out: The folder to write to.
        split: The split to score on.
        density: What the network's logits are, as in `evaluate`.
        reporter: Who hears of the progress.

    Raises:
        UserError: If a format cannot be written for this network, or answers otherwise, or the task measures what a
            file does not answer.
    """
    if data.task.measures != "answer":
        raise UserError(
            f"The task {data.task.name} measures the {data.task.measures}, and a file answers what the network does: "
            "export with the task that the network's answers are for, such as classification."
        )
    reporter = reporter or Silent()
    network = copy_of(network).cpu().float().eval()
    with torch.no_grad():
        subject = _subject(network, data, split)
        reporter.note(f"scoring the network on {split}")
        own = evaluate_network(network, data, split, device="cpu", density=density).scores
        judged = Judged(data, split, own, density)
        found = [_one(one, subject, judged, out, reporter) for one in formats]
    tokenizer = tokenizer_of(bare(network))
    if tokenizer is not None:
        # Without it nobody could make the tokens that the files take.
        with quiet():
            tokenizer.save_pretrained(str(out))
    return found


def _one(form: Target, subject: Subject, judged: Judged, out: Path, reporter: Reporter) -> Verified:
    reporter.note(f"writing {form.filename}, and asking it")
    with whole(out / form.filename) as place:
        form.write(subject, place)
        exported = form.load(place)
        found = verify(exported, subject.network, judged, target=form.name, place=place, is_exact=form.is_exact)
        # Some libraries keep the file open, which would forbid the move on Windows.
        del exported
    known = read_json(out / EXPORTS) if (out / EXPORTS).is_file() else {}
    write_json(out / EXPORTS, known | {form.name: found.as_json()})
    return found


def _subject(network: nn.Module, data: Data, split: str) -> Subject:
    example = some_of(data, split, _EXAMPLE)
    statistics = network.normalization if isinstance(network, Normalized) else Normalization.named("none")
    # Who normalises by hand knows best how.
    range_ = "in the range of training" if statistics == Normalization.named("none") else "in [0, 1]"
    facts = {
        "task": data.task.name,
        # The graph normalises by itself, so that no caller has to know how.
        "inputs": "token tensors" if isinstance(example, dict) else f"images {range_}, {_shape(example)}",
        "normalization": f"within the network: {statistics}",
    }
    return Subject(
        network=network,
        example=example,
        calibration=_calibration(data, TRAIN if TRAIN in data.splits else split),
        class_names=tuple(data.class_names),
        facts=facts,
    )


def _calibration(data: Data, split: str) -> list[Any]:
    """Return batches of samples from all over a split, because the first ones are often of one class."""
    samples = data.splits[split]
    if isinstance(samples, Samples):
        places = torch.linspace(0, len(samples) - 1, min(_CALIBRATION, len(samples))).long().tolist()
        data = data.with_splits(**{split: samples.select(places)})
    return batches_of(data, split, _BATCH, _CALIBRATION)


def _shape(images: Any) -> str:
    return "[batch, " + ", ".join(map(str, images.shape[1:])) + "]"
