"""Toy texts of which each token is to be predicted, and a small network that reads them from left to right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.data.corpora import COUNTED, NextTokens
from tutelage.data.texts import Tokens
from tutelage.testing.texts import WORDS
from tutelage.testing.toys import SAMPLES


class ToyLanguageNetwork(nn.Module):
    """An embedding, two blocks in which a token sees those before it, and scores of the next token.

    Args:
        width: A third of the length of a token's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(WORDS, 3 * width)
        self.layers = nn.ModuleList(CausalBlock(3 * width) for _ in range(2))
        self.classifier = nn.Linear(3 * width, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `[batch, token, word]` for tokens and their mask, 0 for padding, each `[batch, token]`."""
        hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        # Padding comes last, so no token sees it.
        logits: Tensor = self.classifier(hidden)
        return logits


class CausalBlock(nn.Module):
    """Attention to the tokens before, and a layer for each token.

    Args:
        width: Length of a token's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.dense = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `[batch, token, width]`."""
        attended = F.scaled_dot_product_attention(
            self.query(hidden), self.key(hidden), self.value(hidden), is_causal=True
        )
        mixed = self.norm(hidden + attended)
        return F.relu(mixed + self.dense(mixed))


def toy_corpus() -> NextTokens:
    """Return texts of three to seven tokens; two in a row are of one length, so that halves of a batch are alike."""
    lengths = 3 + torch.arange(SAMPLES) // 2 % 5
    words = torch.randint(1, WORDS, (int(lengths.sum()),), generator=torch.Generator().manual_seed(0))
    columns = {"input_ids": words, COUNTED: torch.ones_like(words)}
    return NextTokens(Tokens(columns, {"input_ids": 0, COUNTED: 0}, lengths), None)
