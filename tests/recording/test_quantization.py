import math

import numpy as np
import pytest
import torch

from tutelage.errors import UserError
from tutelage.losses import LOG_ZERO, kd_loss, soft_cross_entropy
from tutelage.recording.quantization import Quantization, as_values, class_type

NAMES = ["full", "hard", "smoothed", "top1", "top3", "top10", "top3-renormalized", "top10-renormalized"]


def stored(name, logits, values="float32"):
    """Rows as a recording holds them."""
    keep = Quantization.parse(name)
    rows = np.zeros(len(logits), np.dtype(keep.fields(logits.shape[1], values)))
    keep.fill(rows, logits, values=values)
    return rows


def restored(name, logits, values="float32"):
    return Quantization.parse(name).logits(stored(name, logits, values), logits.shape[1])


def slow(name, row):
    """The restored distribution by the paper's words, one class at a time."""
    top = max(row)
    p = [math.exp(z - top) for z in row]
    p = [each / sum(p) for each in p]
    if name == "full":
        return p
    order = sorted(range(len(p)), key=lambda c: -p[c])
    if name == "hard":
        return [float(c == order[0]) for c in range(len(p))]
    if name == "smoothed":
        return [p[c] if c == order[0] else (1 - p[order[0]]) / (len(p) - 1) for c in range(len(p))]
    k = int(name.removeprefix("top").removesuffix("-renormalized"))
    kept = order[:k]
    mass = sum(p[c] for c in kept)
    if name.endswith("renormalized"):
        return [p[c] / mass if c in kept else 0.0 for c in range(len(p))]
    return [p[c] if c in kept else (1 - mass) / (len(p) - k) if k < len(p) else 0.0 for c in range(len(p))]


@pytest.mark.parametrize("name", [*NAMES, "top5", "top5-renormalized"])
def test_names_read_and_write_the_same(name):
    assert str(Quantization.parse(name)) == name


@pytest.mark.parametrize("name", ["top", "top0", "top-5", "top05", "top5-renorm", "soft", "", "Full"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="no scheme"):
        Quantization.parse(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("classes", [10, 65_537])
def test_every_field_is_packed_in_its_type(name, values, classes):
    keep = Quantization.parse(name)
    row = np.dtype(keep.fields(classes, values))
    packed = keep.pack(torch.randn(2, classes), values=values)
    assert {field: content.dtype for field, content in packed.items()} == {name: row[name].base for name in row.names}


@pytest.mark.parametrize("name", NAMES)
def test_the_distribution_is_that_of_the_paper(name):
    logits = torch.randn(7, 10) * 3
    expected = torch.tensor([slow(name, row) for row in logits.double().tolist()], dtype=torch.float64)
    answer = restored(name, logits)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer.double().softmax(1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["hard", "smoothed", "top3", "top10", "top3-renormalized"])
@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0, 1e4])
def test_what_is_restored_are_log_probabilities_that_sum_to_one(name, values, scale):
    answer = restored(name, torch.randn(50, 10) * scale, values)
    assert answer.isfinite().all()
    torch.testing.assert_close(answer.double().exp().sum(1), torch.ones(50).double(), rtol=0, atol=1e-5)


def test_known_answers():
    p = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.05] + [0.1 / 995] * 995, dtype=torch.float64)
    logits = p.log().float()[None]
    spread = restored("top5", logits).double().exp()[0]
    assert spread[5:].tolist() == pytest.approx([1.00502513e-4] * 995, rel=1e-5)
    assert spread[:5].tolist() == pytest.approx([0.5, 0.2, 0.1, 0.05, 0.05], rel=1e-5)
    renormalized = restored("top5-renormalized", logits)[0]
    assert renormalized[:5].exp().tolist() == pytest.approx([0.5556, 0.2222, 0.1111, 0.0556, 0.0556], abs=5e-5)
    assert renormalized[5:].tolist() == pytest.approx([LOG_ZERO] * 995)


@pytest.mark.parametrize("name", ["top7", "top7-renormalized"])
def test_keeping_every_class_keeps_the_distribution(name):
    logits = torch.randn(100, 7) * 4
    torch.testing.assert_close(restored(name, logits), logits.log_softmax(1), rtol=1e-6, atol=1e-6)


def test_a_rest_that_rounds_below_zero_is_zero():
    keep = Quantization.parse("top2")
    rows = np.zeros(1, np.dtype(keep.fields(4, "float16")))
    rows["classes"], rows["probabilities"] = [[3, 1]], [[0.9, 0.101]]
    answer = keep.logits(rows, 4)[0]
    assert answer[[0, 2]].tolist() == pytest.approx([LOG_ZERO, LOG_ZERO])
    assert float(answer.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["hard", "smoothed", "top3", "top3-renormalized", "full"])
def test_losses_of_a_teacher_without_doubt_stay_finite(name):
    logits = torch.zeros(4, 10)
    logits[:, 2] = 1e4
    answer = restored(name, logits)
    student = torch.randn(4, 10, requires_grad=True)
    for temperature in (1.0, 4.0):
        loss = kd_loss(student, answer, temperature)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_hard_labels_give_the_cross_entropy_of_the_likeliest_class():
    logits, student = torch.randn(9, 10), torch.randn(9, 10)
    expected = torch.nn.functional.cross_entropy(student, logits.argmax(1))
    torch.testing.assert_close(soft_cross_entropy(student, restored("hard", logits)), expected)


def test_full_keeps_the_logits_and_not_only_their_distribution():
    logits = torch.randn(5, 10) + 3
    assert restored("full", logits).equal(logits)
    half = restored("full", logits, "float16")
    assert half.dtype == torch.float32
    assert half.equal(logits.half().float())


def test_the_highest_probability_comes_first():
    rows = stored("top4", torch.randn(20, 10))
    assert (np.diff(rows["probabilities"], axis=1) <= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_precision_are_kept(dtype):
    logits = torch.randn(3, 10).to(dtype).requires_grad_()
    assert restored("full", logits).equal(logits.detach().float())


def test_classes_are_as_narrow_as_they_fit():
    assert [class_type(classes) for classes in (2, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]
    logits = torch.zeros(1, 65_537)
    logits[0, 65_536] = 20
    assert restored("hard", logits).argmax(1).tolist() == [65_536]


def test_more_classes_than_there_are_cannot_be_kept():
    with pytest.raises(UserError, match="--keep top5 keeps 5 classes, but there are 4"):
        Quantization.parse("top5").fields(4, "float32")
    with pytest.raises(UserError, match="keep fewer"):
        Quantization.parse("top5-renormalized").pack(torch.zeros(2, 4))


def test_other_types_are_refused():
    with pytest.raises(UserError, match="float32"):
        Quantization.parse("full").fields(4, "float64")


def test_logits_that_no_half_holds_are_refused():
    logits = torch.tensor([[7e4, 0.0]])
    with pytest.raises(UserError, match="go up to 70000 .*--values float32"):
        stored("full", logits, "float16")
    assert stored("top1", logits, "float16")["probabilities"].tolist() == [[1.0]]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["full", "hard", "top2"])
def test_logits_that_are_not_finite_are_refused(wrong, name):
    logits = torch.zeros(3, 4)
    logits[1, 2] = wrong
    with pytest.raises(UserError, match="not finite"):
        Quantization.parse(name).pack(logits)


def test_dense_answers_are_refused():
    with pytest.raises(UserError, match=r"\[2, 3, 4, 4\]"):
        Quantization.parse("full").pack(torch.zeros(2, 3, 4, 4))


def test_features_are_refused_by_name():
    with pytest.raises(UserError, match="features of layer1 go up to 1e"):
        as_values(torch.full((2, 3), 1e6), "float16", what="features of layer1")
