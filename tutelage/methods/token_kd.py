"""Distillation of language models, token by token: forward, reverse and Jensen-Shannon divergence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.core.tiles import TILE, RowLoss, sum_over_tokens
from tutelage.core.token_losses import Forward, JensenShannon, Reverse
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import check_shapes, check_temperature
from tutelage.methods.kd import check_soft_term
from tutelage.methods.parts.papers import HINTON
from tutelage.tasks.language import counted_tokens, of_one_vocabulary

Divergence = Literal["forward", "reverse", "js"]

KIM = Paper(
    key="kim2016sequence",
    title="Sequence-Level Knowledge Distillation",
    authors="Kim, Yoon and Rush, Alexander M.",
    venue="EMNLP",
    year=2016,
    arxiv="1606.07947",
)
GU = Paper(
    key="gu2024minillm",
    title="MiniLLM: Knowledge Distillation of Large Language Models",
    authors="Gu, Yuxian and Dong, Li and Wei, Furu and Huang, Minlie",
    venue="ICLR",
    year=2024,
    arxiv="2306.08543",
)
AGARWAL = Paper(
    key="agarwal2024onpolicy",
    title="On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
    authors="Agarwal, Rishabh and Vieillard, Nino and Zhou, Yongchao and Stanczyk, Piotr and Ramos, Sabela and "
    "Geist, Matthieu and Bachem, Olivier",
    venue="ICLR",
    year=2024,
    arxiv="2306.13649",
)


def token_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    counted: Tensor,
    *,
    divergence: Divergence = "forward",
    beta: float = 0.5,
    temperature: float = 1.0,
    tokens: Tensor | float | None = None,
    tile: int = TILE,
) -> Tensor:
    r"""Return $T^2 D(p, q)$, the mean over the tokens that count; 0, with a gradient of 0, where none does.

    It is computed some tokens at a time, forwards and backwards: beside both logits and the gradient, memory for one
    tile is enough. There is no second derivative.

    Args:
        student_logits: `[batch, class, token]`. Of a network that answers `[batch, token, class]`, pass
            `logits.movedim(2, 1)`, which copies nothing.
        teacher_logits: The same; no gradient flows into them.
        counted: Which tokens count, `[batch, token]` of true or false: none of padding, or of a prompt. A token's
            logits predict the next one, so of labels it is `labels[:, 1:] != -100`, and false for the last.
        divergence: `forward` is $\mathrm{KL}(p \,\|\, q)$, `reverse` is $\mathrm{KL}(q \,\|\, p)$, and `js` the
            generalised Jensen-Shannon divergence.
        beta: $\beta$ of `js`, above 0 and below 1.
        temperature: $T$, which divides both logits.
        tokens: What the sum is divided by; None for the number of tokens that count. Where gradients of several parts
            of a batch are averaged, pass the mean of their numbers, so that each token weighs the same.
        tile: How many logits are looked at together.

    Raises:
        UserError: If the divergence, `beta` or the temperature is none.
        ValueError: If the two shapes differ.
    """
    check_shapes(student_logits, teacher_logits)
    loss = _loss(divergence, beta, temperature)
    total = sum_over_tokens(loss, student_logits, teacher_logits, counted, tile=tile)
    divisor = counted.sum().clamp(min=1) if tokens is None else tokens
    return total * temperature**2 / divisor


def _loss(divergence: str, beta: float, temperature: float) -> RowLoss:
    check_temperature(temperature)
    if divergence == "forward":
        return Forward(temperature)
    if divergence == "reverse":
        return Reverse(temperature)
    if divergence != "js":
        raise UserError(f"divergence={divergence} is none of forward, reverse and js.")
    if not 0 < beta < 1:
        raise UserError(
            f"beta={beta} must be above 0 and below 1, where the divergence is not zero. Its limits, once divided by "
            "beta or by 1 - beta, are divergence=forward (beta to 0) and divergence=reverse (beta to 1)."
        )
    return JensenShannon(temperature, beta)


@register(
    "token-kd",
    papers=[HINTON, KIM, GU, AGARWAL],
    losses=["token_kd_loss"],
    reads={"answers", "next-tokens"},
    uses={"targets"},
    family="logits",
)
class TokenKD(Method):
    r"""Token-level distillation: a language model matches the teacher's probabilities of each next token.

    $$ L = (1 - \alpha) H(y, q) + \alpha T^2 \frac{1}{N} \sum_{n=1}^{N} D(p_n, q_n) $$

    $p_n$ and $q_n$ are the teacher's and the student's probabilities of the token that comes after place $n$, both
    softened by $T$. $N$ is the number of tokens that count, over all processes that share a batch. Padding never
    counts, and neither does a prompt (`text=PROMPT+COMPLETION` in the data). $D$ is one of

    $$ \mathrm{KL}(p \,\|\, q), \qquad \mathrm{KL}(q \,\|\, p), \qquad
       \beta \, \mathrm{KL}(p \,\|\, m) + (1 - \beta) \, \mathrm{KL}(q \,\|\, m), \quad m = \beta p + (1 - \beta) q. $$

    `forward` makes the student cover all that the teacher may say, and `reverse` makes it avoid what the teacher would
    not say. `js` is between them, and bounded: as $\beta \to 0$ it is $\beta$ times the forward one, and as $\beta \to
    1$ it is $1 - \beta$ times the reverse one, so that both limits are zero. Weigh it accordingly.

    Teacher and student must have the same vocabulary. Networks by name are compared by their tokenizers: by each token
    and its number, and by how they split texts. Scores beyond the end of the vocabulary, by which some networks round
    up its size, are left out.

    The teacher answers in each step: recordings hold one answer for each sample, and not one for each token.

    Distillation is off-policy: on the texts of the data, never on what the student writes. For training on the
    student's own texts (GKD, MiniLLM) and for unlike tokenizers (ULD, GOLD), use TRL.

    Args:
        student: The network to train.
        teacher: Any teacher that answers at each token.
        divergence: `forward`, `reverse` or `js`.
        beta: $\beta$ of `js`, above 0 and below 1: the teacher's share of the mixture.
        temperature: $T$, which softens both, above zero.
        alpha: Weight of the teacher's term, from 0 to 1; the rest is that of the cross-entropy.

    Raises:
        UserError: If an option is out of its range.

    Paper: Kim and Rush, Sequence-Level Knowledge Distillation, EMNLP 2016 (its word-level distillation is `forward`).
        `reverse`: Gu et al., MiniLLM, ICLR 2024. `js`: Agarwal et al., On-Policy Distillation of Language Models, ICLR
        2024.

    Differences: MiniLLM and GKD train on texts that the student writes; here both divergences are taken on the texts of
        the data, as GKD's supervised baseline does. Kim and Rush write a cross-entropy, whose gradient is that of the
        KL divergence, and have no temperature.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        divergence: Divergence = "forward",
        beta: float = 0.5,
        temperature: float = 1.0,
        alpha: float = 0.5,
    ) -> None:
        check_soft_term(alpha, temperature)
        # Refuses what is out of range now, and not in the first batch.
        _loss(divergence, beta, temperature)
        super().__init__({"ce": 1 - alpha, "kd": alpha})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.divergence, self.beta, self.temperature = divergence, beta, temperature

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the divergence from the teacher as `kd`."""
        student = self.student(batch.inputs).logits
        ours, theirs = of_one_vocabulary(student, self.teacher(batch).logits)
        counted, tokens = counted_tokens(batch)
        options: Any = {"divergence": self.divergence, "beta": self.beta, "temperature": self.temperature}
        return {**batch.supervised(student), "kd": token_kd_loss(ours, theirs, counted, tokens=tokens, **options)}
