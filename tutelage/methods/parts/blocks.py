"""Blocks of two transformers: which block learns from which, and a student that starts as some of its teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.pairing import AUTO, LayerPair, Seen, named_pairs, taps
from tutelage.core.teachers import Teacher
from tutelage.errors import UserError, unknown
from tutelage.features.attention import ATTENTION, attention_blocks
from tutelage.models.answers import uncompiled
from tutelage.models.language import kept_layers
from tutelage.models.normalization import bare


def paired_blocks(student: nn.Module, teacher: Teacher, layers: str, example: Any) -> tuple[LayerPair, ...]:
    """Return which block of the student learns from which block of the teacher, from the first to the last.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        layers: `auto`, every (N/K)-th of the teacher's N blocks for the K of the student, the last with the last; or
            pairs of blocks by name, `student_block:teacher_block`, joined by `+`.
        example: Inputs for one forward pass (batch of two or more), or the traces of both on them, a `Seen`.

    Raises:
        UserError: If a network has no attention that can be read, a block does not exist, or two blocks differ in
            width or heads.
    """
    network = teacher.inner_network()
    seen = Seen.of(student, teacher, example)
    ours, theirs = (_attention(one, seen.example, who) for one, who in ((student, "student"), (network, "teacher")))
    named = _every(list(ours), list(theirs)) if layers == AUTO else _by_name(layers, list(ours), list(theirs))
    for one, other in named:
        _check_heads(one, ours[one], other, theirs[other])
    students = taps(student, [one for one, _ in named], seen.student, who="student")
    teachers = teacher.taps([other for _, other in named], seen.teacher)
    pairs = tuple(LayerPair(students[one], teachers[other]) for one, other in named)
    for found in pairs:
        _check_width(found)
    return pairs


def places_of(blocks: Sequence[str]) -> list[str]:
    """Return the places at which blocks are read: the output and the attention of each."""
    return [place for block in blocks for place in (block, block + ATTENTION)]


def check_first_token(network: nn.Module, example: Any) -> None:
    """Refuse a network whose first token sees no other token, so that its state says nothing about the text.

    Args:
        network: The network.
        example: Inputs for one forward pass.

    Raises:
        UserError: If the first token attends to itself alone in every block.
    """
    alone = [attention[:, :, 0, 0].exp().min() > 1 - 1e-6 for attention in attention_blocks(network, example).values()]
    if all(alone):
        raise UserError(
            f"In {type(bare(uncompiled(network))).__name__} the first token sees no other token, as in networks that "
            "predict the next one, so its state says nothing about the text: leave it out with --cosine-weight 0."
        )


def start_as_teacher(student: nn.Module, teacher: nn.Module, pairs: Sequence[LayerPair], example: Any) -> None:
    """Give the student's blocks the weights of the teacher's that they learn from, and all around them if it fits.

    A student with as many blocks as its teacher would be the teacher itself, so it keeps its own weights.

    Args:
        student: The student, changed in place.
        teacher: The teacher's network.
        pairs: Which block learns from which.
        example: Inputs for one forward pass.

    Raises:
        UserError: If two blocks do not have the same parts.
    """
    ours, theirs = (list(attention_blocks(one, example)) for one in (student, teacher))
    if len(ours) == len(theirs):
        return
    own, source = (dict(_tensors(one)) for one in (student, teacher))
    taken = {name: name for name in own if name in source and not _within(name, [*ours, *theirs])}
    # What surrounds the blocks, such as embeddings; a classifier of other classes stays as it is.
    taken = {name: name for name in taken if own[name].shape == source[name].shape}
    for found in pairs:
        one, other = found.student.layer, found.teacher.layer
        parts = {name: other + name.removeprefix(one) for name in own if _within(name, [one])}
        different = [name for name, place in parts.items() if _shape(source, place) != own[name].shape]
        if different:
            raise UserError(
                f"The student's {different[0]} has no equal in the teacher's {other}, so the student cannot start from "
                "the teacher's weights: add --start own to keep its own, or name blocks of one structure in --layers."
            )
        taken |= parts
    with torch.no_grad():
        for name, place in taken.items():
            own[name].copy_(source[place])


def _attention(network: nn.Module, example: Any, who: str) -> Mapping[str, Tensor]:
    try:
        return attention_blocks(network, example)
    except UserError as error:
        raise UserError(f"In the {who}: {error}") from error


def _every(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    if len(ours) > len(theirs):
        raise UserError(
            f"The student has {len(ours)} blocks with attention and the teacher only {len(theirs)}: name those that "
            "learn, --layers student_block:teacher_block, joined by +."
        )
    return [(one, theirs[number]) for one, number in zip(ours, kept_layers(len(ours), len(theirs)), strict=True)]


def _by_name(layers: str, ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    named = list(named_pairs(layers))
    for one, other in named:
        for name, blocks, who in ((one, ours, "student"), (other, theirs, "teacher")):
            if name not in blocks:
                raise unknown(f"block with attention in the {who}", name, blocks)
    students = [one for one, _ in named]
    if len(set(students)) < len(students):
        raise UserError(f"layers={layers} names a block of the student twice: each learns from one block.")
    # Stages go through the student from below, in whatever order the pairs are written.
    return sorted(named, key=lambda found: ours.index(found[0]))


def _check_heads(one: str, ours: Tensor, other: str, theirs: Tensor) -> None:
    if ours.shape != theirs.shape or ours.shape[2] != ours.shape[3]:
        raise UserError(
            f"The attention of {one} in the student is {_words(ours)}, and that of {other} in the teacher "
            f"{_words(theirs)}: internal compares head by head, so choose a student with the teacher's heads, such as "
            "transformers:FOLDER,layers=3 of the teacher's folder."
        )


def _words(attention: Tensor) -> str:
    return f"{attention.shape[1]} heads of {attention.shape[2]} x {attention.shape[3]} tokens"


def _check_width(found: LayerPair) -> None:
    if found.student.channels != found.teacher.channels:
        raise UserError(
            f"{found.student.layer} of the student has states of {found.student.channels} numbers, and "
            f"{found.teacher.layer} of the teacher of {found.teacher.channels}: internal compares them as they are, so "
            "choose a student of the teacher's width, such as transformers:FOLDER,layers=3 of the teacher's folder."
        )


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    found = bare(uncompiled(network))
    return [*found.named_parameters(), *found.named_buffers()]


def _within(name: str, blocks: Sequence[str]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
