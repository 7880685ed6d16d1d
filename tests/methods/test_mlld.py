import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.experiments.choice import parse_choice
from tutelage.losses import standardize
from tutelage.methods.mlld import MLLD, gram_loss, instance_loss, masks
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import ToyNetwork, toy_batch

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
WEIGHTS = {"ce": 0.1, "instance": 0.9, "batch": 0.9, "class": 0.9}
EXAMPLE = torch.full((2, 3, 8, 8), 0.5)
# The sheet's: student, teacher, the same with another second row; then both on the strong view.
Z = torch.tensor([[1.0, 2, 3], [0, 0, 0]], dtype=torch.float64)
V = torch.tensor([[3.0, 2, 1], [1, 0, -1]], dtype=torch.float64)
V_WEAK = torch.tensor([[3.0, 2, 1], [2, 0, -1]], dtype=torch.float64)
Z_STRONG = torch.tensor([[2.0, 0, 0], [1, 1, 0]], dtype=torch.float64)
V_STRONG = torch.tensor([[3.0, 1, 0], [0, 2, 0]], dtype=torch.float64)
LABELS = [2, 0]


class Scripted(nn.Module):
    """Answers as it is told, one answer a call."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.asked = list(answers), []

    def forward(self, inputs):
        self.asked.append(inputs)
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


def scripted(student, teacher, labels, **options):
    method = MLLD(Scripted(*student), BlackBoxTeacher(Scripted(*teacher)), EXAMPLE, **options)
    batch = Batch(inputs=torch.full((len(labels), 3, 8, 8), 0.5), targets=torch.tensor(labels))
    return method, batch


def weighted(student, teacher, labels, **options):
    method, batch = scripted(student, teacher, labels, **options)
    losses = method.losses(batch)
    return method.total(Update(losses), Progress()), losses


def scalars(matrix):
    return [list(row.unbind()) for row in matrix.unbind()]


def slow_softmax(row, temperature=1.0):
    exponentials = [(z / temperature).exp() for z in row]
    return [e / sum(exponentials) for e in exponentials]


def slow_kl(teacher, student, temperature):
    p, q = slow_softmax(teacher, temperature), slow_softmax(student, temperature)
    return temperature**2 * sum(a * (a / b).log() for a, b in zip(p, q, strict=True))


def slow_gram(rows):
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]


def slow_gaps(teacher, student):
    """The squared norm of each row of the difference of two Gram matrices."""
    pairs = zip(slow_gram(teacher), slow_gram(student), strict=True)
    return [sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for one, other in pairs]


def slow_standardize(row, ddof):
    mean = sum(row) / len(row)
    variance = sum((z - mean) ** 2 for z in row) / (len(row) - ddof)
    return [(z - mean) / variance.sqrt() for z in row]


def keep_low(values):
    """1 for whatever is no larger than the middle one, as `numpy.percentile(values, 50)` has it."""
    numbers = sorted(float(value) for value in values)
    middle = (numbers[(len(numbers) - 1) // 2] + numbers[len(numbers) // 2]) / 2
    return [float(float(value) <= middle) for value in values]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def slow(student, teacher, labels, *, variant, ddof=None, temperatures=TEMPERATURES):
    """The four terms, sample by sample and class by class; `student` and `teacher` are pairs of the two views."""
    (s_weak, s_strong), (t_weak, t_strong) = ([scalars(view) for view in views] for views in (student, teacher))
    weak_probabilities = [slow_softmax(row) for row in t_weak]
    samples = keep_low([max(row) for row in weak_probabilities])
    classes = keep_low([sum(column) for column in zip(*weak_probabilities, strict=True)])

    def instance(t_rows, s_rows, temperature, kept):
        if ddof is not None:
            t_rows, s_rows = ([slow_standardize(row, ddof) for row in rows] for rows in (t_rows, s_rows))
        rows = [slow_kl(t, s, temperature) for t, s in zip(t_rows, s_rows, strict=True)]
        return mean(m * row for m, row in zip(kept, rows, strict=True))

    def relation(t_rows, s_rows, temperature, kept, *, of_classes):
        matrices = [[slow_softmax(row, temperature) for row in rows] for rows in (t_rows, s_rows)]
        if of_classes:
            matrices = [list(zip(*matrix, strict=True)) for matrix in matrices]
        return mean(m * gap for m, gap in zip(kept, slow_gaps(*matrices), strict=True))

    all_samples, all_classes = [1.0] * len(samples), [1.0] * len(classes)
    if variant == "code":
        samples, classes = [mean(samples)] * len(samples), [mean(classes)] * len(classes)
    found = {"instance": 0.0, "batch": 0.0, "class": 0.0}
    for number, t in enumerate(temperatures):
        found["instance"] += instance(t_weak, s_weak, t, samples)
        found["batch"] += relation(t_weak, s_weak, t, samples, of_classes=False)
        found["class"] += relation(t_weak, s_weak, t, classes, of_classes=True)
        if variant == "paper":
            found["instance"] += instance(t_strong, s_strong, t, all_samples)
            found["batch"] += relation(t_strong, s_strong, t, all_samples, of_classes=False)
            found["class"] += relation(t_strong, s_strong, t, all_classes, of_classes=True)
        else:
            read = (t_strong, s_strong) if number < 3 else (t_weak, s_weak)
            found["instance"] += instance(*read, t, all_samples)
    found["ce"] = sum(
        mean(-slow_softmax(row)[label].log() for row, label in zip(view, labels, strict=True))
        for view in (s_weak, s_strong)
    )
    return found


@pytest.mark.parametrize("rows", [4, 5])
@pytest.mark.parametrize("ddof", [None, 0, 1])
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_value_and_gradient_equal_a_slow_loop(variant, ddof, rows):
    chance = torch.Generator().manual_seed(rows)
    logits = 2 * torch.randn(4, rows, 3, dtype=torch.float64, generator=chance)
    student = [view.clone().requires_grad_() for view in logits[:2]]
    teacher, labels = list(logits[2:]), [0, 1, 2, 0, 1][:rows]
    options = {} if ddof is None else {"standardize": True, "standardize_ddof": ddof}
    total, losses = weighted(student, teacher, labels, variant=variant, **options)
    expected = slow(student, teacher, labels, variant=variant, ddof=ddof)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-9), name
    slow_total = sum(WEIGHTS[name] * value for name, value in expected.items())
    gradients = torch.autograd.grad(total, student), torch.autograd.grad(slow_total, student)
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


INSTANCE = [0.70831874, 0.79715524, 0.81676864, 0.82391607, 0.82727630, 0.82911566]
BATCH = [0.04710493, 0.00409900, 0.00086564, 0.00028051, 0.00011618, 0.00005637]
CLASS = [0.35434200, 0.10391900, 0.04788077, 0.02729274, 0.01757718, 0.01224843]


@pytest.mark.parametrize("temperature", range(1, 7))
def test_known_answers_of_single_terms(temperature):
    student, teacher = (Z / temperature).softmax(1), (V / temperature).softmax(1)
    close = {"abs": 5e-9}
    assert instance_loss(Z, V, [temperature]).item() == pytest.approx(INSTANCE[temperature - 1], **close)
    assert gram_loss(student, teacher).item() == pytest.approx(BATCH[temperature - 1], **close)
    assert gram_loss(student.mT, teacher.mT).item() == pytest.approx(CLASS[temperature - 1], **close)


def test_known_answers_of_sums_over_temperatures():
    assert instance_loss(Z, V, TEMPERATURES).item() == pytest.approx(4.0942319041, abs=5e-11)
    student, teacher = (
        torch.stack([(logits / temperature).softmax(1) for temperature in TEMPERATURES]) for logits in (Z, V)
    )
    assert gram_loss(student, teacher).item() == pytest.approx(0.0054177012, abs=5e-11)
    assert gram_loss(student.mT, teacher.mT).item() == pytest.approx(0.2089181254, abs=5e-11)


def test_known_answers_of_the_released_code():
    total, losses = weighted((Z, Z_STRONG), (V_WEAK, V_STRONG), LABELS, variant="code")
    assert total.item() == pytest.approx(5.277828111189457, rel=1e-12)
    known = {"ce": 0.23038789, "instance": 4.85689995, "class": 0.18114135, "batch": 0.00939892}
    for name, value in known.items():
        assert WEIGHTS[name] * losses[name].item() == pytest.approx(value, abs=5e-9), name


def test_known_answers_with_and_without_a_mask():
    masked = instance_loss(Z, V_WEAK, TEMPERATURES, masks(V_WEAK)[0])
    strong = instance_loss(Z_STRONG, V_STRONG, TEMPERATURES)
    assert 0.9 * masked.item() == pytest.approx(2.9525385042, abs=5e-11)
    unmasked = instance_loss(Z, V_WEAK, TEMPERATURES) + strong
    assert 0.9 * unmasked.item() == pytest.approx(5.7405312557, abs=1e-10)
    _, losses = weighted((Z, Z_STRONG), (V_WEAK, V_STRONG), LABELS)
    assert losses["instance"].item() == pytest.approx((masked + strong).item(), rel=1e-12)


def test_masks_keep_the_less_confident_half_and_the_rarer_classes():
    confident = torch.tensor([[9.0, 0, 0], [1, 0, 0], [5, 0, 0], [2, 0, 1]])
    samples, classes = masks(confident)
    assert samples.tolist() == [0, 1, 0, 1]
    assert classes.tolist() == [0, 1, 1]
    assert masks(confident[:3])[0].tolist() == [0, 1, 1]
    # Ties at the median stay, so that equal answers keep everything.
    assert masks(torch.zeros(4, 3))[0].tolist() == [1] * 4
    assert masks(torch.zeros(4, 3))[1].tolist() == [1] * 3


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("standardized", [False, True])
def test_all_terms_vanish_where_student_and_teacher_agree(variant, standardized):
    student = [V_WEAK.clone().requires_grad_(), V_STRONG.clone().requires_grad_()]
    total, losses = weighted(student, (V_WEAK, V_STRONG), LABELS, variant=variant, standardize=standardized)
    assert [losses[name].item() for name in ("instance", "batch", "class")] == [0, 0, 0]
    ce = weighted(student, student, LABELS, instance_weight=0.0, batch_weight=0.0, class_weight=0.0)[0]
    found, wanted = (torch.autograd.grad(value, student) for value in (total, ce))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)


def test_only_the_instance_term_is_standardized():
    views = (Z + V, Z_STRONG), (V_WEAK, V_STRONG)
    raw, standardized = (weighted(*views, LABELS, standardize=switch)[1] for switch in (False, True))
    assert {name for name in raw if not torch.equal(raw[name], standardized[name])} == {"instance"}
    moved = (3 * views[0][0] - 2, views[0][1] + 1), views[1]
    again = weighted(*moved, LABELS, standardize=True)[1]
    torch.testing.assert_close(again["instance"], standardized["instance"], rtol=1e-12, atol=0)
    row = standardize(torch.tensor([[-6.0, 3, 4, -1]])), standardize(torch.tensor([[-3.0, 3, 1, -1]]))
    assert instance_loss(*row, [1.0]).item() == pytest.approx(0.09950594564, rel=1e-5)


def random_pair(rows=6, classes=5):
    return torch.randn(2, rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(2)


def test_relations_do_not_see_the_order_of_what_they_sum_over():
    student, teacher = random_pair()
    classes, samples = torch.randperm(5), torch.randperm(6)
    torch.testing.assert_close(
        gram_loss(student[:, classes], teacher[:, classes]), gram_loss(student, teacher), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        gram_loss(student[samples].mT, teacher[samples].mT), gram_loss(student.mT, teacher.mT), rtol=1e-12, atol=0
    )
    nothing = torch.zeros_like(teacher)
    assert 6 * gram_loss(nothing, teacher).item() == pytest.approx(5 * gram_loss(nothing.mT, teacher.mT).item())


def test_small_gaps_do_not_drown_in_rounding():
    student, teacher = random_pair()
    near, teacher = (teacher + 1e-5 * (student - teacher)).float(), teacher.float()
    precise = gram_loss(near.double(), teacher.double()).item()
    assert gram_loss(near, teacher).item() == pytest.approx(precise, rel=1e-4, abs=0)


def test_no_gradient_reaches_the_teacher():
    student, teacher = (logits.clone().requires_grad_() for logits in (Z, V))
    probabilities = student.softmax(1), teacher.softmax(1)
    (instance_loss(student, teacher, [2.0]) + gram_loss(*probabilities)).backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_no_number_has_to_travel_to_the_device(variant, monkeypatch):
    """A tensor of the temperatures would, and the step would wait for it in the middle."""
    views = (Z, Z_STRONG), (V_WEAK, V_STRONG)
    method, batch = scripted(*views, LABELS, variant=variant, strong="none")

    def refuse(*_, **__):
        raise AssertionError("made on the processor")

    monkeypatch.setattr(torch, "tensor", refuse)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refuse)
    assert method.losses(batch)["instance"].isfinite()


def test_other_classes_are_refused():
    method, batch = scripted((Z, Z_STRONG), (torch.zeros(2, 100), torch.zeros(2, 100)), LABELS)
    with pytest.raises(ValueError, match=r"\(2, 3\), and the teacher \(2, 100\)"):
        method.losses(batch)


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_for_zero_and_huge_logits(variant, scale):
    student = [(scale * view.float()).requires_grad_() for view in (Z, Z_STRONG)]
    teacher = [scale * view.float() for view in (V_WEAK, V_STRONG)]
    for switch in (False, True):
        total, _ = weighted(student, teacher, LABELS, variant=variant, standardize=switch)
        assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(total, student))


def test_autocast_leaves_the_losses_in_float32():
    views = [view.float() for view in (Z, Z_STRONG)], [view.float() for view in (V_WEAK, V_STRONG)]
    plain = weighted(*views, LABELS)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(weighted(*views, LABELS)[0], plain)


def method_on_toys(**options):
    torch.manual_seed(0)
    return MLLD(ToyNetwork(), FrozenTeacher(ToyNetwork(8)), EXAMPLE, **options).train()


def test_student_and_teacher_see_the_same_two_views():
    student, teacher = Scripted(Z, Z_STRONG), Scripted(V_WEAK, V_STRONG)
    method, inputs = MLLD(student, BlackBoxTeacher(teacher), EXAMPLE), torch.rand(2, 3, 12, 16).mul(255).round() / 255
    method.losses(Batch(inputs=inputs, targets=torch.tensor(LABELS)))
    assert student.asked[0] is inputs
    assert teacher.asked[0] is inputs
    assert student.asked[1] is teacher.asked[1]
    assert not torch.equal(student.asked[1], inputs)


def test_batch_norm_sees_the_weak_view_and_then_the_strong_one():
    method, batch = method_on_toys(), toy_batch()
    expected = ToyNetwork().train()
    expected.load_state_dict(method.student.model.state_dict())
    state = torch.get_rng_state()
    method.losses(batch)
    torch.set_rng_state(state)
    expected(batch.inputs)
    expected(method.strong_view(batch.inputs, torch.default_generator))
    found = dict(method.student.model.named_buffers())
    assert found["layer1.1.num_batches_tracked"] == 2
    for name, buffer in expected.named_buffers():
        assert torch.equal(found[name], buffer), name


def test_the_strong_view_is_drawn_from_the_global_generator():
    method, batch = method_on_toys(), toy_batch()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append([method.losses(batch)["instance"].item() for _ in range(2)])
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][0] != losses[0][1]


def test_the_strong_view_is_made_of_pixels_in_the_weak_ones_layout():
    method, inputs = method_on_toys(), toy_batch().inputs
    strong = method.strong_view(inputs.contiguous(memory_format=torch.channels_last), torch.Generator().manual_seed(0))
    assert strong.is_contiguous(memory_format=torch.channels_last)
    assert strong.dtype == inputs.dtype
    assert torch.equal(strong, (strong * 255).round() / 255)
    changed = (strong != inputs).flatten(1).any(1)
    assert changed.float().mean() > 0.8
    weak = method_on_toys(strong="none").strong_view(inputs, torch.Generator())
    assert torch.equal(weak, inputs)


def test_a_recorded_answer_is_never_taken_for_the_strong_views():
    method, batch = method_on_toys(), toy_batch()
    logits = torch.zeros(len(batch), 6)
    hidden = EnsembleTeacher([RecordedTeacher()])
    method.teacher = hidden
    with pytest.raises(UserError, match="recorded"):
        method.losses(Batch(inputs=batch.inputs, targets=batch.targets, teacher=Output(logits=logits)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": (4.0, 0.0)}, r"temperatures=\[4.0, 0.0\]"),
        ({"temperatures": (4.0, float("nan"))}, r"temperatures=\[4.0, nan\]"),
        ({"temperatures": ()}, "one number or more"),
        ({"class_weight": -1.0}, "class_weight=-1"),
        ({"example": EXAMPLE - 1}, "before normalisation"),
        ({"example": {"input_ids": torch.zeros(2, 3)}}, "kd"),
        ({"example": torch.zeros(2, 4, 8, 8)}, "4 channels"),
        ({"teacher": RecordedTeacher()}, "not its recording"),
        ({"strong": "randaugment:0"}, "randaugment:2"),
    ],
)
def test_what_cannot_be_is_refused_before_training(options, message):
    arguments = {"student": nn.Identity(), "teacher": BlackBoxTeacher(nn.Identity()), "example": EXAMPLE} | options
    with pytest.raises(UserError, match=message):
        MLLD(**arguments)


def test_hyper_parameters_are_read_from_text():
    options = parse_choice("mlld:temperatures=[2,3,5,2,6],variant=code,standardize=true,standardize_ddof=0").options
    assert options["standardize_ddof"] == 0
    method = method_on_toys(**options)
    assert (tuple(method.temperatures), method.variant, method.ddof) == ((2.0, 3.0, 5.0, 2.0, 6.0), "code", 0)
