"""Uncertainties against the closed forms of the fact sheet, slow sums and samples; rejection and detection by hand."""

import itertools
import math

import pytest
import torch
from scipy.special import digamma, gammaln

from tutelage.errors import UserError
from tutelage.evaluation.uncertainty import (
    auroc,
    histograms,
    of_dirichlet,
    of_members,
    rejection_ratio,
    uncertainty_of,
)

CONCENTRATIONS = (2.0, 3.0, 5.0)
MEMBERS = ((0.2, 0.3, 0.5), (0.1, 0.6, 0.3))


def log(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def entropy(p):
    return -math.fsum(x * math.log(x) for x in p if x > 0)


def slow_dirichlet(alpha):
    total = math.fsum(alpha)
    mean = [a / total for a in alpha]
    data = -math.fsum(m * (digamma(a + 1) - digamma(total + 1)) for m, a in zip(mean, alpha, strict=True))
    return entropy(mean), data, entropy(mean) - data


def test_a_dirichlets_uncertainty_is_the_papers():
    found = of_dirichlet(log([CONCENTRATIONS]))
    assert found.total.item() == pytest.approx(1.0296530141, abs=1e-9)
    assert found.data.item() == pytest.approx(0.9373015873, abs=1e-9)
    assert found.knowledge.item() == pytest.approx(0.0923514268, abs=1e-9)


def test_an_ensembles_uncertainty_is_the_papers():
    found = of_members(log([[row] for row in MEMBERS]))
    assert found.total.item() == pytest.approx(1.0104127538, abs=1e-9)
    assert found.data.item() == pytest.approx(0.9637993695, abs=1e-9)
    assert found.knowledge.item() == pytest.approx(0.0466133843, abs=1e-9)


def test_knowledge_and_reverse_information_are_the_expected_divergence_of_pairs():
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 5, 40):
        logits = 2 * torch.randn(classes, generator=generator, dtype=torch.float64)
        alpha = logits.exp().tolist()
        total = math.fsum(alpha)
        reverse = math.fsum(a / total * (math.log(a / total) - digamma(a) + digamma(total)) for a in alpha)
        knowledge = of_dirichlet(logits[None]).knowledge.item()
        assert knowledge + reverse == pytest.approx((classes - 1) / total, rel=1e-10)


def test_a_dirichlets_uncertainty_is_that_of_an_ensemble_drawn_from_it():
    torch.manual_seed(0)
    drawn = torch.distributions.Dirichlet(torch.tensor(CONCENTRATIONS, dtype=torch.float64)).sample((200_000,))
    ensemble, exact = of_members(drawn[:, None].log()), of_dirichlet(log([CONCENTRATIONS]))
    for kind, values in exact.known().items():
        assert getattr(ensemble, kind).item() == pytest.approx(values.item(), abs=2e-3)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_against_slow_sums(scale):
    logits = scale * torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for row, *found in zip(logits[0], *of_dirichlet(logits[0]).known().values()):
        assert [value.item() for value in found] == pytest.approx(slow_dirichlet(row.exp().tolist()), rel=1e-9)
    members = logits.softmax(2)
    found = of_members(logits)
    for sample in range(4):
        rows = members[:, sample].tolist()
        total = entropy([math.fsum(column) / len(rows) for column in zip(*rows, strict=True)])
        data = math.fsum(map(entropy, rows)) / len(rows)
        expected = (total, data, total - data)
        assert [values[sample].item() for values in found.known().values()] == pytest.approx(expected, rel=1e-9)


def test_large_and_small_concentrations_keep_their_order_and_stay_finite():
    logits = torch.arange(-20.0, 41.0)[:, None] + torch.tensor([0.0, 1.0, 0.5])
    found = of_dirichlet(logits)
    assert (found.knowledge.diff() < 0).all(), "more evidence, less to learn"
    assert torch.allclose(found.total, found.total[:1].expand(61))
    # Knowledge falls as (K - 1) / (2 * sum).
    assert found.knowledge[-1].item() == pytest.approx(1 / logits[-1].double().exp().sum().item(), rel=1e-6)
    assert found.data[0].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_are_finite(row, dtype):
    logits = torch.tensor([row], dtype=dtype)
    for found in (of_dirichlet(logits), of_members(torch.stack([logits, -logits])), uncertainty_of(logits)):
        for values in found.known().values():
            assert values.isfinite().all()
            assert (values >= 0).all()
            assert values.dtype == torch.float64


def test_members_that_agree_know():
    logits = torch.randn(1, 7, 4).expand(5, 7, 4)
    found = of_members(logits)
    assert found.knowledge.max().item() < 1e-15
    assert torch.allclose(found.total, found.data)


def test_logits_are_read_as_what_they_are():
    logits = torch.randn(3, 4)
    single = uncertainty_of(logits)
    assert set(single.known()) == {"total"}
    assert torch.allclose(single.total, torch.distributions.Categorical(logits=logits.double()).entropy())
    assert set(uncertainty_of(logits[None]).known()) == {"total"}, "one member is no ensemble"
    assert set(uncertainty_of(logits, density="dirichlet").known()) == {"total", "data", "knowledge"}
    assert set(uncertainty_of(torch.randn(2, 3, 4)).known()) == {"total", "data", "knowledge"}
    with pytest.raises(UserError, match=r"\[4\].*sample, class"):
        uncertainty_of(torch.randn(4))


def slow_rejection(uncertainty, wrong):
    """The curve one sample at a time; its area by trapezoids."""
    order = sorted(range(len(wrong)), key=lambda i: -uncertainty[i])
    left = [sum(wrong) / len(wrong)]
    for index in order:
        left.append(left[-1] - wrong[index] / len(wrong))
    area = sum((a + b) / 2 / len(wrong) for a, b in itertools.pairwise(left))
    share = left[0]
    oracle = [max(0.0, share - i / len(wrong)) for i in range(len(wrong) + 1)]
    best = sum((a + b) / 2 / len(wrong) for a, b in itertools.pairwise(oracle))
    return ((1 - area) - (1 - share / 2)) / ((1 - best) - (1 - share / 2))


def test_rejection_by_hand():
    wrong = torch.tensor([True, False, False, True])
    assert rejection_ratio(torch.tensor([4.0, 2.0, 1.0, 3.0]), wrong) == pytest.approx(1)
    assert rejection_ratio(torch.tensor([1.0, 3.0, 4.0, 2.0]), wrong) == pytest.approx(-1)
    assert rejection_ratio(torch.zeros(4), wrong) == pytest.approx(0), "equal uncertainty is a random order"
    assert rejection_ratio(torch.zeros(4), torch.zeros(4).bool()) is None
    assert rejection_ratio(torch.zeros(4), torch.ones(4).bool()) is None


def test_rejection_against_a_slow_curve():
    generator = torch.Generator().manual_seed(2)
    uncertainty = torch.rand(50, generator=generator)
    wrong = torch.rand(50, generator=generator) < uncertainty
    expected = slow_rejection(uncertainty.tolist(), [float(x) for x in wrong])
    assert rejection_ratio(uncertainty, wrong) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < 1


def test_ties_count_by_their_mean():
    uncertainty, wrong = torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([False, True, False, False])
    orders = [rejection_ratio(torch.tensor([2.0, a, b, 0.0]), wrong) for a, b in ((1.1, 1.0), (1.0, 1.1))]
    assert rejection_ratio(uncertainty, wrong) == pytest.approx(sum(orders) / 2)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UserError, match="do not match"):
        rejection_ratio(torch.zeros(3), torch.zeros(4).bool())
    with pytest.raises(UserError, match="at least one of each"):
        auroc(torch.zeros(3), torch.zeros(0))


def test_detection_counts_the_pairs_in_the_right_order():
    foreign, own = torch.tensor([0.9, 0.4, 0.4]), torch.tensor([0.1, 0.4])
    pairs = [1.0 if f > o else 0.5 if f == o else 0.0 for f in foreign.tolist() for o in own.tolist()]
    assert auroc(foreign, own) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(torch.ones(2), torch.zeros(2)) == 1


def test_the_slow_forms_are_the_densitys_own():
    """The mean of the logarithms under a Dirichlet, from the derivative of its normaliser."""
    alpha, step = list(CONCENTRATIONS), 1e-6

    def normaliser(a):
        return sum(gammaln(x) for x in a) - gammaln(sum(a))

    raised = [alpha[0] + step, *alpha[1:]]
    lowered = [alpha[0] - step, *alpha[1:]]
    slope = (normaliser(raised) - normaliser(lowered)) / (2 * step)
    assert slope == pytest.approx(digamma(alpha[0]) - digamma(sum(alpha)), rel=1e-6)


def test_histograms_count_every_sample_and_share_their_bins():
    own, foreign = {"total": torch.tensor([0.0, 0.1, 0.2, 1.0])}, {"total": torch.tensor([0.5, 9.0])}
    found = histograms(own, foreign, bins=4)["total"]
    top = torch.tensor([0.0, 0.1, 0.2, 1.0, 0.5, 9.0]).quantile(0.99).item()
    assert found["edges"] == pytest.approx([0, top / 4, top / 2, 3 * top / 4, top])
    assert (found["test"], found["foreign"]) == ([4, 0, 0, 0], [1, 0, 0, 1])
    assert set(histograms(of_members(torch.randn(2, 5, 3)).known())) == {"total", "data", "knowledge"}
    zeros = histograms({"total": torch.zeros(3)}, bins=2)["total"]
    assert zeros["test"] == [3, 0], "certain answers have a bin too"
