"""The tokens of texts that a network is to continue: where each begins and ends, and which are to be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tutelage.data.corpora import COUNTED
from tutelage.data.texts import Tokens
from tutelage.errors import UserError, notice
from tutelage.models.answers import TOKENS

_CHUNK = 10_000


def encode_corpus(tokenizer: Any, columns: Sequence[Sequence[str]], *, longest: int | None, where: str) -> Tokens:
    """Return the tokens of texts, each with the tokens that mark its beginning and its end, if there are such.

    Args:
        tokenizer: A tokenizer of the library transformers.
        columns: Texts `[1][sample]`, or prompts and completions `[2][sample]`. The tokens of a prompt are not to be
            predicted.
        longest: The most tokens of a text; None for any number.
        where: The texts' name in messages.

    Raises:
        UserError: If a text gives no tokens.
    """
    before, after = _marks(tokenizer)
    numbers: list[torch.Tensor] = []
    counted: list[torch.Tensor] = []
    lengths: list[int] = []
    long = 0
    for start in range(0, len(columns[0]), _CHUNK):
        parts = [_plain(tokenizer, column[start : start + _CHUNK]) for column in columns]
        rows: list[int] = []
        learned: list[bool] = []
        for *prompts, text in zip(*parts, strict=True):
            prompt = [token for part in prompts for token in part]
            whole = [*before, *prompt, *text, *after]
            row = whole[:longest]
            if not row:
                raise UserError(f"Row {len(lengths)} of {where} gives no tokens: remove such rows.")
            long += len(whole) > len(row)
            rows += row
            given = len(before) + len(prompt) if prompts else 0
            learned += [place >= given for place in range(len(row))]
            lengths.append(len(row))
        # Flat at once: lists of Python numbers would take ten times the memory.
        numbers.append(torch.tensor(rows).int())
        counted.append(torch.tensor(learned).byte())
    if long:
        notice(
            f"{long} texts of {where} have more than {longest} tokens: what comes after is not read. With "
            "blocks=LENGTH all of it is."
        )
    padding = tokenizer.pad_token_id
    found = {TOKENS: torch.cat(numbers), COUNTED: torch.cat(counted)}
    return Tokens(found, {TOKENS: 0 if padding is None else padding, COUNTED: 0}, torch.tensor(lengths))


def vocabulary_size(tokenizer: Any) -> int:
    """Return how many numbers of tokens there are: one more than the highest."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def _plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _marks(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that begin and end a text. The first is what the tokenizer itself puts before every text."""
    first = tokenizer("")["input_ids"][:1]
    begins = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None, tokenizer.eos_token_id}
    ends = [token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id) if token is not None]
    return [token for token in first if token in begins], ends[:1]
