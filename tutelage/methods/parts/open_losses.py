"""Losses over known and novel classes: clusters of equal size, views that learn each other's, and kept relations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses import wide
from tutelage.methods.parts.transport import sinkhorn


def assignments(cosines: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Return soft clusters of equal size, `[sample, cluster]`, by Sinkhorn's iterations; each row sums to one.

    It is the transport of all samples to all clusters that is nearest to $\exp(c / \epsilon)$.

    Args:
        cosines: Similarity of each sample with each cluster, `[sample, cluster]`; no gradient flows into it.
        epsilon: $\epsilon$; smaller is sharper.
        iterations: Their number.
    """
    with torch.autocast(cosines.device.type, enabled=False):
        cosines = wide(cosines.detach())
        samples, clusters = cosines.shape
        if not samples:
            return cosines
        # A constant for all changes nothing, and without it no exponential can be too large.
        kernel = torch.exp((cosines - (cosines.max() + cosines.min()) / 2) / epsilon)
        from_each = cosines.new_full((1, samples), 1 / samples).log()
        to_each = cosines.new_full((1, clusters), 1 / clusters).log()
        f, g = sinkhorn(from_each, to_each, kernel, iterations)
        return samples * f.exp().T * kernel * g.exp()


def swapped_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each head's cross-entropy of every view with the targets of the other large views, `[head]`.

    Args:
        logits: `[head, view, sample, class]`.
        targets: Probabilities of the first views, `[head, large view, sample, class]`.
    """
    log_probability = F.log_softmax(wide(logits), dim=-1)
    terms = [
        -(targets[:, target] * log_probability[:, view]).sum(-1).mean(-1)
        for target in range(targets.shape[1])
        for view in range(logits.shape[1])
        if view != target
    ]
    return torch.stack(terms).mean(0)


def relation_loss(old_logits: Tensor, new_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Return $T^2 \, \mathrm{mean}[(\eta / \bar\eta) \, H(q, p^{known})]$ over the samples, a scalar.

    $\eta$ is the softened probability of all known classes together, and its share of the mean weighs a sample. The
    gradient flows through the weight too.

    Args:
        old_logits: The snapshot's, `[sample, known class]`; no gradient flows into them.
        new_logits: `[sample, class]`, the known classes first.
        temperature: $T$.
    """
    if not len(new_logits):
        return new_logits.sum()
    old, new = wide(old_logits.detach()) / temperature, wide(new_logits) / temperature
    known = old.shape[1]
    is_known = torch.softmax(new, dim=1)[:, :known].sum(1)
    distances = -(torch.softmax(old, dim=1) * F.log_softmax(new[:, :known], dim=1)).sum(1)
    return temperature**2 * (is_known / is_known.mean() * distances).mean()
