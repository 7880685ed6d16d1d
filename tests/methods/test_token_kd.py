"""Token-level distillation: slow loops, known answers, and what rivals have had wrong (B17, B18, B26 of our list)."""

import math
from dataclasses import replace

import pytest
import torch

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.token_kd import TokenKD, token_kd_loss
from tutelage.tasks.language import LANGUAGE
from tutelage.testing.kinds import KINDS
from tutelage.testing.tokens import ToyLanguageNetwork
from tutelage.testing.trials import gradients_of

DIVERGENCES = ["forward", "reverse", "js"]
KIND = KINDS["language"]


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / math.fsum(powers) for power in powers]


def kl(one, other):
    return math.fsum(p * (math.log(p) - math.log(q)) for p, q in zip(one, other, strict=True))


def slow(student, teacher, counted, divergence, beta, temperature):
    """The equation, one token after the other; logits `[batch, token, class]`."""
    found = []
    for texts in zip(student.tolist(), teacher.tolist(), counted.tolist(), strict=True):
        for ours, theirs, counts in zip(*texts, strict=True):
            q, p = softmax(ours, temperature), softmax(theirs, temperature)
            m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
            mixed = beta * kl(p, m) + (1 - beta) * kl(q, m)
            found += [{"forward": kl(p, q), "reverse": kl(q, p), "js": mixed}[divergence]] if counts else []
    return temperature**2 * math.fsum(found) / len(found)


def autograd(student, teacher, counted, divergence, beta, temperature):
    """The same by torch's own functions, for the gradient."""
    q, p = ((logits[counted] / temperature).log_softmax(1) for logits in (student, teacher))
    m = (beta * p.exp() + (1 - beta) * q.exp()).log()
    one, other, third = ((a.exp() * (a - b)).sum(1).mean() for a, b in ((p, q), (q, p), (p, m)))
    mixed = beta * third + (1 - beta) * (q.exp() * (q - m)).sum(1).mean()
    return temperature**2 * {"forward": one, "reverse": other, "js": mixed}[divergence]


def texts(dtype=torch.float64):
    student, teacher = torch.randn(2, 3, 4, 6, dtype=dtype)
    counted = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0]]).bool()
    return student.requires_grad_(True), teacher.requires_grad_(True), counted


def loss_of(student, teacher, counted, **options):
    return token_kd_loss(student.movedim(2, 1), teacher.movedim(2, 1), counted, **options)


@pytest.mark.parametrize(("beta", "temperature"), [(0.5, 1.0), (0.2, 2.0)])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_value_and_gradient_equal_slow_ones(divergence, beta, temperature):
    student, teacher, counted = texts()
    options = {"divergence": divergence, "beta": beta, "temperature": temperature}
    # Tiles of two tokens, so that their edges lie within a text.
    found = loss_of(student, teacher, counted, tile=12, **options)
    assert found.item() == pytest.approx(slow(student, teacher, counted, **options), rel=1e-12)
    (expected,) = torch.autograd.grad(autograd(student, teacher, counted, **options), student)
    found.backward()
    torch.testing.assert_close(student.grad, expected)
    assert teacher.grad is None, "nothing flows into the teacher"


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_an_empty_mask_gives_zero_with_a_gradient(divergence):
    student, teacher, counted = texts()
    found = loss_of(student, teacher, torch.zeros_like(counted), divergence=divergence)
    assert found.item() == 0.0
    found.backward()
    assert (student.grad == 0).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_the_teacher_itself_the_loss_is_zero(divergence, dtype):
    student, _, counted = texts(dtype)
    assert loss_of(student, student.detach().clone(), counted, divergence=divergence).item() == 0.0


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_and_not_negative_at_a_low_temperature(divergence, dtype):
    student, teacher = (30 * torch.randn(2, 3, 4, 6)).to(dtype)
    student.requires_grad_(True)
    counted = torch.ones(3, 4, dtype=torch.bool)
    found = loss_of(student, teacher, counted, divergence=divergence, temperature=0.05)
    assert found.isfinite()
    assert found >= 0
    found.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_parts_of_unlike_numbers_of_tokens_are_one_batch(divergence):
    """As gradient accumulation adds them up: each part is divided by the mean number of tokens."""
    student, teacher, counted = texts()
    (whole,) = torch.autograd.grad(loss_of(student, teacher, counted, divergence=divergence), student)
    tokens = counted.sum() / 3
    parts = []
    for text in range(3):
        part = slice(text, text + 1)
        found = loss_of(student[part], teacher[part], counted[part], divergence=divergence, tokens=tokens)
        parts.append(torch.autograd.grad(found, student)[0])
    torch.testing.assert_close(sum(parts) / 3, whole)
    # Means of means are something else.
    means = [loss_of(student[r : r + 1], teacher[r : r + 1], counted[r : r + 1]).item() for r in range(3)]
    assert sum(means) / 3 != pytest.approx(loss_of(student, teacher, counted).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"divergence": "js", "beta": 0.0}, "above 0 and below 1"),
        ({"divergence": "js", "beta": 1.0}, "above 0 and below 1"),
        ({"divergence": "backward"}, "none of forward, reverse and js"),
        ({"temperature": 0.0}, "above zero"),
        ({"alpha": 1.5}, "between 0 and 1"),
    ],
)
def test_options_out_of_their_range(options, words):
    network = ToyLanguageNetwork(2)
    with pytest.raises(UserError, match=words):
        TokenKD(network, FrozenTeacher(ToyLanguageNetwork(2)), **options)


def method(**options):
    torch.manual_seed(0)
    return TokenKD(ToyLanguageNetwork(3), FrozenTeacher(ToyLanguageNetwork(4)), **options)


def test_padding_does_not_change_the_losses():
    batch = KIND.batch()
    longer = replace(
        batch,
        inputs={name: torch.nn.functional.pad(value, (0, 5)) for name, value in batch.inputs.items()},
        targets=torch.nn.functional.pad(batch.targets, (0, 5), value=-1),
    )
    losses, others = method().losses(batch), method().losses(longer)
    for name, value in losses.items():
        assert others[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_prompts_do_not_count():
    batch = KIND.batch()
    targets = batch.targets.clone()
    targets[:, 0] = -1
    answers = method().student(batch.inputs).logits.detach()
    without = replace(batch, targets=targets)
    expected = torch.nn.functional.cross_entropy(answers, targets, ignore_index=-1)
    torch.testing.assert_close(method().losses(without)["ce"], expected)
    assert method().losses(without)["kd"].item() != pytest.approx(method().losses(batch)["kd"].item(), rel=1e-4)


@pytest.mark.parametrize("name", ["token-kd", "kd"])
def test_accumulated_batches_and_processes_weigh_each_token_the_same(name):
    """Batches of unlike lengths, as they are given to several processes or one after the other."""
    from tutelage.methods.kd import KD

    def fresh():
        torch.manual_seed(0)
        networks = ToyLanguageNetwork(3), FrozenTeacher(ToyLanguageNetwork(4))
        return TokenKD(*networks) if name == "token-kd" else KD(*networks)

    whole = KIND.batch()
    places = LANGUAGE.count_places(whole.inputs, whole.targets) / 3
    cuts = [slice(0, 2), slice(2, 5), slice(5, 12)]
    parts = [
        replace(whole, inputs={k: v[cut] for k, v in whole.inputs.items()}, targets=whole.targets[cut], places=places)
        for cut in cuts
    ]
    expected = gradients_of(fresh(), whole)
    found = [gradients_of(fresh(), part) for part in parts]
    for name_, gradient in expected.items():
        torch.testing.assert_close(sum(part[name_] for part in found) / 3, gradient, rtol=1e-4, atol=1e-6)


class Wider(ToyLanguageNetwork):
    """Has two rows more than the vocabulary, as networks that round up its size."""

    def forward(self, input_ids, attention_mask):
        logits = super().forward(input_ids, attention_mask)
        return torch.nn.functional.pad(logits, (0, 2), value=9.0)


def test_rows_beyond_the_vocabulary_are_left_out():
    torch.manual_seed(0)
    student, teacher = ToyLanguageNetwork(3), ToyLanguageNetwork(4)
    wide = Wider(4)
    wide.load_state_dict(teacher.state_dict())
    found, expected = (
        TokenKD(student, FrozenTeacher(network)).losses(KIND.batch())["kd"].item() for network in (wide, teacher)
    )
    assert found == pytest.approx(expected)


def test_without_targets_all_tokens_but_the_last_of_each_text_count():
    batch = KIND.batch()
    unlabelled = Batch(inputs=batch.inputs, criterion=LANGUAGE.criterion)
    losses = method().losses(unlabelled)
    assert set(losses) == {"kd"}
    assert losses["kd"].item() == pytest.approx(method().losses(batch)["kd"].item())


def test_the_host_never_waits(waits):
    batch, built = KIND.batch(), method(divergence="js")
    # Once before: hooks and caches are made then.
    built.losses(batch)
    assert waits(lambda: sum(built.losses(batch).values()).backward()) == []
