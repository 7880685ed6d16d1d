"""DisWOT: how like an untrained network's maps and classes are to those of an untrained teacher."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.core.registry import Paper
from tutelage.searching.candidate import Candidate, Reading, check_width
from tutelage.searching.scoring import Score, register_score

PAPER = Paper(
    key="dong2023diswot",
    title="DisWOT: Student Architecture Search for Distillation WithOut Training",
    authors="Dong, Peijie and Li, Lujun and Wei, Zimian",
    venue="CVPR",
    year=2023,
    arxiv="2303.15678",
)

Variant = Literal["paper", "code"]


@register_score("diswot", papers=[PAPER])
class DisWOT(Score):
    r"""DisWOT: likeness to the teacher of how classes, and how samples, relate to each other.

    $$S = -(M_{sem} + M_{rel})$$

    Both terms compare matrices of similarities whose rows have length 1. Relation: $f$ are the flattened last maps
    `[B, C H W]` of the batch, and $G = f f^\top$ `[B, B]`. Semantic, `variant=paper`: $A$ are the class-activation maps
    `[K, B H W]`, the classifier's weights times the last maps, and $G = A A^\top$ `[K, K]`. Then
    $M = \lVert G^t - G^s \rVert_2$ for each of the two.

    Semantic, `variant=code`: $g_k$ `[C]` is the gradient of the cross-entropy for the weights of class k, and
    $G_k = g_k g_k^\top$ `[C, C]`, so that the classifiers of both networks must have equally many inputs. The squared
    differences are divided: $M_{sem} = \sum_k \lVert G_k^t - G_k^s \rVert^2 / (K C)$ and
    $M_{rel} = \lVert G^t - G^s \rVert^2 / B^2$.

    Args:
        variant: `code` or `paper`: which of the two forms. `code` by default, because it ranks trained students better:
            docs/results/search.md.
        semantic: Weight of the semantic term; 0 leaves it out.
        relation: Weight of the relation term; 0 leaves it out.
        trained_teacher: Whether a teacher that comes with weights keeps them. In the paper it has none.

    Paper: Dong et al. 2023.

    Differences: the paper does not say over which places and samples the similarity of two class-activation maps is
    taken; here over all of the batch. The authors' scripts differ from each other: some leave out one of the terms, and
    some never reset the teacher's gradient.
    """

    needs_teacher = True

    def __init__(
        self,
        *,
        variant: Variant = "code",
        semantic: float = 1.0,
        relation: float = 1.0,
        trained_teacher: bool = False,
    ) -> None:
        weights = {"semantic": semantic, "relation": relation}
        super().__init__({name: weight for name, weight in weights.items() if weight})
        self.variant, self.trained_teacher = variant, trained_teacher
        compares_classes = "semantic" in self.weights
        if compares_classes:
            self.reads = frozenset({"classes", "sample-answers"})
        if compares_classes and variant == "code":
            self.reads |= {"sample-labels"}
            self.advice = (
                "The semantic score of variant=code compares classifiers of equal width: let the space hold networks "
                "as wide as the teacher, or score by diswot:variant=paper, or without it (semantic=0)."
            )
        self._teacher: dict[str, Tensor] = {}
        self._width = 0

    def learn(self, teacher: Candidate) -> None:
        """Keep the teacher's matrices of similarities, or what they are made of."""
        self._teacher = self._shown(teacher)
        self._width = teacher.classifier.in_features

    def terms(self, candidate: Candidate) -> dict[str, float]:
        """Return both terms, which are never above zero."""
        if "semantic" in self.weights and self.variant == "code":
            # Before the pass over the batch, which would be in vain.
            check_width(candidate, self._width)
        return {
            name: -float(self._distance(name, self._teacher[name], shown))
            for name, shown in self._shown(candidate).items()
        }

    def _shown(self, candidate: Candidate) -> dict[str, Tensor]:
        reading, found = candidate.reading, {}
        if "semantic" in self.weights:
            by_code = self.variant == "code"
            found["semantic"] = (
                classifier_gradient(reading, candidate.batch.labels) if by_code else class_similarity(reading)
            )
        if "relation" in self.weights:
            found["relation"] = sample_similarity(reading.maps)
        return found

    def _distance(self, name: str, teacher: Tensor, student: Tensor) -> Tensor:
        if self.variant == "paper":
            distance: Tensor = torch.linalg.vector_norm(teacher - student)
            return distance
        return gradient_distance(teacher, student) if name == "semantic" else (teacher - student).square().mean()


def sample_similarity(maps: Tensor) -> Tensor:
    """Return how alike the samples of a batch are: products of their maps, each row of length 1, `[B, B]`.

    Args:
        maps: `[B, C, H, W]`.
    """
    return _similarity(maps.flatten(1))


def class_similarity(reading: Reading) -> Tensor:
    """Return how alike class-activation maps are: products over samples and places, each row of length 1, `[K, K]`.

    Args:
        reading: What a network shows of a batch.
    """
    # Double precision: products of hundreds of thousands of numbers are compared with each other.
    activations = torch.einsum("kc,bchw->kbhw", reading.weight.double(), reading.maps.double())
    return _similarity(activations.flatten(1))


def classifier_gradient(reading: Reading, labels: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy for the classifier's weights, `[K, C]`.

    It is known without a backward pass: each sample's error times its embedding.

    Args:
        reading: What a network shows of a batch.
        labels: Class indices `[B]`; samples of unknown class, -1, have no error.
    """
    known = labels >= 0
    probabilities = reading.logits[known].double().softmax(1)
    error = probabilities - F.one_hot(labels[known], probabilities.shape[1])
    return error.T @ reading.embedding[known].double() / max(int(known.sum()), 1)


def gradient_distance(teacher: Tensor, student: Tensor) -> Tensor:
    r"""Return the mean squared difference of the rows of $g_k g_k^\top$, each row of length 1, without making them.

    Row i of such a matrix is the direction of $g_k$, with the sign of $g_{k,i}$.

    Args:
        teacher: Gradients `[K, C]`.
        student: Gradients `[K, C]`.
    """
    one, other = F.normalize(teacher), F.normalize(student)
    # The mean over i of the squared sign: the share of inputs with a gradient.
    lengths = one.sign().square().mean(1) + other.sign().square().mean(1)
    agreement = (one.sign() * other.sign()).mean(1)
    return (lengths - 2 * agreement * (one * other).sum(1)).mean()


def _similarity(rows: Tensor) -> Tensor:
    rows = rows.double()
    return F.normalize(rows @ rows.T)
