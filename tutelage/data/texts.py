"""Texts: as they were read, and as tokens that are padded to the longest of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from tutelage.data.samples import Indices, Samples
from tutelage.errors import UserError

ATTENTION_MASK = "attention_mask"


@dataclass(frozen=True)
class Tokens:
    """The tokens of many texts, without padding.

    Attributes:
        columns: What a network reads of each token, such as its number (`input_ids`), `[token]`: one text after
            another.
        padding: The value of each column for padding.
        lengths: The number of tokens of each text, `[sample]`.
    """

    columns: Mapping[str, Tensor]
    padding: Mapping[str, int]
    lengths: Tensor


Encode = Callable[[Sequence[Sequence[str]], int | None], Tokens]
"""Makes tokens of texts. Its arguments are one or two columns of texts, and the most tokens of a text, if limited."""


class RawTexts(Samples):
    """Texts as they were read. A network reads tokens, so they must be encoded by its tokenizer first.

    Args:
        columns: One or two texts of each sample: `[column][sample]`.
        targets: `[sample, ...]`; None for texts without.
        limit: The most tokens of a sample; None for as many as the network takes.
    """

    def __init__(self, columns: Sequence[Sequence[str]], targets: Tensor | None, *, limit: int | None = None) -> None:
        self.columns, self.targets, self.limit = tuple(columns), targets, limit

    @property
    def cut(self) -> str:
        """How the texts become samples, as a part of their digest; empty where each text is one."""
        return ""

    def __len__(self) -> int:
        return len(self.columns[0])

    def read_batch(self, indices: Any) -> NoReturn:
        """Refuse to make a batch."""
        raise UserError(
            "These data are texts, which a network reads as the tokens of its own tokenizer: name a network that comes "
            "with one, transformers:NAME or transformers:FOLDER. To use another network, pass a dataset of its inputs."
        )

    def select(self, indices: Indices) -> RawTexts:
        """Return only the texts at `indices`."""
        rows = np.asarray(indices, dtype=np.int64)
        columns = [[column[row] for row in rows] for column in self.columns]
        return self._twin(columns, None if self.targets is None else self.targets[torch.from_numpy(rows)])

    def with_targets(self, targets: Tensor | None) -> RawTexts:
        """Return the same texts with other targets, or with none."""
        return self._twin(self.columns, targets)

    def encoded(self, encode: Encode, *, taught: Encode | None = None) -> TokenSamples:
        """Return the tokens of the texts, with the same targets.

        Args:
            encode: Makes the tokens.
            taught: Makes the tokens that the teacher reads, if these are others.
        """
        other = None if taught is None else taught(self.columns, self.limit)
        return TokenSamples(encode(self.columns, self.limit), self.targets, taught=other)

    def _twin(self, columns: Sequence[Sequence[str]], targets: Tensor | None) -> RawTexts:
        return RawTexts(columns, targets, limit=self.limit)


class TokenSamples(Samples):
    """Texts as tokens in memory. Each batch is padded to its own longest text.

    Args:
        tokens: The tokens of all texts.
        targets: `[sample, ...]`; None for texts without.
        taught: The tokens of the same texts that the teacher reads, if these are others.
    """

    is_resident = True
    _taught: TokenSamples | None

    def __init__(self, tokens: Tokens, targets: Tensor | None, *, taught: Tokens | None = None) -> None:
        starts = tokens.lengths.cumsum(0) - tokens.lengths
        self._fill(tokens, starts.to(tokens.lengths.device), targets)
        self._taught = None if taught is None else TokenSamples(taught, targets)

    def _fill(self, tokens: Tokens, starts: Tensor, targets: Tensor | None) -> None:
        self._tokens, self._starts, self.targets = tokens, starts, targets
        self.lengths = tokens.lengths
        self._taught = None

    @property
    def taught(self) -> TokenSamples | None:
        """The same texts as the tokens that the teacher reads; None if it reads what the student reads."""
        return self._taught

    def __len__(self) -> int:
        return len(self._starts)

    def read_batch(self, indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Return the texts at some positions as named tensors `[batch, token]`, and their targets."""
        lengths = self._tokens.lengths[indices]
        place = torch.arange(int(lengths.max()) if len(lengths) else 0, device=lengths.device)
        is_token = place < lengths[:, None]
        # Padding reads some token, which the next step replaces.
        where = (self._starts[indices][:, None] + place).masked_fill(~is_token, 0)
        inputs = {
            name: column[where].long().masked_fill(~is_token, self._tokens.padding[name])
            for name, column in self._tokens.columns.items()
        }
        targets = None if self.targets is None else self.targets[indices]
        return inputs | {ATTENTION_MASK: is_token.long()}, targets

    def select(self, indices: Indices) -> TokenSamples:
        """Return only the texts at `indices`. They share the tokens in memory."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64), device=self._starts.device)
        tokens = Tokens(self._tokens.columns, self._tokens.padding, self._tokens.lengths[rows])
        taught = None if self._taught is None else self._taught.select(indices)
        return self._twin(tokens, self._starts[rows], None if self.targets is None else self.targets[rows], taught)

    def with_targets(self, targets: Tensor | None) -> TokenSamples:
        """Return the same texts with other targets, or with none."""
        taught = None if self._taught is None else self._taught.with_targets(targets)
        return self._twin(self._tokens, self._starts, targets, taught)

    def to(self, device: torch.device | str) -> TokenSamples:
        """Return the same texts on another device."""
        columns = {name: column.to(device) for name, column in self._tokens.columns.items()}
        tokens = Tokens(columns, self._tokens.padding, self._tokens.lengths.to(device))
        targets = None if self.targets is None else self.targets.to(device)
        taught = None if self._taught is None else self._taught.to(device)
        return self._twin(tokens, self._starts.to(device), targets, taught)

    @classmethod
    def _twin(cls, tokens: Tokens, starts: Tensor, targets: Tensor | None, taught: TokenSamples | None = None) -> Self:
        twin = cls.__new__(cls)
        twin._fill(tokens, starts, targets)
        twin._taught = taught
        return twin


def texts_digest(splits: Mapping[str, RawTexts]) -> str:
    """Return the SHA-256 over the texts and targets of all splits."""
    digest = hashlib.sha256()
    for name, samples in sorted(splits.items()):
        digest.update(f"{name} {len(samples)} {samples.limit} {samples.cut}".encode())
        for column in samples.columns:
            for text in column:
                # With its length, so that the end of one text cannot pass for the beginning of the next.
                digest.update(f"{len(text)} {text}".encode(errors="surrogatepass"))
        if samples.targets is not None:
            digest.update(samples.targets.contiguous().numpy().tobytes())
    return digest.hexdigest()
