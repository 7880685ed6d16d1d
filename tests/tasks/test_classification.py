"""Classification: its meter against slow sums over all logits at once, as it measured before it streamed."""

import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.evaluation.metrics import accuracy, class_similarity, expected_calibration_error, nll, reliability
from tutelage.evaluation.uncertainty import auroc, histograms, of_dirichlet, of_members, rejection_ratio, uncertainty_of
from tutelage.losses import log_mean_probability

TASK = task_named("classification")


def metered(logits, targets, *, foreign=None, members=None, parts=7, **options):
    meter = TASK.meter(**options)
    for part in range(0, len(targets), parts):
        rows = slice(part, part + parts)
        meter.update(logits[rows], targets[rows], None if members is None else members[:, rows])
    if foreign is not None:
        for part in torch.split(foreign, parts):
            meter.update_foreign(part)
    return meter


@pytest.fixture
def answers():
    torch.manual_seed(0)
    return 3 * torch.randn(1000, 4), torch.randint(0, 4, (1000,)), torch.randn(20, 4)


def test_scores_are_bit_identical_to_those_of_all_logits_at_once(answers):
    logits, targets, _ = answers
    assert metered(logits, targets).compute() == {
        "accuracy": accuracy(logits, targets),
        "nll": nll(logits, targets),
        "ece": expected_calibration_error(logits, targets),
    }
    assert list(metered(logits, targets, detail="watched").compute()) == list(TASK.watched)
    found = metered(logits, targets).pictures()["reliability"]
    confidence, right, count = reliability(logits, targets)
    assert found == {"confidence": confidence.tolist(), "accuracy": right.tolist(), "count": count.tolist()}


def test_scores_by_hand():
    found = metered(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1, 0])).compute()
    right = [math.exp(2) / (math.exp(2) + 1), 0.5, 1 / (1 + math.exp(3))]
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["nll"] == pytest.approx(-sum(map(math.log, right)) / 3, rel=1e-5)


def test_uncertainty_is_that_of_the_softmax_or_the_dirichlet(answers):
    logits, targets, foreign = answers
    plain = metered(logits, targets, foreign=foreign)
    assert set(plain.compute()) == {"accuracy", "nll", "ece", "total_uncertainty", "prr"}
    total = uncertainty_of(logits).total
    assert plain.compute()["prr"] == pytest.approx(rejection_ratio(total, logits.argmax(1) != targets))
    assert plain.compute_foreign() == {"auroc_total": auroc(uncertainty_of(foreign).total, total)}
    dirichlet = metered(logits, targets, foreign=foreign, density="dirichlet")
    known, others = of_dirichlet(logits), of_dirichlet(foreign)
    assert dirichlet.compute()["knowledge_uncertainty"] == pytest.approx(known.knowledge.mean().item())
    assert dirichlet.compute_foreign()["auroc_knowledge"] == auroc(others.knowledge, known.knowledge)
    assert dirichlet.pictures()["uncertainty"] == histograms(known.known(), others.known())


def test_an_ensemble_is_measured_by_its_mean_and_its_disagreement():
    torch.manual_seed(0)
    members, targets = torch.randn(3, 50, 4), torch.randint(0, 4, (50,))
    found = metered(log_mean_probability(members), targets, members=members).compute()
    mean = members.softmax(2).mean(0)
    assert found["accuracy"] == (mean.argmax(1) == targets).double().mean().item()
    assert found["knowledge_uncertainty"] == pytest.approx(of_members(members).knowledge.mean().item())


def test_uncertainty_that_nothing_is_compared_with_is_measured_on_request(answers):
    logits, targets, _ = answers
    assert "total_uncertainty" not in metered(logits, targets).compute()
    assert "total_uncertainty" in metered(logits, targets, detail="full").compute()
    assert "prr" not in metered(torch.eye(3), torch.arange(3), detail="full").compute(), "there is no error to find"


def test_of_a_teacher_the_likeness_of_classes_is_drawn(answers):
    logits, targets, _ = answers
    found = torch.tensor(metered(logits, targets, detail="teacher").pictures()["class_similarity"], dtype=torch.float64)
    torch.testing.assert_close(found, class_similarity(logits, targets), rtol=1e-12, atol=0)
    assert "class_similarity" not in metered(logits, targets).pictures()


def test_samples_without_a_label_do_not_count(answers):
    logits, targets, _ = answers
    some = targets.clone()
    some[::3] = -1
    kept = some >= 0
    assert metered(logits, some).compute() == metered(logits[kept], targets[kept]).compute()
    assert metered(logits, torch.full_like(targets, -1)).compute() == {}
    assert metered(logits, torch.full_like(targets, -1)).pictures() == {}


@pytest.mark.parametrize(
    ("logits", "targets", "match"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), "go from 0 to 3, but the logits have 3"),
        (torch.zeros(2, 3, 4), torch.tensor([0, 1]), "do not match"),
    ],
)
def test_what_does_not_belong_together_is_refused(logits, targets, match):
    with pytest.raises(UserError, match=match):
        metered(logits, targets)


def test_the_criterion_is_cross_entropy_over_the_labelled():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, -1, 2, -1])
    loss = TASK.criterion.loss(logits, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits[[0, 2]], targets[[0, 2]]))
    none = TASK.criterion.loss(logits, torch.full((4,), -1))
    (gradient,) = torch.autograd.grad(none, logits)
    assert none == 0
    assert not gradient.any()


def test_fractions_are_refused_with_the_task_to_choose():
    with pytest.raises(UserError, match="regression"):
        TASK.criterion.loss(torch.zeros(2, 3), torch.tensor([0.5, 2.9]))
    with pytest.raises(UserError, match="contain 0.5, 2.9, which are not class indices.*--task regression"):
        TASK.read_targets([0.5, 2.9], where="the data")


def test_another_number_of_classes_is_refused():
    TASK.check_answer((2, 5), 2, 5, who="student", data="toys")
    with pytest.raises(UserError, match=r"For 2 samples the student returns shape \(2, 4\), but toys has 5 classes"):
        TASK.check_answer((2, 4), 2, 5, who="student", data="toys")


@pytest.mark.parametrize("detail", ["watched", "scores", "teacher", "full"])
def test_merged_meters_of_the_parts_are_the_meter_of_all_to_the_bit(answers, detail):
    logits, targets, foreign = answers
    # An epoch's own scores are not compared with those of foreign samples.
    first_foreign, last_foreign = (None, None) if detail == "watched" else (foreign[:12], foreign[12:])
    whole = metered(logits, targets, foreign=None if detail == "watched" else foreign, detail=detail)
    first = metered(logits[:300], targets[:300], foreign=first_foreign, detail=detail)
    # A process beside more others than there are batches sees nothing.
    first.merge(metered(logits[:0], targets[:0], detail=detail))
    first.merge(metered(logits[300:], targets[300:], foreign=last_foreign, detail=detail))
    assert first.compute() == whole.compute()
    assert first.compute_foreign() == whole.compute_foreign()
    if detail == "watched":
        return
    merged, alone = first.pictures(), whole.pictures()
    # Sums of answers by class are added in another order.
    for one, other in zip(merged.pop("class_similarity", []), alone.pop("class_similarity", []), strict=True):
        assert one == pytest.approx(other)
    assert merged == alone
