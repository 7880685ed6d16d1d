"""Texts of which each token is to be predicted from those before it: as samples of their own, or cut in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.data.text_tables import is_text
from tutelage.data.texts import ATTENTION_MASK, Encode, RawTexts, Tokens, TokenSamples
from tutelage.errors import UserError, notice, unknown
from tutelage.losses import UNLABELLED

if TYPE_CHECKING:
    import datasets

COUNTED = "counted"
"""Name of the column that tells which tokens are to be predicted: 1, or 0 for those of a prompt."""

IGNORED = -100
"""The label of a token that does not count, in the library transformers."""

_PROMPTED = ("prompt", "completion")
_USUAL = "text"


class RawCorpus(RawTexts):
    """Texts whose own tokens are the targets.

    Args:
        columns: The texts, `[1][sample]`; or prompts and their completions, `[2][sample]`.
        limit: The most tokens of a sample; None for as many as the network takes.
        block: The length of the blocks into which all texts together are cut, in tokens; None keeps each by itself.
    """

    def __init__(self, columns: Sequence[Sequence[str]], *, limit: int | None = None, block: int | None = None) -> None:
        super().__init__(columns, None, limit=limit)
        self.block = block

    @property
    def has_targets(self) -> bool:
        """The texts are their own targets."""
        return True

    @property
    def cut(self) -> str:
        """The length of the blocks."""
        return "" if self.block is None else f"{self.block} "

    def with_targets(self, targets: Tensor | None) -> RawTexts:
        """Return the texts without targets.

        Raises:
            UserError: If there are others, which a text cannot have.
        """
        if targets is not None:
            raise UserError("The targets of these texts are their own tokens, which cannot be replaced.")
        return RawTexts(self.columns, None, limit=self.limit)

    def encoded(self, encode: Encode, *, taught: Encode | None = None) -> TokenSamples:
        """Return the tokens of the texts, which the teacher reads too."""
        tokens = encode(self.columns, self.limit)
        return NextTokens(tokens if self.block is None else in_blocks(tokens, self.block), None)

    def _twin(self, columns: Sequence[Sequence[str]], targets: Tensor | None) -> RawTexts:
        return RawCorpus(columns, limit=self.limit, block=self.block)


class NextTokens(TokenSamples):
    """Texts as tokens, whose targets are the tokens that come next."""

    @property
    def has_targets(self) -> bool:
        """The texts are their own targets."""
        return True

    def read_batch(self, indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Return the texts at some positions as named tensors, and the tokens that come next, `[batch, token]`."""
        inputs, _ = super().read_batch(indices)
        named = dict(inputs)
        counted = named.pop(COUNTED)
        return named, next_tokens(named["input_ids"], counted.bool() & named[ATTENTION_MASK].bool())

    def with_targets(self, targets: Tensor | None) -> TokenSamples:
        """Return the texts without targets.

        Raises:
            UserError: If there are others, which a text cannot have.
        """
        if targets is not None:
            raise UserError("The targets of these texts are their own tokens, which cannot be replaced.")
        columns = {name: column for name, column in self._tokens.columns.items() if name != COUNTED}
        return TokenSamples._twin(Tokens(columns, self._tokens.padding, self._tokens.lengths), self._starts, None)


def next_tokens(tokens: Tensor, counted: Tensor) -> Tensor:
    """Return for each place the token that comes next, `[batch, token]`; -1 where there is none or it does not count.

    Args:
        tokens: Numbers of tokens, `[batch, token]`.
        counted: Which of them count, `[batch, token]`.
    """
    targets = torch.full_like(tokens, UNLABELLED)
    targets[:, :-1] = tokens[:, 1:].where(counted[:, 1:], UNLABELLED)
    return targets


def in_blocks(tokens: Tokens, block: int) -> Tokens:
    """Return texts one after another, cut in blocks; the last block may be shorter.

    Args:
        tokens: The tokens of all texts.
        block: Tokens of a block.
    """
    total = int(tokens.lengths.sum())
    # A last token alone has nothing after it to predict.
    whole, rest = divmod(total, block)
    lengths = [block] * whole + ([rest] if rest > 1 else [])
    kept = sum(lengths)
    columns = {name: column[:kept] for name, column in tokens.columns.items()}
    return Tokens(columns, tokens.padding, torch.tensor(lengths, dtype=tokens.lengths.dtype))


def corpus_columns(features: Mapping[str, Any], named: str | None, *, spec: str) -> tuple[str, ...]:
    """Return the column of texts, or those of prompts and completions.

    Args:
        features: The columns and their types.
        named: The columns that the user named, joined by `+`; None to find them.
        spec: The user's text for the data, for messages.

    Raises:
        UserError: If a named column does not exist or holds no text, or it is not clear which are meant.
    """
    found = [name for name, feature in features.items() if is_text(feature)]
    if named is not None:
        columns = tuple(name.strip() for name in named.split("+"))
        for name in columns:
            if name not in features:
                raise unknown("text column", name, features)
            if name not in found:
                raise UserError(f"The column {name!r} of {spec} holds no text: name a column of texts with ,text=NAME.")
        if len(columns) > len(_PROMPTED) or len(set(columns)) < len(columns):
            raise UserError(f"text={named} names {len(columns)} columns: name one of texts, or PROMPT+COMPLETION.")
        return columns
    if set(_PROMPTED) <= set(found):
        return _PROMPTED
    usual = [name for name in found if name == _USUAL] or found
    if len(usual) != 1:
        have = f"the text columns {', '.join(found)}" if found else f"no column of texts, only {', '.join(features)}"
        raise UserError(f"{spec} has {have}: name the one to read, '{spec},text=NAME', or 'text=PROMPT+COMPLETION'.")
    return tuple(usual)


def read_corpora(
    splits: Mapping[str, datasets.Dataset],
    columns: Sequence[str],
    *,
    limit: int | None,
    block: int | None,
    spec: str,
) -> dict[str, RawCorpus]:
    """Return the texts of each split; empty ones are left out.

    Args:
        splits: The tables by split.
        columns: One text column, or those of prompts and completions.
        limit: The most tokens of a sample; None for as many as the network takes.
        block: The length of blocks in tokens; None keeps each text by itself.
        spec: The user's text for the data, for messages.

    Raises:
        UserError: If a split has no text, or prompts are to be cut in blocks.
    """
    if block is not None and len(columns) > 1:
        raise UserError(f"{spec}: blocks= joins texts, and a completion belongs to its prompt: leave out blocks=.")
    found = {}
    for name, rows in splits.items():
        table = rows.select_columns(list(columns))[:]
        # A cell of CSV that is empty is read as None.
        texts = [[text or "" for text in table[column]] for column in columns]
        # Of a prompt, the completion is what is learned.
        kept = [row for row in zip(*texts, strict=True) if row[-1].strip()]
        if not kept:
            raise UserError(f"The split {name!r} of {spec} holds no text in the column {columns[-1]!r}.")
        if left := len(rows) - len(kept):
            notice(f"{left} empty texts of the split {name!r} of {spec} are left out.")
        found[name] = RawCorpus([list(column) for column in zip(*kept, strict=True)], limit=limit, block=block)
    return found
