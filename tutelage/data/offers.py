"""What data may offer to a method."""

from __future__ import annotations

from typing import Literal, get_args

Offer = Literal[
    "targets",
    "answers",
    "sample-answers",
    "maps",
    "classes",
    "labels",
    "sample-labels",
    "images",
    "tokens",
    "next-tokens",
    "novel",
]
"""What a method may read of the data.

- `targets`: the task's own supervised loss.
- `answers`: the task's own divergence of two networks' answers.
- `sample-answers`: one answer for each whole sample, `[batch, number]`, not a map of answers.
- `maps`: an answer at each place of an image, `[batch, number, height, width]`.
- `classes`: scores of classes on axis 1, which a softmax turns into probabilities, at every place of a sample.
- `labels`: the index of the right class, at every place that has scores.
- `sample-labels`: one class index per sample.
- `images`: inputs `[batch, channel, height, width]`, which can be cut and mixed.
- `next-tokens`: an answer at each token of a text, `[batch, number, token]`; padding is among them and does not count.
- `tokens`: inputs with a mask of their tokens, `attention_mask`, as texts have.
- `novel`: class indices of some samples, and -1 for others, which are of classes that no sample is labelled with.

Features can be read from any network, and do not depend on the data.
"""

EVERYTHING: frozenset[Offer] = frozenset(get_args(Offer)) - {"maps", "tokens", "next-tokens", "novel"}
"""What labelled images offer."""

OF_LABELS: frozenset[Offer] = frozenset({"targets", "labels", "sample-labels"})
"""The offers that are missing if samples have no targets."""
