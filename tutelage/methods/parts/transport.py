r"""Optimal transport between two distributions over classes, with an entropy term, in log-space.

The plan of a sample is $P_{ij} = \exp(f_i + g_j - c_{ij} / \varepsilon)$, whose rows sum to $a$ and whose columns sum
to $b$. Sinkhorn's iterations find $f$ and $g$. All samples share the cost, so that an iteration is a product of
`[batch, class]` and `[class, class]`, and nothing of the size of batch times class times class is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError, notice
from tutelage.losses import refuse_second_derivative, wide

# With a larger contrast, the smallest entries of the kernel are no longer normal numbers of float32.
_LARGEST_CONTRAST = 80.0
_MOST_ITERATIONS = 5000
# More of them find nothing but rounding errors.
_MOST_STEPS = 300
# Share of the mass below which a class counts for nothing in the gradient of the others.
_NOTHING = 1e-12
# Steps of this length took between a third and a half of the plain iterations in trials, and never failed; from 1.8 on
# some went in circles.
_RELAXATION = 1.5
# The host waits for an accelerator at each look, so it looks seldom.
_BETWEEN_LOOKS = 10


def transport_costs(
    log_from: Tensor,
    log_to: Tensor,
    cost: Tensor,
    *,
    epsilon: float = 0.05,
    tolerance: float = 1e-4,
    iterations: int | None = None,
) -> Tensor:
    r"""Return what each sample's plan costs, $\sum_{ij} P_{ij} c_{ij}$, without the entropy, `[batch]`.

    Args:
        log_from: $\log a$, `[batch, class]`; $-\infty$ where a class takes no part.
        log_to: $\log b$, the same; no gradient flows into it.
        cost: $c$, `[class, class]`, zero or more.
        epsilon: $\varepsilon$, weight of the entropy.
        tolerance: The iterations end when the columns of every plan sum to $b$ up to this, in total over the classes
            (the rows always sum to $a$). The gradient is that of the plan at the end, by the implicit function theorem.
        iterations: Their number instead; the gradient then goes through each of them.

    Raises:
        UserError: If the entropy's weight is too small for the costs.
    """
    check_contrast(cost, epsilon)
    with torch.autocast(log_from.device.type, enabled=False):
        log_from = wide(log_from)
        log_to, cost = (one.detach().to(log_from) for one in (log_to, cost))
        if iterations is None:
            found: Tensor = _Converged.apply(log_from, log_to, cost, epsilon, tolerance)
            return found
        f, g = sinkhorn(log_from, log_to, torch.exp(-cost / epsilon), iterations)
        return _cost(f, g, cost, epsilon)


def check_contrast(cost: Tensor, epsilon: float) -> None:
    """Refuse a weight of the entropy that is too small for the costs.

    Raises:
        UserError: If it is, or if it is not above zero.
    """
    least = float(cost.max()) / _LARGEST_CONTRAST
    if not epsilon > 0 or epsilon < least:
        raise UserError(f"epsilon={epsilon} must be above zero, and {least:.3g} at least for costs up to {cost.max()}.")


def sinkhorn(log_from: Tensor, log_to: Tensor, kernel: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    r"""Return the potentials $f$ and $g$, `[batch, class]`, after some iterations.

    Args:
        log_from: $\log a$, `[batch, class]`.
        log_to: $\log b$, the same.
        kernel: $\exp(-c / \varepsilon)$, `[class, class]`.
        iterations: Their number.
    """
    f, g = _start(log_from), log_to
    for _ in range(iterations):
        g = log_to - _log_product(f, kernel)
        f = log_from - _log_product(g, kernel.T)
    return f, g


def converged(log_from: Tensor, log_to: Tensor, kernel: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the potentials $f$ and $g$, `[batch, class]`, of plans whose columns are right up to a tolerance.

    Args:
        log_from: Logarithm of what the rows sum to, `[batch, class]`.
        log_to: Logarithm of what the columns sum to, the same.
        kernel: `[class, class]`, see `sinkhorn`.
        tolerance: Largest total error of a plan's columns; the rows are right.
    """
    f, g, absent = _start(log_from), _start(log_to), log_from.isneginf()
    kept_f, kept_g, ended = f, g, torch.zeros_like(absent[:, :1])
    for done in range(1, _MOST_ITERATIONS + 1):
        g = _relaxed(g, log_to - _log_product(f, kernel), absent)
        exact = log_from - _log_product(g, kernel.T)
        if done % _BETWEEN_LOOKS == 0:
            error = ((g + _log_product(exact, kernel)).exp() - log_to.exp()).abs().sum(1, keepdim=True)
            # Each sample ends by itself, so that what it costs does not depend on the others of its batch.
            kept_f, kept_g = kept_f.where(ended, exact), kept_g.where(ended, g)
            # A NaN of the network's is no error of the transport, and shows in the loss.
            ended = ended | ~(error > tolerance)
            if bool(ended.all()):
                return kept_f, kept_g
        f = _relaxed(f, exact, absent)
    notice(
        f"After {_MOST_ITERATIONS} iterations the transport is off by {error.max():.2g}, which is more than the "
        f"tolerance of {tolerance:g}: the training goes on with that. Choose a larger tolerance, or a larger epsilon."
    )
    return kept_f, kept_g


def _start(log_of: Tensor) -> Tensor:
    return torch.zeros_like(log_of).masked_fill(log_of.isneginf(), -math.inf)


def _relaxed(before: Tensor, found: Tensor, absent: Tensor) -> Tensor:
    # Of two infinities no difference can be taken.
    return torch.lerp(before, found, _RELAXATION).masked_fill(absent, -math.inf)


def _log_product(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the logarithm of exp(x) @ kernel. What is too small for float32 is small beside the rest."""
    top = x.detach().amax(1, keepdim=True)
    return top + ((x - top).exp() @ kernel).log()


def _cost(f: Tensor, g: Tensor, cost: Tensor, epsilon: float) -> Tensor:
    """Return the cost of each plan, `[batch]`."""
    costly = cost * torch.exp(-cost / epsilon)
    top_f, top_g = f.detach().amax(1, keepdim=True), g.detach().amax(1, keepdim=True)
    scaled = (((f - top_f).exp() @ costly) * (g - top_g).exp()).sum(1)
    return scaled * (top_f + top_g)[:, 0].exp()


class _Converged(torch.autograd.Function):
    """The cost of the plans at which Sinkhorn's iterations end, and its gradient there.

    Both sums of a plan are known. Differentiating them gives a linear system for the gradient, which takes no memory,
    however many iterations there were.
    """

    @staticmethod
    def forward(ctx: Any, log_from: Tensor, log_to: Tensor, cost: Tensor, epsilon: float, tolerance: float) -> Tensor:
        f, g = converged(log_from, log_to, torch.exp(-cost / epsilon), tolerance)
        ctx.save_for_backward(log_from, f, g, cost)
        ctx.epsilon, ctx.tolerance = epsilon, tolerance
        return _cost(f, g, cost, epsilon)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        refuse_second_derivative()
        log_from, f, g, cost = ctx.saved_tensors
        slope = _slope(f, g, cost, ctx.epsilon, ctx.tolerance)
        return upstream[:, None] * log_from.exp() * slope, None, None, None, None


def _slope(f: Tensor, g: Tensor, cost: Tensor, epsilon: float, tolerance: float) -> Tensor:
    r"""Return the derivative of the cost by $a$, up to a constant of each sample, `[batch, class]`.

    With $Q$, the plan divided by its rows' sums, and $R$, its transpose divided by its columns' sums, it is the $x$ of
    $x + Q y = \sum_j Q_{ij} c_{ij}$ and $R x + y = \sum_i R_{ji} c_{ij}$. Without $x$ that is a system for $y$, and it
    is symmetric where a class weighs what its column sums to.
    """
    kernel = torch.exp(-cost / epsilon)
    to, of = (g - g.amax(1, keepdim=True)).exp(), (f - f.amax(1, keepdim=True)).exp()
    rows, columns = to @ kernel.T, of @ kernel
    mean_cost = (to @ (kernel * cost).T) / rows

    def q(y: Tensor) -> Tensor:
        return ((to * y) @ kernel.T) / rows

    def r(x: Tensor) -> Tensor:
        return ((of * x) @ kernel) / columns

    wanted = (of @ (kernel * cost)) / columns - r(mean_cost)
    masses = to * columns
    masses = masses / masses.sum(1, keepdim=True)
    # Where groups of classes hardly exchange anything, the system alone would leave their difference to rounding.
    ridge = 1 + 10 * torch.finfo(f.dtype).eps
    y = _conjugate_gradients(lambda y: ridge * y - r(q(y)), wanted, masses.where(masses > _NOTHING, 0.0), tolerance)
    # Classes of no mass follow from the others.
    return mean_cost - q(wanted + r(q(y)))


def _conjugate_gradients(
    system: Callable[[Tensor], Tensor], wanted: Tensor, weights: Tensor, tolerance: float
) -> Tensor:
    """Return the solution of each sample's linear system, `[batch, class]`.

    Args:
        system: Multiplies `[batch, class]` by the matrices, which are symmetric under the weights.
        wanted: What the products should be, `[batch, class]`.
        weights: Weight of each class in a product of two vectors, `[batch, class]`; classes that weigh nothing are left
            out of the system.
        tolerance: A hundred times the largest error, the root of its mean square.
    """
    present = weights > 0
    found, rest = torch.zeros_like(wanted), wanted.where(present, 0.0)
    direction, size = rest, (weights * rest * rest).sum(1, keepdim=True)
    enough, tiny = (tolerance / 100) ** 2, torch.finfo(wanted.dtype).tiny
    for done in range(1, _MOST_STEPS + 1):
        product = system(direction).where(present, 0.0)
        step = size / (weights * direction * product).sum(1, keepdim=True).clamp(min=tiny)
        step = step.where(size > enough, 0.0)
        found, rest = found + step * direction, rest - step * product
        before, size = size, (weights * rest * rest).sum(1, keepdim=True)
        direction = rest + size / before.clamp(min=tiny) * direction
        if done % _BETWEEN_LOOKS == 0 and not bool((size > enough).any()):
            break
    return found
