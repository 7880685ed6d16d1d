"""Toy texts: sentences that are padded to one length, and a small transformer that takes them as a mapping."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.data.samples import Indices, Samples
from tutelage.testing.toys import CLASSES

WORDS, TOKENS = 20, 7


class ToyTextNetwork(nn.Module):
    """A small transformer: an embedding, two blocks that ignore padding, the mean over the words, a classifier.

    Args:
        width: Half the length of a word's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(WORDS, 2 * width)
        self.layers = nn.ModuleList(TextBlock(2 * width) for _ in range(2))
        self.classifier = nn.Linear(2 * width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `[batch, class]` for words and their mask, 0 for padding, each `[batch, token]`."""
        hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        # The mean over the words only.
        weights = attention_mask[:, :, None].to(hidden.dtype)
        logits: Tensor = self.classifier((hidden * weights).sum(1) / weights.sum(1))
        return logits


class TextBlock(nn.Module):
    """Attention over the words, and a layer for each of them.

    Args:
        width: Length of a word's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.dense = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return `[batch, token, width]`."""
        # Every word attends to words alone; what padding attends to is read by nobody.
        seen = attention_mask[:, None, :].bool()
        attended = F.scaled_dot_product_attention(
            self.query(hidden), self.key(hidden), self.value(hidden), attn_mask=seen
        )
        mixed = self.norm(hidden + attended)
        return F.relu(mixed + self.dense(mixed))


class ToyTexts(Samples):
    """Sentences that are padded to one length.

    Args:
        words: `[sample, token]`.
        mask: 1 for a word and 0 for padding, `[sample, token]`.
        targets: The targets, `[sample]`; None for texts without.
    """

    is_resident = True

    def __init__(self, words: Tensor, mask: Tensor, targets: Tensor | None) -> None:
        self.words, self.mask, self.targets = words, mask, targets

    def __len__(self) -> int:
        return len(self.words)

    def read_batch(self, indices: Tensor) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Return the sentences at some positions as a mapping, and their targets."""
        inputs = {"input_ids": self.words[indices], "attention_mask": self.mask[indices]}
        return inputs, None if self.targets is None else self.targets[indices]

    def select(self, indices: Indices) -> ToyTexts:
        """Return the samples at `indices` as samples of their own."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return ToyTexts(self.words[rows], self.mask[rows], None if self.targets is None else self.targets[rows])

    def with_targets(self, targets: Tensor | None) -> ToyTexts:
        """Return the same sentences with other targets, or with none."""
        return ToyTexts(self.words, self.mask, targets)
