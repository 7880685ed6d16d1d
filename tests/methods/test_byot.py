import math

import pytest
import torch

from tutelage.core.method import Progress, Update
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.byot import BYOT, feature_term
from tutelage.methods.parts.branches import Answer
from tutelage.models import CATALOGUE

IMAGES, LABELS = (4, 3, 16, 24), torch.tensor([0, 1, 2, 1])
SHEET = [([1.0, 0.0], [1.0, 2.0]), ([2.0, 0.0], [0.0, 2.5])]


def built(network=None, **options):
    torch.manual_seed(0)
    network = CATALOGUE["tiny_cnn"](5) if network is None else network
    return BYOT(network, torch.randn(2, *IMAGES[1:]), **options)


def answered(method, answers, labels):
    """Return the weighted loss where the exits say what is given, and the named losses."""
    method.exits.forward = lambda output: answers
    losses = method.losses(Batch(inputs=torch.randn(IMAGES), targets=labels))
    return method.total(Update(losses), Progress()), losses


def exact(rows):
    return [Answer(*(torch.tensor([row], dtype=torch.float64) for row in pair)) for pair in rows]


def features(shallow, deepest, variant):
    """The feature term, one number at a time."""
    total = 0.0
    for embedding in shallow[:-1] if variant == "journal" else shallow:
        gaps = [
            (one - other) ** 2
            for row, target in zip(embedding, deepest)
            for one, other in zip(row, target)
            if variant != "code" or one > 0 or other > 0
        ]
        distance = math.fsum(gaps)
        total += {"paper": distance / len(embedding), "code": distance, "journal": math.sqrt(distance)}[variant]
    return total


def expected(slow, logits, embeddings, labels, variant, alpha, weight, temperature):
    """The whole loss, by the equations of each variant."""
    *shallow, deepest = logits
    hard = slow.label_loss(deepest, labels) * (1 - alpha if variant == "code" else 1)
    for one in shallow:
        hard += (1 - alpha) * slow.label_loss(one, labels)
        if variant == "paper":
            soft = slow.soft_loss(one, deepest, temperature) * temperature**2
        else:
            targets = [slow.softmax(row, temperature) for row in deepest]
            soft = slow.target_loss([[z / temperature for z in row] for row in one], targets)
            soft *= temperature**2 if variant == "code" else 1
        hard += alpha * soft
    return hard + weight * features(embeddings[:-1], embeddings[-1], variant)


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({"variant": "paper", "alpha": 0.3, "feature_weight": 0.03, "temperature": 1}, 0.4038504186),
        ({"variant": "code"}, 0.9842200852957983),
        # With one shallow exit, the one next to the deepest, nothing is left of the feature term.
        ({"variant": "journal"}, 0.5422272278),
    ],
)
def test_known_answers(options, total):
    found, _ = answered(built(**options), exact(SHEET), torch.tensor([0]))
    assert found.item() == pytest.approx(total, rel=1e-9)


def test_known_parts():
    first, deepest = (answer.embedding for answer in exact(SHEET))
    assert feature_term([first], deepest, "paper").item() == pytest.approx(1.25)
    # Next to an exit further on, the shallowest has its term: 0.5757682475 in all.
    distance = feature_term([first, first], deepest, "journal").item()
    assert 0.5422272278 + 0.03 * distance == pytest.approx(0.5757682475, rel=1e-9)
    soft = {}
    for temperature, t_squared in ((1, True), (3, False), (3, True)):
        method = built(temperature=temperature, t_squared=t_squared)
        soft[temperature, t_squared] = answered(method, exact(SHEET), torch.tensor([0]))[1]["soft"].item()
    assert soft[1, True] == pytest.approx(0.067130754453, rel=1e-9)
    assert soft[3, False] == pytest.approx(0.012854277426, rel=1e-9)
    assert soft[3, True] == pytest.approx(9 * 0.012854277426, rel=1e-9)
    journal = answered(built(variant="journal"), exact(SHEET), torch.tensor([0]))[1]
    assert journal["soft"].item() == pytest.approx(0.6533867851, rel=1e-9)
    assert journal["exits"].item() == pytest.approx(0.3132616875, rel=1e-9)
    assert journal["ce"].item() == pytest.approx(0.1269280110, rel=1e-9)


@pytest.mark.parametrize("variant", ["paper", "code", "journal"])
def test_value_and_gradient_are_the_slow_loops(slow, variant):
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    method = built(variant=variant, alpha=0.4, feature_weight=0.2, temperature=2.5)
    total, _ = answered(method, [Answer(*pair) for pair in zip(logits, embeddings)], LABELS)
    settings = (LABELS.tolist(), variant, 0.4, 0.2, 2.5)
    value = expected(slow, logits.tolist(), embeddings.tolist(), *settings)
    assert total.item() == pytest.approx(value, rel=1e-9)
    by_logits, by_embeddings = torch.autograd.grad(total, [logits, embeddings])
    step = 1e-6
    for place in [(0, 0, 0), (1, 3, 4), (0, 2, 1)]:
        for tensor, gradient in ((logits, by_logits), (embeddings, by_embeddings)):
            sides = []
            for sign in (1, -1):
                shifted = tensor.detach().clone()
                shifted[place] += sign * step
                both = (shifted, embeddings) if tensor is logits else (logits, shifted)
                sides.append(expected(slow, *(one.tolist() for one in both), *settings))
            assert gradient[place].item() == pytest.approx((sides[0] - sides[1]) / 2 / step, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("variant", ["paper", "code", "journal"])
def test_the_deepest_exit_learns_from_the_labels_alone(variant):
    torch.manual_seed(2)
    logits = torch.randn(3, 4, 5, requires_grad=True)
    embeddings = torch.randn(3, 4, 6, requires_grad=True)
    _, losses = answered(built(variant=variant), [Answer(*pair) for pair in zip(logits, embeddings)], LABELS)
    distilled = losses["soft"] + losses["feature"]
    by_logits, by_embeddings = torch.autograd.grad(distilled, [logits, embeddings])
    assert by_logits[-1].abs().max() == 0
    assert by_embeddings[-1].abs().max() == 0
    assert by_logits[0].abs().min() > 0


@pytest.mark.parametrize("variant", ["paper", "code", "journal"])
def test_exits_that_agree_cost_nothing_and_have_finite_gradients(variant):
    same = torch.randn(4, 5, dtype=torch.float64)
    shallow = [same.clone().requires_grad_(True) for _ in range(2)]
    answers = [*(Answer(one, one) for one in shallow), Answer(same, same)]
    _, losses = answered(built(variant=variant), answers, LABELS)
    assert losses["feature"].item() == 0
    if variant == "paper":
        assert losses["soft"].item() == pytest.approx(0, abs=1e-15)
    gradients = torch.autograd.grad(losses["feature"] + losses["soft"], shallow, allow_unused=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_released_code_masks_what_is_negative_on_both_sides():
    first, deepest = torch.tensor([[-1.0, -2.0, 3.0]]), torch.tensor([[-3.0, 1.0, -1.0]])
    assert feature_term([first], deepest, "code").item() == 9 + 16
    assert feature_term([first], deepest, "paper").item() == 4 + 9 + 16


def test_the_method_computes_this_on_what_its_exits_say(slow):
    method = built().double().train()
    images = torch.randn(IMAGES, dtype=torch.float64)
    losses = method.losses(Batch(inputs=images, targets=LABELS))
    network, maps, answers = method.student.model, images, []
    maps = network.stem(maps)
    for number, branch in enumerate(method.exits.branches, 1):
        maps = network.get_submodule(f"layer{number}")(maps)
        answers.append(branch(maps))
    embedding = network.layer3(maps).mean((2, 3))
    answers.append(Answer(network.classifier(embedding), embedding))
    logits, embeddings = ([one.tolist() for one in part] for part in zip(*answers))
    value = expected(slow, logits, embeddings, LABELS.tolist(), "paper", 0.3, 1e-4, 3.0)
    assert method.total(Update(losses), Progress()).item() == pytest.approx(value, rel=1e-9)


def test_parameters_of_the_published_network():
    method = BYOT(CATALOGUE["tfkd_resnet18"](100), torch.randn(2, 3, 32, 32))
    backbone, branches = (
        sum(parameter.numel() for parameter in part.parameters()) for part in (method.student, method.exits)
    )
    assert (backbone, branches) == (11_220_132, 1_791_020)


def test_predictions_members_and_what_ships():
    method = built().eval()
    images = torch.randn(IMAGES)
    with torch.no_grad():
        predictions = method(images)
        assert list(predictions) == ["student", "exit-1", "exit-2", "ensemble"]
        assert torch.equal(method.export()(images), predictions["student"])
        members = method.members()
        assert list(members) == ["exit-1", "exit-2"]
        assert all(torch.equal(member(images), predictions[name]) for name, member in members.items())


def test_each_variant_has_its_own_constants():
    weights = {variant: built(variant=variant).weights for variant in ("paper", "code", "journal")}
    assert weights["paper"] == {"ce": 1, "exits": 0.7, "soft": 0.3, "feature": 1e-4}
    assert weights["code"] == {"ce": 0.9, "exits": 0.9, "soft": 0.1, "feature": 1e-6}
    assert weights["journal"] == {"ce": 1, "exits": 0.7, "soft": 0.3, "feature": 0.03}
    assert built(variant="code", alpha=0.0, feature_weight=0.0).weights["ce"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"temperature": 0}, "temperature=0"),
        ({"feature_weight": -1}, "feature_weight=-1"),
        ({"exits": "layer7"}, "no layer named 'layer7'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)
