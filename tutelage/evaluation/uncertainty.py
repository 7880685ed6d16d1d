"""The uncertainty of answers: total, data and knowledge uncertainty, and how well they find errors and foreign samples.

All sums are in float64, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tutelage.data.criterion import Density
from tutelage.errors import UserError

# Above this value the first three terms of the asymptotic series are exact in float64.
_ASYMPTOTIC = 100.0


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """The uncertainty of each answer, `[sample]`, in nats. Parts that a single softmax does not give are None.

    Attributes:
        total: Entropy of the prediction. Total uncertainty, from any source.
        data: Expected entropy. More training does not remove it; it comes, for example, from classes that overlap.
        knowledge: Total minus data, the mutual information of prediction and parameters. It measures how much the
            members disagree, and is largest far from the training data.
    """

    total: Tensor
    data: Tensor | None = None
    knowledge: Tensor | None = None

    def known(self) -> dict[str, Tensor]:
        """Return the kinds that are known, by name."""
        kinds = {kind.name: getattr(self, kind.name) for kind in fields(self)}
        return {name: values for name, values in kinds.items() if values is not None}


def uncertainty_of(logits: Tensor, *, density: Density = "categorical") -> Uncertainty:
    """Return the uncertainty of a network's or of several networks' logits.

    Args:
        logits: `[sample, class]`, or `[member, sample, class]` of an ensemble of two or more.
        density: How one network's logits are read: `categorical` by their softmax, `dirichlet` as logarithms of
            concentrations. Members of an ensemble are always read by their softmax.

    Raises:
        UserError: If the logits have another shape.
    """
    if logits.ndim == 3 and len(logits) > 1:
        return of_members(logits)
    if logits.ndim == 3:
        logits = logits[0]
    if logits.ndim != 2:
        raise UserError(f"Logits are {list(logits.shape)}: give [sample, class], or [member, sample, class].")
    return (
        of_dirichlet(logits) if density == "dirichlet" else Uncertainty(total=entropy(logits.double().log_softmax(1)))
    )


def of_members(logits: Tensor) -> Uncertainty:
    r"""Return the uncertainty of an ensemble.

    $$ \mathrm{total} = H[\bar\pi], \quad \mathrm{data} = \frac{1}{M} \sum_m H[\pi_m], \quad
    \mathrm{knowledge} = \frac{1}{M} \sum_m \mathrm{KL}(\pi_m \,\|\, \bar\pi) $$

    Args:
        logits: `[member, sample, class]`.
    """
    members = logits.double().log_softmax(2)
    mean = members.logsumexp(0) - math.log(len(members))
    # Equal to total minus data, but without subtracting two nearly equal numbers.
    knowledge = (members.exp() * (members - mean)).sum(2).mean(0).clamp(min=0)
    return Uncertainty(total=entropy(mean), data=entropy(members).mean(0), knowledge=knowledge)


def of_dirichlet(logits: Tensor) -> Uncertainty:
    r"""Return the uncertainty of Dirichlet distributions with concentrations $\alpha = \exp(z)$.

    With $\mu = \alpha / \alpha_0$ and $\alpha_0 = \sum_k \alpha_k$,

    $$ \mathrm{total} = H[\mu], \quad \mathrm{data} = -\sum_k \mu_k (\psi(\alpha_k + 1) - \psi(\alpha_0 + 1)), \quad
    \mathrm{knowledge} = \mathrm{total} - \mathrm{data} $$

    Args:
        logits: The logarithms $z$ of the concentrations, `[sample, class]`.

    Paper: Malinin, Mlodozeniec, Gales, Ensemble Distribution Distillation, ICLR 2020.
    """
    raw = logits.double()
    mean = raw.log_softmax(1)
    # Equal to total minus data, but without subtracting nearly equal numbers: at large concentrations it is tiny.
    spread = mean.exp() * (_excess(raw) - _excess(raw.logsumexp(1, keepdim=True)))
    total, knowledge = entropy(mean), spread.sum(1).clamp(min=0)
    return Uncertainty(total=total, data=(total - knowledge).clamp(min=0), knowledge=knowledge)


def entropy(log_probabilities: Tensor) -> Tensor:
    """Return the entropy over the last dimension, in nats."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def rejection_ratio(uncertainty: Tensor, wrong: Tensor) -> float | None:
    r"""Return the prediction rejection ratio: how well an uncertainty finds errors; 1 if it ranks all of them first.

    $$ \frac{A - A_{random}}{A_{oracle} - A_{random}} $$

    The most uncertain samples are handed to an oracle, which corrects them. $A$ is one minus the area under the curve
    of the share of all samples that is still wrong, over the share handed over. A random order scores 0, a misleading
    one less. Equally uncertain samples count by their mean error.

    Args:
        uncertainty: `[sample]`.
        wrong: Whether each answer is wrong, `[sample]`.

    Returns:
        The ratio; None if no answer or every answer is wrong, because every order is then equally good.

    Paper: Malinin, Mlodozeniec, Gales, Ensemble Distribution Distillation, ICLR 2020.
    """
    _check(uncertainty, wrong)
    values, group, counts = torch.unique(uncertainty.double(), return_inverse=True, return_counts=True)
    errors = wrong.double()
    share = float(errors.mean())
    # The denominator below would be zero.
    if share in (0.0, 1.0):
        return None
    mean = torch.zeros_like(values).index_add_(0, group, errors) / counts
    # Each sample counts with the mean error of those as uncertain as it, or the order of a sort would decide the score.
    most_uncertain_first = mean[group[uncertainty.argsort(descending=True)]]
    left = torch.cat([errors.sum()[None], errors.sum() - most_uncertain_first.cumsum(0)]) / len(errors)
    area = float(torch.trapezoid(left, dx=1 / len(errors)))
    # Areas under the curve of errors: a random order leaves share / 2, the oracle share² / 2. In A, one minus an area,
    # the ones cancel.
    return (share / 2 - area) / (share / 2 - share**2 / 2)


def histograms(
    own: Mapping[str, Tensor], foreign: Mapping[str, Tensor] | None = None, *, bins: int = 30
) -> dict[str, dict[str, list[float]]]:
    """Return histograms by kind of uncertainty: `edges`, counts in `test`, and counts in `foreign` if there are any.

    The bins are equally wide from zero to the 99th percentile of all samples. The last bin also holds higher values.

    Args:
        own: Uncertainty of samples like the training data, `[sample]` by kind.
        foreign: Uncertainty of samples of another dataset, `[sample]` by kind.
        bins: The number of bins.
    """
    found = {}
    others = foreign or {}
    for kind, values in own.items():
        samples = {"test": values} | ({"foreign": others[kind]} if others else {})
        # Not zero, which would leave no width for the bins of samples that are all certain.
        top = max(float(torch.cat(list(samples.values())).quantile(0.99)), 1e-12)
        counts = {name: torch.histc(some.clamp(max=top), bins, 0, top).tolist() for name, some in samples.items()}
        found[kind] = {"edges": torch.linspace(0, top, bins + 1, dtype=torch.float64).tolist(), **counts}
    return found


def auroc(foreign: Tensor, own: Tensor) -> float:
    """Return the area under the ROC curve for detecting foreign samples, the positive class, by their uncertainty.

    Args:
        foreign: Uncertainty of samples of another dataset, `[sample]`.
        own: Uncertainty of samples like the training data, `[sample]`.

    Raises:
        UserError: If either is empty.
    """
    # Imported here, because scikit-learn is slow to import, and most runs have no foreign data.
    from sklearn.metrics import roc_auc_score

    if not len(foreign) or not len(own):
        raise UserError(
            f"There are {len(foreign)} foreign samples and {len(own)} samples of the data: at least one of each is "
            "needed."
        )
    labels = torch.cat([torch.ones(len(foreign)), torch.zeros(len(own))])
    return float(roc_auc_score(labels.numpy(), torch.cat([foreign, own]).double().cpu().numpy()))


def _excess(log_concentration: Tensor) -> Tensor:
    r"""Return $\psi(\alpha + 1) - \log \alpha$ of $\log \alpha$, without cancellation for large $\alpha$."""
    concentration = log_concentration.clamp(max=math.log(_ASYMPTOTIC)).exp()
    inverse = (-log_concentration.clamp(min=math.log(_ASYMPTOTIC))).exp()
    # The asymptotic series of it in 1 / alpha.
    series = inverse / 2 - inverse**2 / 12 + inverse**4 / 120 - inverse**6 / 252
    direct = torch.digamma(concentration + 1) - log_concentration
    return torch.where(log_concentration < math.log(_ASYMPTOTIC), direct, series)


def _check(uncertainty: Tensor, wrong: Tensor) -> None:
    if uncertainty.ndim != 1 or uncertainty.shape != wrong.shape or not len(wrong):
        raise UserError(
            f"Uncertainty {list(uncertainty.shape)} and errors {list(wrong.shape)} do not match: give [sample] and "
            "[sample], with at least one sample."
        )
