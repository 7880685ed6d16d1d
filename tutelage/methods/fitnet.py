"""FitNets: the student's middle layer learns to predict the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, Seen, pair
from tutelage.core.registry import Paper, register
from tutelage.core.schedules import linear
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.padding import mean_of_squares
from tutelage.losses import wide
from tutelage.methods.parts.regressor import Regressor
from tutelage.methods.parts.trunk import Trunk, thaw
from tutelage.training.run import Run

FITNETS = Paper(
    key="romero2015fitnets",
    title="{FitNets}: Hints for Thin Deep Nets",
    authors="Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo "
    "and Bengio, Yoshua",
    venue="International Conference on Learning Representations",
    year=2015,
    arxiv="1412.6550",
)

Variant = Literal["one-stage", "paper"]


def hint_loss(regressed: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean squared error of a regressed map, over all its elements.

    $$ L = \frac{1}{B c h w} \| r(F^s) - F^t \|^2 $$

    Args:
        regressed: A regressor's output for the student's map, `[batch, channel, height, width]`.
        teacher: The teacher's map, of the same shape; no gradient flows into it.
        mask: Places that are not padding, `[batch, 1, height, width]`. The mean is taken within each sample first.

    Raises:
        ValueError: If the shapes differ.

    Paper: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015.
    """
    if regressed.shape != teacher.shape:
        raise ValueError(
            f"The regressed map has the shape {tuple(regressed.shape)}, and the teacher's {tuple(teacher.shape)}."
        )
    error = wide(regressed) - wide(teacher.detach())
    return error.square().mean() if mask is None else mean_of_squares(error, mask).mean()


class Hint(nn.Module):
    """The regressors of some pairs of layers, and their error in predicting the teacher.

    Args:
        pairs: The pairs.
        final_relu: Whether the regressors end with a ReLU.
    """

    def __init__(self, pairs: Sequence[LayerPair], *, final_relu: bool) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.regressors = nn.ModuleList(
            Regressor(p.student.channels, p.student.size, p.teacher.channels, p.teacher.size, final_relu=final_relu)
            for p in pairs
        )

    def forward(self, student: Output, teacher: Output) -> Tensor:
        """Return the sum of `hint_loss` over the pairs."""
        terms = []
        for found, regressor in zip(self.pairs, self.regressors, strict=True):
            guided, hint, mask = found.compared(student, teacher)
            # The hint's own size: sequences have other lengths than the example.
            terms.append(hint_loss(regressor(guided, (hint.shape[2], hint.shape[3]), mask), hint, mask))
        return torch.stack(terms).sum()


class FitNet(Method):
    r"""FitNets in one stage: the labels and the hint at once.

    $$ L = H(q, p) + \beta \, \frac{1}{B c h w} \| r(F^s) - F^t \|^2 $$

    Args:
        student: The network to train.
        teacher: The trained teacher.
        example: Inputs for one forward pass.
        layers: The hint: `auto`, the end of the middle stage; or pairs by name, `student_layer:teacher_layer`.
        weight: $\beta$.
        final_relu: Whether the regressor ends with a ReLU.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        weight: float = 100.0,
        final_relu: bool = False,
    ) -> None:
        super().__init__({"ce": 1.0, "hint": weight})
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="middle", logits=False)
        self.hint = adapting(Hint(self.pairs, final_relu=final_relu), student)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the mean squared error of the regressed maps as `hint`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        return {**batch.supervised(student.logits), "hint": self.hint(student, teacher)}


class FitNetHints(Method):
    r"""The first stage of FitNets: only the student's layers up to the hint are trained.

    $$ L = \frac{1}{2} \, \frac{1}{B c h w} \| r(F^s) - F^t \|^2 $$

    Args:
        student: The network to train; its layers after the hint stay frozen.
        teacher: The trained teacher.
        example: Inputs for one forward pass.
        layers: The hint: `auto`, the end of the middle stage; or pairs by name, `student_layer:teacher_layer`.
        final_relu: Whether the regressor ends with a ReLU.
    """

    student: Trunk

    def __init__(
        self, student: nn.Module, teacher: Teacher, example: Any, *, layers: str = AUTO, final_relu: bool = False
    ) -> None:
        # The paper's factor of one half.
        super().__init__({"hint": 0.5})
        seen = Seen.of(student, teacher, example)
        # The teacher's logits are not read, so nothing behind the hint has to run.
        paired = pair(student, teacher, layers, seen, take="middle", logits=False)
        self.teacher, self.pairs = paired.teacher, paired.pairs
        # Pairing made the student read its layers. Released from that, it is read again, as a trunk.
        self.student = Trunk(paired.student.release(), paired.student.layers, example=seen.student)
        self.hint = adapting(Hint(self.pairs, final_relu=final_relu), student)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the mean squared error of the regressed maps as `hint`."""
        return {"hint": self.hint(self.student(batch.inputs), self.teacher(batch))}


class FitNetDistillation(Method):
    r"""The second stage of FitNets: KD with a weight that falls during training.

    $$ L = H(q, p) + \lambda(t) \, \mathrm{KL}(p^t_T \,\|\, p^s_T) $$

    Args:
        student: The network from the first stage.
        teacher: Any teacher that gives logits.
        temperature: $T$.
        kd_start: $\lambda$ at the start.
        kd_end: $\lambda$ at the end; in between it falls on a straight line.
        t_squared: Whether the soft term is multiplied by $T^2$.

    Raises:
        UserError: If the temperature is not above zero.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        temperature: float = 3.0,
        kd_start: float = 4.0,
        kd_end: float = 1.0,
        t_squared: bool = False,
    ) -> None:
        if not temperature > 0:
            raise UserError(f"temperature={temperature} must be above zero.")
        # lambda(t) of the equation.
        super().__init__({"ce": 1.0, "kd": linear(kd_start, kd_end)})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.temperature, self.t_squared = temperature, t_squared

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the soft term as `kd`."""
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        soft = batch.criterion.divergence(student, teacher, self.temperature, t_squared=self.t_squared)
        return {**batch.supervised(student), "kd": soft}


@register(
    "fitnet",
    papers=[FITNETS],
    losses=["hint_loss"],
    reads=(),
    uses={"targets"},
    reads_if={"variant=paper": {"answers"}},
    family="features",
)
def fitnet(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    variant: Variant = "one-stage",
    layers: str = AUTO,
    weight: float = 100.0,
    final_relu: bool = False,
    hint_share: float = 0.5,
    temperature: float = 3.0,
    kd_start: float = 4.0,
    kd_end: float = 1.0,
    t_squared: bool = False,
) -> nn.Module:
    r"""FitNets: a regressor predicts the teacher's middle layer from the student's.

    $$ L = H(q, p) + \beta \, \mathrm{mean}\big( (r(F^s) - F^t)^2 \big) $$

    `one-stage`, above, is what tables of the literature call FitNet. The paper has two: first the student up to the
    hint and the regressor learn $\frac{1}{2} \| r(F^s) - F^t \|^2$ alone, then the whole student learns
    $H(q, p) + \lambda(t) \, \mathrm{KL}(p^t_T \,\|\, p^s_T)$ from there, without the regressor.

    Without labels $H(q, p)$ is left out: in one stage the student then learns only as far as the hint.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The trained teacher.
        data: The data.
        example: Inputs for one forward pass.
        variant: `one-stage` or `paper`.
        layers: Where the hint is: `auto`, the end of the middle stage; or pairs by name,
            `student_layer:teacher_layer`, joined by `+`.
        weight: $\beta$ of the one stage.
        final_relu: Whether the regressor ends with a ReLU, as released code does. Such a regressor never reaches the
            negative values of a teacher whose stages end without one: a Wide ResNet, a MobileNetV2.
        hint_share: Paper: length of the first stage as a share of the run's epochs, on top of them.
        temperature: Paper: $T$ of the second stage.
        kd_start: Paper: $\lambda$ at the start of the second stage.
        kd_end: Paper: $\lambda$ at its end; in between it falls on a straight line.
        t_squared: Paper: whether the soft term is multiplied by $T^2$.

    Raises:
        UserError: If the teacher has no layers to read, `hint_share` is not above zero, or the temperature is not above
            zero.

    Paper: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015.

    Differences: The squared error is the mean over all elements, in both variants; the paper's sum would need another
        learning rate for every network. Released code always ends the regressor with a ReLU (`final_relu=true`) and can
        only double the size of a map; other sizes are interpolated here. A map of odd size is halved by stride 2 too.
        The one regressor, with batch norm, serves both variants. Of the paper: both stages take the run's learning
        rate; the lengths, the line on which $\lambda$ falls, and the soft term without $T^2$ are our choice, and its KL
        divergence has the gradient of a soft cross-entropy. In the first stage all layers above the hint keep their
        weights and their batch-norm statistics.
    """
    if variant == "one-stage":
        method = FitNet(student, teacher, example, layers=layers, weight=weight, final_relu=final_relu)
        return run.fit("distill", method, data)
    if not hint_share > 0:
        raise UserError(f"hint_share={hint_share} must be above zero: without hints choose kd.")
    hints = FitNetHints(student, teacher, example, layers=layers, final_relu=final_relu)
    epochs = max(1, round(hint_share * run.training.epochs))
    # The last weights: the classifier is not trained yet, so a validation score says nothing about the hints. All of
    # the network is trained again afterwards.
    network = thaw(run.fit("hints", hints, data, epochs=epochs, keep="last"), hints.student.waiting)
    distillation = FitNetDistillation(
        network, teacher, temperature=temperature, kd_start=kd_start, kd_end=kd_end, t_squared=t_squared
    )
    return run.fit("distill", distillation, data)
