"""FSP, "a gift from knowledge distillation": the teacher's flow between layers initialises the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec
from tutelage.core.pairing import AUTO, LayerPair, Paired, Seen, pair, reading, taps
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.padding import places, without_padding
from tutelage.losses import under_transform, wide
from tutelage.methods.parts.trunk import Trunk, thaw
from tutelage.methods.supervised import Supervised
from tutelage.training.run import Run

FSP = Paper(
    key="yim2017gift",
    title="A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
    authors="Yim, Junho and Joo, Donggyu and Bae, Jihoon and Kim, Junmo",
    venue="IEEE Conference on Computer Vision and Pattern Recognition",
    year=2017,
)

Variant = Literal["paper", "code"]


def fsp_matrix(first: Tensor, second: Tensor, *, variant: Variant = "code", mask: Tensor | None = None) -> Tensor:
    r"""Return the flow of a section: the mean product of each input channel with each output channel.

    $$ G_{ij} = \frac{1}{hw} \sum_{x=1}^{h} \sum_{y=1}^{w} F^1_{i,x,y} F^2_{j,x,y} $$

    The larger map is pooled to the smaller height and the smaller width first.

    Args:
        first: The section's input, `[batch, m, height, width]`.
        second: Its output, `[batch, n, height, width]`, with its own sizes.
        variant: `paper` pools by the maximum, `code` by the mean.
        mask: The places of both that are not padding, `[batch, 1, height, width]`; $hw$ is then their number.

    Returns:
        `[batch, m, n]`, in float32 or wider.
    """
    # The paper takes the maximum where sizes differ, released code the mean.
    pool = F.adaptive_max_pool2d if variant == "paper" else F.adaptive_avg_pool2d
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    one, two = (maps if tuple(maps.shape[2:]) == size else pool(wide(maps), size) for maps in (first, second))
    rows = [without_padding(maps, mask).flatten(2) for maps in (one, two)]
    with torch.autocast(first.device.type, enabled=False):
        # Transforms of torch.func do not take the hand-written gradient; there autograd keeps float32 copies.
        products: Tensor = wide(rows[0]) @ wide(rows[1]).mT if under_transform() else _Products.apply(*rows)
    return products / (size[0] * size[1] if mask is None else places(mask)[:, None, None])


class _Products(torch.autograd.Function):
    """The products of all channels of two maps. It keeps no float32 copies for the backward pass."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, two: Tensor) -> Tensor:
        # The maps as they come: in half precision that is half of what autograd would keep.
        ctx.save_for_backward(one, two)
        # Autocast would multiply in half precision.
        with torch.autocast(one.device.type, enabled=False):
            return wide(one) @ wide(two).mT

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        one, two = ctx.saved_tensors
        with torch.autocast(one.device.type, enabled=False):
            return (upstream @ wide(two)).to(one.dtype), (upstream.mT @ wide(one)).to(two.dtype)


def fsp_loss(student: Tensor, teacher: Tensor, *, variant: Variant = "code") -> Tensor:
    r"""Return the squared distance of a section's flow from the teacher's, the mean over the batch.

    $$ L = \frac{1}{B} \sum_b \| G^t_b - G^s_b \|_F^2 $$

    Args:
        student: FSP matrices `[batch, m, n]`.
        teacher: The teacher's FSP matrices, `[batch, m, n]`; no gradient flows into them.
        variant: `paper` sums over the entries of a matrix; `code` takes their mean, which is $mn$ times smaller.

    Raises:
        ValueError: If the shapes differ.

    Paper: Yim et al., A Gift from Knowledge Distillation, CVPR 2017.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"FSP matrices of shapes {tuple(student.shape)} and {tuple(teacher.shape)} differ in channels."
        )
    squares = (wide(student) - wide(teacher.detach())).square()
    return squares.sum((1, 2)).mean() if variant == "paper" else squares.mean()


@dataclass(frozen=True)
class Section:
    """A section of both networks: the input and the output of a layer of each."""

    first: LayerPair
    second: LayerPair

    def matrices(self, student: Output, teacher: Output, variant: Variant) -> tuple[Tensor, Tensor]:
        """Return the FSP matrices of the student's and of the teacher's section."""
        # Input and output of one network's section, at the places that both have.
        one, two, mask = LayerPair(self.first.student, self.second.student).compared(student, student)
        first, second, other = LayerPair(self.first.teacher, self.second.teacher).compared(teacher, teacher)
        return (
            fsp_matrix(one, two, variant=variant, mask=mask),
            fsp_matrix(first, second, variant=variant, mask=other),
        )


class FSPInitialization(Method):
    r"""The first stage of FSP: the student's flow becomes the teacher's, and nothing else is learned.

    $$ L = \sum_i \mathrm{fsp\_loss}(G^s_i, G^t_i) $$

    Args:
        student: The network to train; its layers after the last section stay frozen.
        teacher: The trained teacher.
        example: Inputs for one forward pass.
        layers: The sections: `auto` (the stages), or by name, `student_layer:teacher_layer`, joined by `+`.
        variant: `paper` pools by the maximum and sums over a matrix; `code` takes means for both.
        lr_scale: Factor on the learning rate of the run.

    Raises:
        UserError: If a section has other channels in the student than in the teacher.
    """

    student: Trunk

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        variant: Variant = "code",
        lr_scale: float = 1.0,
    ) -> None:
        super().__init__()
        seen = Seen.of(student, teacher, example)
        paired = _sections(student, teacher, layers, seen)
        self.teacher, self.pairs, self.variant, self.lr_scale = paired.teacher, paired.pairs, variant, lr_scale
        self.student = Trunk(paired.student.release(), paired.student.layers, example=seen.student)
        # The pairs are an input and an output by turns.
        self.sections = tuple(Section(*both) for both in zip(self.pairs[::2], self.pairs[1::2], strict=True))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the sum over the sections as `fsp`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        flows = [section.matrices(student, teacher, self.variant) for section in self.sections]
        return {"fsp": torch.stack([fsp_loss(*both, variant=self.variant) for both in flows]).sum()}

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the one optimizer, at its own learning rate."""
        return {name: replace(spec, lr_scale=self.lr_scale) for name, spec in super().optimizers().items()}


@register("fsp", papers=[FSP], losses=["fsp_matrix", "fsp_loss"], reads={"targets"}, family="features")
def fsp(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    layers: str = AUTO,
    variant: Variant = "code",
    init_share: float = 0.125,
    init_lr_scale: float = 1.0,
) -> nn.Module:
    r"""FSP: first the student learns how the teacher's features flow from layer to layer, then the labels alone.

    $$ L_1 = \sum_i \| G^t_i - G^s_i \|^2, \quad G_i = \frac{1}{hw} F^1_i (F^2_i)^\top; \qquad L_2 = H(q, p) $$

    The teacher gives only an initialisation. Student and teacher need equally many channels wherever they are compared.
    Their resolutions may differ.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The trained teacher.
        data: The data.
        example: Inputs for one forward pass.
        layers: The sections by name, `student_layer:teacher_layer`, joined by `+`; of each both input and output are
            read. `auto` takes the stages of the networks.
        variant: `paper` pools by the maximum, sums over the entries of a matrix, and the learning rate of the first
            stage takes the run's course. `code` pools by the mean, takes the mean over the entries, and the learning
            rate of the first stage is constant.
        init_share: Length of the first stage as a share of the run's epochs, on top of them.
        init_lr_scale: Factor on the learning rate in the first stage; the paper has 0.01.

    Raises:
        UserError: If a section has other channels in the student than in the teacher, or `init_share` is not above
            zero.

    Paper: Yim et al., A Gift from Knowledge Distillation, CVPR 2017.

    Differences: All $\lambda_i$ are 1. `code` is what released code does and tables show: 30 epochs before 240. There
        the second stage keeps the FSP term's weight in its settings, and has no such term. A section is a stage of the
        network from its input to its output, for CIFAR networks (stem, stage 1), (stage 1, stage 2), (stage 2, stage
        3); where a network pools between two stages, the pooled map is the input, and where a stage is not a module, a
        section is its last block. In the first stage all layers above the last section keep their weights and their
        batch-norm statistics, the final normalisation of pre-activation networks too. Weight decay and the run's
        warm-up apply in both stages.
    """
    if not init_share > 0:
        raise UserError(f"init_share={init_share} must be above zero: the teacher takes part only in the first stage.")
    method = FSPInitialization(student, teacher, example, layers=layers, variant=variant, lr_scale=init_lr_scale)
    epochs = max(1, round(init_share * run.training.epochs))
    # Released code keeps the learning rate for the whole first stage; the paper lowers it.
    schedule: Literal["constant"] | None = "constant" if variant == "code" else None
    # The last weights: the classifier is not trained yet, so a validation score would say nothing.
    network = run.fit("initialise", method, data, epochs=epochs, keep="last", schedule=schedule)
    return run.fit("distill", Supervised(thaw(network, method.student.waiting)), data)


def _sections(student: nn.Module, teacher: Teacher, layers: str, seen: Seen) -> Paired:
    """Return a student and a teacher that read the input and then the output of each of their sections."""
    # Pairing finds the ends of the sections. Both networks are then released, to be read at the inputs as well.
    ends = pair(student, teacher, layers, seen)
    network = ends.student.release()
    ends.teacher.release()
    # The input first, then the output: `FSPInitialization` takes them by turns.
    places = [(p.student.layer + end, p.teacher.layer + end) for p in ends.pairs for end in (":in", "")]
    ours = taps(network, [one for one, _ in places], seen.student, who="student")
    theirs = teacher.taps([other for _, other in places], seen.teacher)
    pairs = [LayerPair(ours[one], theirs[other]) for one, other in places]
    for found in pairs:
        _check_channels(found)
    return reading(network, teacher, pairs, seen, logits=False)


def _check_channels(found: LayerPair) -> None:
    if found.student.channels != found.teacher.channels:
        raise UserError(
            "fsp compares matrices of channels by channels, and so needs equally many in student and teacher: "
            f"{found.student.layer} of the student has {found.student.channels} channels, {found.teacher.layer} of the "
            f"teacher {found.teacher.channels}. Choose networks of one width, such as resnet20 and resnet110; name "
            "sections that agree with --layers student_layer:teacher_layer; or choose a method that maps one width to "
            "the other, such as fitnet."
        )
