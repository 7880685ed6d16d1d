import math

import pytest
import torch

from tutelage.errors import UserError
from tutelage.evaluation.metrics import accuracy, class_similarity, expected_calibration_error, nll, reliability

SCALES = [0.0, 1.0, 5.0, 1e4]


def case(scale=2.0, n=300, classes=7, dtype=torch.float32):
    return (torch.randn(n, classes) * scale).to(dtype), torch.randint(0, classes, (n,))


def softmax(row, temperature=1.0):
    scores = [value / temperature for value in row]
    top = max(scores)
    weights = [math.exp(value - top) for value in scores]
    return [weight / sum(weights) for weight in weights]


def slow_bins(logits, targets, bins):
    held = [[] for _ in range(bins)]
    for row, target in zip(logits.double().tolist(), targets.tolist()):
        probability = softmax(row)
        confidence = max(probability)
        number = next(m for m in range(bins) if confidence <= (m + 1) / bins + 1e-12)
        held[number].append((confidence, probability.index(confidence) == target))
    return held


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", SCALES)
def test_accuracy_and_nll_equal_slow_loops(scale, dtype):
    logits, targets = case(scale, dtype=dtype)
    hits, total = 0, 0.0
    for row, target in zip(logits.double().tolist(), targets.tolist()):
        hits += row.index(max(row)) == target
        top = max(row)
        total += top + math.log(sum(math.exp(value - top) for value in row)) - row[target]
    assert accuracy(logits, targets) == pytest.approx(hits / len(targets), abs=1e-12)
    assert nll(logits, targets) == pytest.approx(total / len(targets), rel=1e-10)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("scale", [0.5, 2.0, 1e4])
def test_reliability_and_calibration_error_equal_slow_loops(scale, bins):
    logits, targets = case(scale)
    held = slow_bins(logits, targets, bins)
    confidence, correct, count = reliability(logits, targets, bins=bins)
    assert count.tolist() == [len(samples) for samples in held]
    error = 0.0
    for number, samples in enumerate(held):
        mean = sum(value for value, _ in samples) / max(len(samples), 1)
        right = sum(hit for _, hit in samples) / max(len(samples), 1)
        assert float(confidence[number]) == pytest.approx(mean, abs=1e-12)
        assert float(correct[number]) == pytest.approx(right, abs=1e-12)
        error += abs(mean - right) * len(samples) / len(targets)
    assert expected_calibration_error(logits, targets, bins=bins) == pytest.approx(error, abs=1e-12)


def test_a_sure_and_right_network_is_calibrated_and_a_sure_and_wrong_one_is_not():
    targets = torch.arange(5)
    assert expected_calibration_error(torch.eye(5) * 1e4, targets) == 0
    assert expected_calibration_error(torch.eye(5) * 1e4, targets.roll(1)) == 1


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("scale", SCALES)
def test_class_similarity_equals_a_slow_loop(scale, temperature):
    logits, targets = case(scale)
    targets[targets == 3] = 2
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for label in range(7):
        rows = [softmax(row, temperature) for row in logits[targets == label].double().tolist()]
        for row in rows:
            expected[label] += torch.tensor(row, dtype=torch.float64) / len(rows)
    similarity = class_similarity(logits, targets, temperature=temperature)
    torch.testing.assert_close(similarity, expected, atol=1e-12, rtol=0)
    assert similarity[3].sum() == 0


def test_bf16_logits_are_summed_in_float64():
    logits, targets = case(dtype=torch.bfloat16)
    assert class_similarity(logits, targets).dtype == torch.float64
    assert nll(logits, targets) == pytest.approx(nll(logits.double(), targets), abs=1e-14)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2])),
        (torch.zeros(3, 2), torch.tensor([0, 1, -1])),
    ],
)
def test_what_does_not_belong_together_is_refused(logits, targets):
    for metric in (accuracy, nll, reliability, expected_calibration_error, class_similarity):
        with pytest.raises(UserError):
            metric(logits, targets)


def test_senseless_options_are_refused():
    with pytest.raises(UserError, match="bins"):
        reliability(*case(), bins=0)
    with pytest.raises(UserError, match="temperature"):
        class_similarity(*case(), temperature=0)
