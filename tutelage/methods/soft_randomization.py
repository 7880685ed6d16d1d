"""Soft randomization: noise on the inputs of the student, with any other method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.method import Progress
from tutelage.core.registry import register
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.parts.altered import Altered
from tutelage.methods.parts.papers import ARANI
from tutelage.training.run import Run


@register(
    "soft-randomization",
    papers=[ARANI],
    reads={"images"},
    exceptions={"parts-of-a-batch-add-up": "the noise of a part is drawn anew"},
)
def soft_randomization(
    run: Run, distill: Callable[..., nn.Module], *, method: str = "kd", std: float = 0.1, clip: bool = False
) -> nn.Module:
    r"""Soft randomization: any method, whose student sees noisy inputs while its teacher sees them clean.

    $$ L = (1 - \alpha) H(q, p^s(x + \delta)) + \alpha T^2 \, \mathrm{KL}(p^t_T(x) \,\|\, p^s_T(x + \delta)),
    \quad \delta \sim N(0, \sigma^2) $$

    This is the loss for `kd`. With any other method the student sees noisy inputs as well. There is noise only in
    training. A network that the method trains first, such as the teacher of `tf-kd-self`, sees noisy inputs too.

    Args:
        run: The run whose stages these are.
        distill: Runs the method.
        method: The method, with options of its own: `at`, or `(kd:temperature=8,alpha=0.5)`.
        std: $\sigma$, in units of the inputs: of images in [0, 1], before each network's own normalisation.
        clip: Whether noisy images are brought back into [0, 1]. `mlld` needs this: it makes views of images in that
            range.

    Raises:
        UserError: If the deviation is below zero, or the inputs are not floats.

    Paper: Arani, Sarfraz, Zonooz, Noise as a Resource for Learning in Knowledge Distillation, WACV 2021.

    Differences: No code of the authors was found. Their levels of noise are not known to us: the default is our choice,
        and 0 is the method itself. One figure of the paper writes the divergence as $\mathrm{KL}(p^s \,\|\, p^t)$; here
        it is the method's, which is $\mathrm{KL}(p^t \,\|\, p^s)$ for `kd`. Whether noisy images are clipped is
        not known either.
    """
    if not std >= 0:
        raise UserError(f"std={std} must be zero or more.")
    return distill(method, run=run.wrapping(lambda inner: Altered(inner, InputNoise(std, clip=clip))))


class InputNoise(nn.Module):
    """Adds Gaussian noise to the student's inputs. The teacher sees the inputs without noise.

    Args:
        std: Its standard deviation, in units of the inputs.
        clip: Whether inputs with noise are brought back into [0, 1].
    """

    def __init__(self, std: float, *, clip: bool = False) -> None:
        super().__init__()
        self.std, self.clip = std, clip

    def forward(self, batch: Batch, progress: Progress) -> Batch:
        """Return the batch with noisy inputs."""
        # No random numbers are drawn either, so that 0 is exactly the method without noise.
        if not self.std:
            return batch
        # An earlier alteration may have set the teacher's inputs already.
        clean = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        return replace(batch, inputs=self._noisy(batch.inputs), teacher_inputs=clean)

    def _noisy(self, inputs: Any) -> Any:
        """Return a tensor, the floats of a mapping, or each of a sequence of views with noise."""
        if isinstance(inputs, Mapping):
            # Token ids and masks stay as they are. A mapping without floats goes on to the error below.
            floats = {key: self._noisy(value) for key, value in inputs.items() if _is_float(value)}
            if floats:
                return {**inputs, **floats}
        if isinstance(inputs, Sequence):
            return [self._noisy(view) for view in inputs]
        if not _is_float(inputs):
            raise UserError("Noise can only be added to floats, and these inputs have none: choose another method.")
        noisy = inputs + self.std * torch.randn_like(inputs)
        return noisy.clamp(0, 1) if self.clip else noisy


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
