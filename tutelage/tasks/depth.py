"""Depth: every pixel has a distance in metres or none, and a network answers each with the logarithm of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.augment import Augmentation
from tutelage.data.criterion import Density
from tutelage.data.depth_maps import DEPTHS, NO_DEPTH, DepthMaps
from tutelage.data.names import Spec
from tutelage.data.offers import Offer
from tutelage.data.survey import Survey
from tutelage.data.targets import as_array
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError, notice, unknown
from tutelage.evaluation.depth_pictures import depth_png
from tutelage.evaluation.shown import Shown
from tutelage.features.adapting import in_one_type
from tutelage.losses import Reduction, check_shapes, wide
from tutelage.models.answers import at_size

DepthLoss = Literal["scale-invariant", "berhu"]
# Of the squared mean, as Eigen et al. train.
_INVARIANCE = 0.5
# Of the largest error of a batch, as Laina et al. have it.
_BERHU_SHARE = 0.2
_STEP = math.log(1.25)
# To which answers are cut when they are measured, in metres, as is customary: a batch norm that has seen few batches
# can answer with any number, whose exponential would be all that a mean shows.
_CUT = (1e-3, 1e4)
# A median of the user's own targets beyond these, in metres, is told.
_NEAREST, _FARTHEST = 0.01, 1000.0


def scale_invariant_loss(answer: Tensor, depths: Tensor, invariance: float = _INVARIANCE) -> Tensor:
    r"""Return $\frac{1}{n} \sum_i d_i^2 - \frac{\lambda}{n^2} (\sum_i d_i)^2$, $d_i = \log \hat y_i - \log y_i$.

    The mean over the images that have a depth; 0, with a gradient of 0, where none has.

    Args:
        answer: $\log \hat y$, `[batch, height, width]`.
        depths: $y$ in metres, the same shape; 0 or below where there is none.
        invariance: $\lambda$: 0 is the squared error of logarithms, and 1 does not see a factor on all depths.

    Paper: Eigen, Puhrsch, Fergus, Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, NeurIPS
        2014, eq. 4, which is trained with $\lambda = 0.5$.
    """
    raw, known = wide(answer), depths > NO_DEPTH
    gaps = torch.where(known, raw - depths.to(raw.dtype).where(known, 1.0).log(), 0.0).flatten(1)
    counts = known.flatten(1).sum(1)
    n = counts.clamp(min=1)
    each = gaps.square().sum(1) / n - invariance * (gaps.sum(1) / n).square()
    return each.sum() / (counts > 0).sum().clamp(min=1)


def berhu_loss(answer: Tensor, depths: Tensor) -> Tensor:
    r"""Return the mean reverse Huber loss of depths in metres: $|e|$ up to $c$, and $(e^2 + c^2) / 2c$ beyond.

    $c$ is a fifth of the largest error in the batch, a constant for the gradient. 0, with a gradient of 0, where no
    pixel has a depth.

    Args:
        answer: $\log \hat y$, `[batch, height, width]`; $e = \hat y - y$.
        depths: $y$ in metres, the same shape; 0 or below where there is none.

    Paper: Laina et al., Deeper Depth Prediction with Fully Convolutional Residual Networks, 3DV 2016, eq. 1 and 2.
    """
    raw, known = wide(answer), depths > NO_DEPTH
    # Where there is no depth, zero is put in before the exponential, whose overflow would make the gradient NaN.
    errors = torch.where(known, raw.where(known, 0.0).exp() - depths.to(raw.dtype), 0.0).abs()
    bend = (_BERHU_SHARE * errors.detach().max()).clamp(min=torch.finfo(raw.dtype).tiny)
    losses = torch.where(errors <= bend, errors, (errors.square() + bend.square()) / (2 * bend))
    return losses.sum() / known.sum().clamp(min=1)


class LogDepth:
    """Logarithms of depths in metres, `[batch, 1, height, width]`.

    Args:
        loss: `scale-invariant` or `berhu`.
    """

    def __init__(self, loss: DepthLoss = "scale-invariant") -> None:
        self._loss = {"scale-invariant": scale_invariant_loss, "berhu": berhu_loss}[loss]

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the loss against the pixels that have a depth.

        Args:
            answer: `[batch, 1, height, width]`; of another size than the maps, it is brought to theirs.
            targets: Metres `[batch, height, width]`, 0 or below where there is none.
        """
        return self._loss(at_size(answer, (targets.shape[-2], targets.shape[-1]))[:, 0], targets)

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return the mean squared difference of two networks' logarithms, at every pixel; temperatures have no effect.

        Raises:
            ValueError: If the shapes differ.
        """
        check_shapes(student, teacher)
        return F.mse_loss(*in_one_type(student, teacher.detach()))

    def mean(self, answers: Tensor) -> Tensor:
        """Return the mean of the members' logarithms, which is their depths' geometric mean.

        Args:
            answers: `[member, batch, 1, height, width]`.
        """
        return wide(answers).mean(0)


class Depth(Task):
    """A depth for each pixel: scale-invariant loss, absolute relative error, and the usual metrics beside it.

    A network answers with natural logarithms of metres, so that every answer is a depth above zero. One that answers
    with metres is wrapped: `torch.log` of its answer.

    Where an image is enlarged by a factor, its depths are divided by it, as Eigen et al. do: with the same lens, things
    look larger because they are nearer. Resizing all images to one size (`image_size`) changes no depth.

    Args:
        loss: `scale-invariant` or `berhu`.
    """

    name = "depth"
    title = "depth"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "abs_rel": Metric(title="absolute relative error", short="AbsRel", higher_is_better=False),
            "rmse": Metric(title="root mean squared error", short="RMSE", unit="m", higher_is_better=False, digits=3),
            "log10": Metric(title="mean error of log10", short="log10", higher_is_better=False),
            "delta1": Metric(title="share within a factor of 1.25", short="δ<1.25", unit="share", digits=2),
            "delta2": Metric(title="share within a factor of 1.25²", unit="share", digits=2),
            "delta3": Metric(title="share within a factor of 1.25³", unit="share", digits=2),
        }
    )
    primary = "abs_rel"
    watched = ("abs_rel", "rmse", "delta1")
    judges = watched
    # Neither `classes` nor `labels`: a softmax over one number means nothing.
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "maps", "images"})
    outputs = ("value", "values")
    map_format = DEPTHS
    missing = NO_DEPTH
    augmentation = "scale:1:1.5,flip,colour:0.3"

    def __init__(self, loss: DepthLoss = "scale-invariant") -> None:
        self.criterion = LogDepth(loss)
        self._loss: DepthLoss = loss
        # With another loss, a run is another one.
        self.salt = b"depth" if loss == "scale-invariant" else f"depth {loss}".encode()

    def configured(self, options: Mapping[str, str]) -> Depth:
        """Return the task with another loss: `depth,loss=berhu`."""
        for key in options:
            if key != "loss":
                raise unknown("option of the task depth", key, ["loss"])
        chosen: DepthLoss | None = next((one for one in get_args(DepthLoss) if one == options["loss"]), None)
        if chosen is None:
            raise unknown("loss of the task depth", options["loss"], get_args(DepthLoss))
        return Depth(chosen)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its name, or by its loss if that is not the usual one."""
        return super().__reduce__() if self._loss == "scale-invariant" else (Depth, (self._loss,))

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return metres, float32 `[sample, height, width]`, 0 where there is none: 0, below it, NaN, infinite."""
        if isinstance(values, list | tuple):
            values = [value if isinstance(value, Tensor) else np.asarray(value) for value in values]
        found = as_array(values, where=where)
        if found.ndim == 4 and 1 in (found.shape[1], found.shape[3]):
            found = found[:, 0] if found.shape[1] == 1 else found[..., 0]
        if found.ndim != 3 or found.dtype.kind != "f":
            raise UserError(
                f"The targets of {where} have the shape {list(found.shape)} of {found.dtype}: the task 'depth' takes a "
                "map of fractions [height, width] a sample, in metres. Divide millimetres by 1000."
            )
        known = np.isfinite(found) & (found > NO_DEPTH)
        return torch.from_numpy(np.where(known, found, NO_DEPTH).astype(np.float32))

    def map_reader(self, surveys: Mapping[str, Survey], where: Spec) -> DepthMaps:
        """Return what turns the numbers in files into metres."""
        return DepthMaps(surveys, where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return 1; refuse maps without a depth, and tell a median that is no depth which a camera sees."""
        known = targets[targets > NO_DEPTH]
        if not len(known):
            raise UserError("The depth maps hold no depth: all numbers are 0, below it, or no finite numbers.")
        typical = float(known.median())
        if not _NEAREST <= typical <= _FARTHEST:
            notice(f"The depths have a median of {typical:,.4g} metres, so their unit may be another one: give metres.")
        return 1

    def under_view(self, targets: Tensor, augmentation: Augmentation, view: Tensor) -> Tensor:
        """Return the depths of images that were augmented: moved, and divided by how much things were enlarged."""
        moved = super().under_view(targets, augmentation, view)
        return moved / augmentation.zoom(view).to(moved)[:, None, None]

    def decided(self, answer: Tensor) -> Tensor:
        """Return the answered numbers as they are."""
        return answer

    def answer_maps(self, answer: Tensor) -> NDArray[Any]:
        """Return millimetres in 16 bits, as depth maps are usually stored; what is farther than 65.5 m is 65.5 m."""
        millimetres = (1000 * answer[:, 0].double().exp()).round().clamp(1, np.iinfo(np.uint16).max)
        return millimetres.numpy().astype(np.uint16)

    def picture_of(self, targets: Tensor) -> str:
        """Return a map of metres `[height, width]` as a small PNG in base64."""
        return depth_png(targets)

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> DepthMeter:
        """Return a fresh meter."""
        return DepthMeter(keeps_pictures=detail != "watched")

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not answer with one map of numbers."""
        if len(shape) != 4 or shape[:2] != (samples, 1):
            raise UserError(
                f"The {who} answers {samples} samples with shape {shape}, but {data} has one depth for each pixel: it "
                f"should be ({samples}, 1, height, width), of any size, in logarithms of metres. Such networks by "
                "name: smp:Unet,encoder=resnet18."
            )


class DepthMeter(Meter):
    """The usual errors of depths, over all pixels of all images that have a depth; sums in float64.

    Answers are cut to 1 mm and 10 km.

    Args:
        keeps_pictures: Whether to keep a few answers to be drawn.
    """

    def __init__(self, *, keeps_pictures: bool = True) -> None:
        self._sums = torch.zeros(7, dtype=torch.float64)
        self._shown = Shown(depth_png) if keeps_pictures else None

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Take in logarithms `[batch, 1, height, width]` of any size, and metres `[batch, height, width]`."""
        logs = at_size(wide(answer), (targets.shape[-2], targets.shape[-1]))[:, 0]
        logs = logs.clamp(*map(math.log, _CUT))
        if self._shown is not None:
            self._shown.update(logs.exp())
        known = targets > NO_DEPTH
        # On the CPU, because not every device has float64.
        found, wanted = logs[known].double().cpu(), targets[known].double().cpu()
        gap, error = (found - wanted.log()).abs(), found.exp() - wanted
        within = [(gap < power * _STEP).sum() for power in (1, 2, 3)]
        sums = [(error.abs() / wanted).sum(), error.square().sum(), gap.sum() / math.log(10), *within]
        self._sums += torch.stack([torch.tensor(float(len(wanted))), *(one.double() for one in sums)])

    def merge(self, later: DepthMeter) -> None:
        """Add the pixels that another meter saw."""
        self._sums += later._sums
        if self._shown is not None and later._shown is not None:
            self._shown.merge(later._shown)

    def compute(self) -> dict[str, float]:
        """Return the errors; none without a pixel that has a depth."""
        count, *sums = self._sums.tolist()
        if not count:
            return {}
        rel, square, log10, *within = (one / count for one in sums)
        shares = {f"delta{power}": share for power, share in enumerate(within, 1)}
        return {"abs_rel": rel, "rmse": math.sqrt(square), "log10": log10, **shares}

    def pictures(self) -> dict[str, Any]:
        """Return some answers as images."""
        return {} if self._shown is None else {"maps": self._shown.images()}


DEPTH = Depth()
