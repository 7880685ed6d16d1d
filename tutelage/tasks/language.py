"""Language modelling: each token of a text is predicted from those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tutelage.core.tiles import sum_over_tokens
from tutelage.core.token_losses import Forward, NextToken
from tutelage.data.batch import Batch
from tutelage.data.corpora import IGNORED, next_tokens
from tutelage.data.criterion import CrossEntropy, Density, OfBatch
from tutelage.data.offers import Offer
from tutelage.data.targets import as_array
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.data.texts import ATTENTION_MASK
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED, Reduction
from tutelage.models.answers import TOKENS

# From here on the exponential of a mean overflows; such a network has learned nothing.
_MOST_NATS = 700.0


class TokenCrossEntropy(CrossEntropy, OfBatch):
    """Scores of the next token. Both losses are means over the tokens that count: padding and prompts do not.

    Args:
        counted: Which places count, `[batch, token]`; None for those whose target is not -1, or all.
        places: What sums are divided by, a scalar; None for the number of places that count.
    """

    def __init__(self, counted: Tensor | None = None, places: Tensor | None = None) -> None:
        self.counted, self.places = counted, places

    def of(self, inputs: Any, targets: Any, places: Tensor | None) -> TokenCrossEntropy:
        """Return the criterion of a batch."""
        return TokenCrossEntropy(counted_places(inputs, targets), places)

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the cross-entropy, the mean over the tokens that count; 0, with a gradient of 0, where none does.

        Args:
            answer: Logits `[batch, class, token]`.
            targets: The tokens that come next, `[batch, token]`, -1 where none counts.
        """
        counted = targets != UNLABELLED
        return sum_over_tokens(NextToken(), answer, targets, counted) / self.divisor(counted)

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return the divergence of the softened probabilities, as `kd_loss`, the mean over the tokens that count."""
        student, teacher = of_one_vocabulary(student, teacher)
        counted = self.counted if self.counted is not None else torch.ones_like(student[:, 0], dtype=torch.bool)
        found = sum_over_tokens(Forward(temperature), student, teacher, counted) / self.divisor(counted)
        found = found * temperature**2 if t_squared else found
        return found if reduction == "batchmean" else found / student.shape[1]

    def divisor(self, counted: Tensor) -> Tensor:
        """Return what a sum over tokens is divided by, a scalar above zero.

        Args:
            counted: Which tokens are summed over, `[batch, token]`.
        """
        return (counted.sum() if self.places is None else self.places).clamp(min=1)


def counted_places(inputs: Any, targets: Any) -> Tensor | None:
    """Return which places of a batch count, `[batch, token]`: those before a token that is to be predicted.

    Args:
        inputs: The batch's inputs.
        targets: Its targets, `[batch, token]`; None if it has none: then all that is not padding is to be predicted.
    """
    if isinstance(targets, Tensor):
        return targets != UNLABELLED
    mask = inputs.get(ATTENTION_MASK) if isinstance(inputs, Mapping) else None
    return None if mask is None else next_tokens(mask, mask.bool()) != UNLABELLED


def of_one_vocabulary(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both answers without the numbers that stand for no token.

    Networks of one vocabulary may have scores beyond its end, each for other numbers of rows: a multiple of 64, say.

    Args:
        student: Logits `[batch, class, token]`.
        teacher: Logits of the same places.
    """
    shared = min(student.shape[1], teacher.shape[1])
    return student[:, :shared], teacher[:, :shared]


class Language(Task):
    """The next token at each place: cross-entropy, perplexity, token accuracy, agreement with the teacher."""

    name = "language"
    title = "language modelling"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "perplexity": Metric(
                title="perplexity", short="perplexity", higher_is_better=False, digits=4, significant=True
            ),
            "token_accuracy": Metric(title="token accuracy", short="token acc.", unit="share", digits=2),
            "agreement": Metric(title="agreement with the teacher", short="agreement", unit="share", digits=2),
        }
    )
    primary = "perplexity"
    watched = ("perplexity", "token_accuracy")
    judges = watched
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "next-tokens"})
    criterion = TokenCrossEntropy()
    salt = b"language"
    outputs = ("token", "tokens")
    head = "language"
    compares_with_teacher = True
    continues_texts = True

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return the tokens that come next, int64 `[sample, token]`, -1 where none counts.

        Args:
            values: The tokens themselves, as transformers takes labels: the target of a place is the next one's label,
                and -100 (or -1) does not count.
            where: Their name in messages.
        """
        found = as_array(values, where=where)
        if found.ndim != 2 or found.dtype.kind not in "iu":
            raise UserError(
                f"The labels of {where} have the shape {list(found.shape)} of {found.dtype}: the task 'language' takes "
                "the numbers of the tokens, [token] a sample and as many for each, -100 where one does not count."
            )
        labels = torch.from_numpy(found.astype(np.int64))
        wrong = labels[(labels < 0) & (labels != IGNORED) & (labels != UNLABELLED)]
        if len(wrong):
            raise UserError(f"The labels of {where} hold {int(wrong[0])}: give -100 where a token does not count.")
        return next_tokens(labels, labels >= 0)

    def count_outputs(self, targets: Tensor) -> int:
        """Return one more than the highest number of a token."""
        return int(targets.max()) + 1

    def count_places(self, inputs: Any, targets: Any) -> Tensor | None:
        """Return the number of tokens of a batch that count, float32."""
        counted = counted_places(inputs, targets)
        return None if counted is None else counted.sum().float()

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> LanguageMeter:
        """Return a fresh meter."""
        return LanguageMeter()

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not answer at each token with a score of each token that may come next."""
        if len(shape) != 3 or shape[0] != samples:
            raise UserError(
                f"The {who} answers {samples} texts with shape {shape}: the task 'language' takes a score of each "
                f"token of the vocabulary at each place, [{samples}, token, vocabulary], as transformers:NAME gives."
            )
        # More are rows without a token, by which many networks fill up their vocabulary.
        if shape[1] < outputs:
            raise UserError(
                f"The {who} has scores of {shape[1]} tokens, and the vocabulary of {data} has {outputs}: choose a "
                "network of this vocabulary."
            )


class LanguageMeter(Meter):
    """The likelihood of the tokens, and how many are right or the teacher's, in sums over all tokens that count."""

    def __init__(self) -> None:
        self._nats, self._right, self._tokens = 0.0, 0, 0
        self._agreed, self._compared = 0, 0

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Take in logits `[batch, class, token]`, and the tokens that come next `[batch, token]`, -1 for none."""
        counted = targets != UNLABELLED
        self._nats += float(sum_over_tokens(NextToken(), answer, targets, counted))
        self._right += int(((answer.argmax(1) == targets) & counted).sum())
        self._tokens += int(counted.sum())

    def update_taught(self, answer: Tensor, taught: Tensor, targets: Any) -> None:
        """Count the tokens that count for which student and teacher expect the same token most."""
        student, teacher = of_one_vocabulary(answer, taught)
        counted = targets != UNLABELLED
        self._agreed += int(((student.argmax(1) == teacher.argmax(1)) & counted).sum())
        self._compared += int(counted.sum())

    def merge(self, later: LanguageMeter) -> None:
        """Add what another meter saw."""
        self._agreed += later._agreed
        self._compared += later._compared
        self._nats += later._nats
        self._right += later._right
        self._tokens += later._tokens

    def compute(self) -> dict[str, float]:
        """Return the exponential of the mean loss of a token, and the shares that are right and that are the teacher's.

        The last is absent where there is no teacher.
        """
        if not self._tokens:
            return {}
        mean = self._nats / self._tokens
        perplexity = math.exp(mean) if mean < _MOST_NATS else math.inf
        found = {"perplexity": perplexity, "token_accuracy": self._right / self._tokens}
        return found | ({"agreement": self._agreed / self._compared} if self._compared else {})


def counted_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return which tokens of a batch count, `[batch, token]`, and what a sum over them is divided by, a scalar.

    Args:
        batch: A batch of texts.
    """
    counted = counted_places(batch.inputs, batch.targets)
    if counted is None:
        counted = torch.ones_like(batch.inputs[TOKENS], dtype=torch.bool)
    return counted, TokenCrossEntropy(counted, batch.places).divisor(counted)


LANGUAGE = Language()
