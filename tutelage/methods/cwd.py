"""Channel-wise distillation: of each channel, the student matches where in the image the teacher is active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from tutelage.core.logit_maps import reading_logit_maps
from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting, taken_by
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import through
from tutelage.features.trace import Trace
from tutelage.losses import LOG_ZERO, check_shapes, check_temperature, divergences, wide

CHANNEL_WISE = Paper(
    key="shu2021channel",
    title="Channel-wise Knowledge Distillation for Dense Prediction",
    authors="Shu, Changyong and Liu, Yifan and Gao, Jianfei and Yan, Zheng and Shen, Chunhua",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2021,
    arxiv="2011.13256",
)

On = Literal["auto", "logits", "features"]


@register(
    "cwd",
    papers=[CHANNEL_WISE],
    reads=(),
    uses={"targets"},
    reads_if={"on=logits": {"answers", "maps"}},
    family="features",
    losses=["channel_loss"],
)
class CWD(Method):
    r"""Channel-wise distillation: of each channel, the student matches where in the image the teacher is active.

    $$ L = H(q, p) + \alpha \frac{T^2}{N C} \sum_{n,c} \mathrm{KL}(\phi_T(t_{nc}) \,\|\, \phi_T(s_{nc})), \qquad
       \phi_T(y)_i = \frac{\exp(y_i / T)}{\sum_j \exp(y_j / T)} $$

    $\phi_T$ is a softmax over the places of a channel, where plain distillation has one over the channels of a place.
    What is constant over a channel does not matter. Maps of logits are compared where networks classify pixels, at the
    stride at which they are computed; the features of the last stages otherwise. Without labels the first term is left
    out.

    Of logits, the authors' runs have $\alpha$ from 3 to 5 at $T$ from 1 to 5, and a reimplementation (MMRazor)
    $\alpha = 5$ at $T = 1$; of features, the authors have $\alpha = 50$ in the paper and 35 in later runs.

    Args:
        student: The network to train.
        teacher: A teacher whose answers are maps, or with a network inside.
        example: Inputs for one forward pass.
        on: `logits`, `features`, or `auto`: the logits if the student answers with a map of classes, else features.
        layers: Of features: `auto` takes the ends of the last stages; or pairs by name, `student:teacher`, joined by
            `+`.
        temperature: $T$, above zero.
        alpha: $\alpha$, zero or more.

    Raises:
        UserError: If a hyper-parameter is out of range, layers are named for logits, or a pair of layers has only one
            place, where every softmax is 1.

    Paper: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021.

    Differences: The authors' code takes the logarithm of a softmax, which is minus infinite for large maps in half
        precision; here it is a log-softmax. Void pixels are not left out, as in the code. Maps of different sizes are
        pooled to the smaller one. As in the code, features pass a 1x1 convolution, a batch norm and a ReLU, which are
        trained and do not ship. The adversarial term that the code can add is that of `structured`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        on: On = "auto",
        layers: str = AUTO,
        temperature: float = 4.0,
        alpha: float = 3.0,
    ) -> None:
        check_temperature(temperature)
        if not alpha >= 0:
            raise UserError(f"alpha={alpha} must be zero or more: a negative one drives the maps apart.")
        super().__init__({"channels": alpha})
        self.temperature = temperature
        trace = Trace.of(student, example)
        # One number a place, such as a depth, is no score of which places a class is at.
        has_scores = trace.logits.ndim == 4 and trace.logits.shape[1] > 1
        has_maps = has_scores if on == "auto" else on == "logits"
        self.adapters = nn.ModuleList()
        if has_maps and layers == AUTO:
            self.student, self.teacher, self._logit_maps = reading_logit_maps(student, teacher, example)
            return
        if on == "logits":
            raise UserError(f"layers={layers} names features: leave it at auto for on=logits, or choose on=features.")
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="last", logits=False)
        for one in self.pairs:
            _check_places(one)
            self.adapters.append(adapting(_Adapter(one), student))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the channels' divergence as `channels`, the sum over the pairs."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        if not self.pairs:
            ours, theirs = self._logit_maps.of(student, teacher)
            return {**batch.supervised(student.logits), "channels": channel_loss(ours, theirs, self.temperature)}
        terms = []
        for one, adapter in zip(self.pairs, self.adapters, strict=True):
            ours, theirs, mask = one.compared(student, teacher)
            adapted = through(adapter, taken_by(adapter, ours), mask)
            if adapted.shape[2:] != theirs.shape[2:]:
                adapted, theirs = pool_to_smaller(wide(adapted), wide(theirs))
            terms.append(channel_loss(adapted, theirs, self.temperature, mask=mask))
        return {**batch.supervised(student.logits), "channels": sum(terms[1:], start=terms[0])}


def channel_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, *, mask: Tensor | None = None) -> Tensor:
    r"""Return $\frac{T^2}{N C} \sum_{n,c} \mathrm{KL}(\phi_T(t_{nc}) \,\|\, \phi_T(s_{nc}))$, a scalar.

    Args:
        student: `[batch, channel, height, width]`.
        teacher: The same shape; no gradient flows into it.
        temperature: $T$, above zero.
        mask: Places that are not padding, `[batch, 1, height, width]`; all by default.

    Raises:
        ValueError: If the shapes differ.
        UserError: If the temperature is not above zero.
    """
    check_shapes(student, teacher)
    if mask is not None:
        student, teacher = (wide(maps).masked_fill(~mask, LOG_ZERO) for maps in (student, teacher))
    each = divergences(student.flatten(2), teacher.flatten(2), temperature, dim=2)
    return each.mean() * temperature**2


class _Adapter(nn.Sequential):
    """Brings the channels of a student's map to those of its teacher's."""

    def __init__(self, pair: LayerPair) -> None:
        channels = pair.teacher.channels
        # Without a bias, which the batch norm would take away.
        super().__init__(nn.Conv2d(pair.student.channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def _check_places(pair: LayerPair) -> None:
    height, width = (min(sizes) for sizes in zip(pair.student.size, pair.teacher.size))
    if height * width == 1:
        raise UserError(
            f"The layers {pair} share one place, and there every softmax over places is 1: there is nothing to "
            "transfer. Name layers with maps in layers=, or choose a method for vectors."
        )
