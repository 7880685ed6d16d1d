"""Checks that a teacher repeats its answers: when asked twice, and when asked again about recorded views."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.batch import moved
from tutelage.data.dataset import Data
from tutelage.data.plan import RECORDED
from tutelage.errors import UserError
from tutelage.recording import layout, shards
from tutelage.recording.asking import Answers
from tutelage.recording.header import Header
from tutelage.recording.identity import read, spread, training_images
from tutelage.system.chance import generator

_PROBES = 16
# How much other kernels, machines and batches may change an answer, by precision. The first number is a share of the
# logits' deviation from their mean; the second, for rounding at the end, is a share of the logits themselves. Measured
# in resnet20 and vgg13: bfloat16 throughout changes 0.004 of the deviation; float16, as fine as TF32, changes 0.0006.
_ROUNDING = {"32-true": (0.005, 0.001), "16-mixed": (0.005, 0.001), "bf16-mixed": (0.03, 0.004)}
# Narrower bounds for asking twice: the same question in the same batch runs through the same kernels.
_REPEATED = {"32-true": 1e-4, "16-mixed": 2e-3, "bf16-mixed": 4e-3}
# Differences below these bounds are ignored: such classes have no effect on a student, and float16 rounds them off.
_LOWEST_LOGIT, _LOWEST_PROBABILITY = -100.0, 1e-5


def check_answers(
    folder: Path, header: Header, data: Data, answers: Answers, sound: Collection[tuple[int, int]]
) -> None:
    """Refuse a teacher whose answers are random, or differ from the recording in the folder.

    Equal weights do not prove equal answers. Teachers without weights, teachers that alter answers, and networks with
    other options can differ in their answers alone.

    Args:
        folder: Where the recording is, or will be.
        header: Its header. The teacher's weights and the data have been compared with it already.
        data: The data that are recorded.
        answers: The teacher.
        sound: Pairs of view and shard whose content has been verified.

    Raises:
        UserError: If the teacher's answers are random, or differ from recorded ones.
    """
    _check_repeated(header, data, answers)
    # A verified shard is used if there is one; otherwise shards are read until one proves complete.
    place = min(sound, default=None) or next(
        (
            (view, shard)
            for view in shards.views_present(folder)
            for shard in range(header.shards)
            if shards.state(folder, header, view, shard) == "complete"
        ),
        None,
    )
    if place is not None:
        _check_recorded(folder, header, data, answers, *place)


def _check_repeated(header: Header, data: Data, answers: Answers) -> None:
    indices = spread(header.samples, _PROBES)
    height, width = header.image_size
    # Views as they will be recorded; both questions are about the same ones.
    parameters = data.augmentation.sample(generator(header.seed, RECORDED), len(indices), (height, width))
    first, second = (_said(header, data, answers, indices, parameters) for _ in range(2))
    if _rms(second - first) > _REPEATED.get(header.precision, max(_REPEATED.values())) * _rms(first):
        raise UserError(
            "This teacher gives different answers to the same question, and a recording has one answer for each view: "
            "record it without its noise, and add noise when the recording is replayed."
        )


def _check_recorded(folder: Path, header: Header, data: Data, answers: Answers, view: int, shard: int) -> None:
    whole = shards.opened(folder, header, view, shard, verify=False)
    places = spread(len(whole), _PROBES)
    rows = whole[places]
    indices = [header.rows(shard)[place] for place in places]
    parameters = torch.from_numpy(rows[layout.PARAMETERS].astype(np.float32))
    said = _said(header, data, answers, indices, parameters)
    if (_excess if header.quantization.keeps_answers else _excess_of_layers)(header, rows, said) > 1:
        raise UserError(
            f"{folder} holds the recording of another teacher. The weights are the same, or there are none, but this "
            f"teacher gives different answers to {len(rows)} views in {layout.shard_path(Path(), view, shard)}: its "
            "options or its query may have changed. Pass the teacher that was recorded, or choose another folder with "
            "--out."
        )


def _said(header: Header, data: Data, answers: Answers, indices: list[int], parameters: Tensor) -> Tensor:
    """Return a teacher's answers to views of some samples, float64 on the CPU.

    These are its logits `[sample, class]`. If the recording keeps no answers, they are its layers, flattened and
    joined, `[sample, value]`.
    """
    images = training_images(data)
    device = answers.decision.device
    pixels = moved(read(images, indices), device)
    targets = None if images.targets is None else images.targets[indices].to(device)
    output = answers.about(pixels, targets, torch.tensor(indices), parameters, data)
    if not header.quantization.keeps_answers:
        layers = [output.features[layer].detach().cpu().double().flatten(1) for layer in header.layers]
        return torch.cat(layers, 1)
    logits = output.logits.detach().cpu().double()
    highest = logits.amax(1, keepdim=True)
    return torch.maximum(logits, highest + _LOWEST_LOGIT)


def _excess_of_layers(header: Header, rows: NDArray[Any], said: Tensor) -> float:
    """Return the distance of recorded layers from the layers now; above 1, rounding does not explain it."""
    share = sum(_ROUNDING.get(header.precision, _ROUNDING["bf16-mixed"]))
    sizes = [math.prod(shape) for shape in header.layers.values()]
    worst = 0.0
    for layer, now in zip(header.layers, torch.split(said, sizes, dim=1), strict=True):
        recorded = torch.from_numpy(rows[layout.FEATURE + layer].astype(np.float64)).flatten(1)
        # Three times the usual error still counts as rounding, as for answers.
        worst = max(worst, _rms(recorded - now) / (3 * share * _rms(now) + 1e-6))
    return worst


def _excess(header: Header, rows: NDArray[Any], logits: Tensor) -> float:
    """Return the distance of recorded answers from the answers now; above 1, rounding does not explain it."""
    share, of_all = _ROUNDING.get(header.precision, _ROUNDING["bf16-mixed"])
    error = share * _rms(logits - logits.mean(1, keepdim=True)) + of_all * _rms(logits)
    # A log-probability carries the errors of two logits. Three times the usual error still counts as rounding.
    usual, largest = 3 * error + 0.01, 6 * error + 0.01
    now, keep = logits.log_softmax(1), header.quantization
    if keep.kept is None:
        recorded = torch.from_numpy(rows["logits"].astype(np.float64))
        recorded = torch.maximum(recorded, recorded.amax(1, keepdim=True) + _LOWEST_LOGIT)
        return _rms(recorded.log_softmax(1) - now) / usual
    lowest = math.log(_LOWEST_PROBABILITY)
    kept = now.gather(1, torch.from_numpy(rows["classes"].astype(np.int64)))
    # Equally likely classes may be kept in place of each other, so probabilities are compared, not class numbers.
    missed = now.topk(keep.kept, 1).values.amin(1).clamp(min=lowest) - kept.amin(1).clamp(min=lowest)
    excess = float(missed.max()) / largest
    # Only the class was kept, and it has been compared.
    if keep.name == "hard":
        return excess
    if not keep.spread:
        # Renormalized schemes store probabilities that sum to one over the kept classes.
        kept = kept.log_softmax(1)
    recorded = torch.from_numpy(rows["probabilities"].astype(np.float64)).clamp(min=_LOWEST_PROBABILITY).log()
    return max(excess, _rms(recorded - kept.clamp(min=lowest)) / usual)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
