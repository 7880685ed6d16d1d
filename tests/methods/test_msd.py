import math
from itertools import permutations

import pytest
import torch

from tutelage.core.method import Progress, Update
from tutelage.core.schedules import cosine
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.msd import MSD, feature_term, mutual_kl, printed
from tutelage.methods.parts.branches import Answer
from tutelage.models import CATALOGUE

IMAGES, LABELS = (4, 3, 16, 24), torch.tensor([0, 1, 2, 1])
SHEET = [torch.tensor([row], dtype=torch.float64) for row in ([1.0, 0.0], [0.0, 0.0], [2.0, 0.0])]


def built(network=None, **options):
    torch.manual_seed(0)
    network = CATALOGUE["tiny_cnn"](5) if network is None else network
    return MSD(network, torch.randn(2, *IMAGES[1:]), **options)


def answered(method, answers, labels, progress=None):
    """Return the weighted loss where the exits say what is given, and the named losses."""
    method.exits.forward = lambda output: answers
    losses = method.losses(Batch(inputs=torch.randn(IMAGES), targets=labels))
    return method.total(Update(losses), progress or Progress()), losses


def expected(slow, logits, embeddings, labels, *, alpha, beta, temperature, squared=True):
    """The whole loss, one number at a time."""
    count = len(logits)
    hard = sum(slow.label_loss(one, labels) for one in logits)
    soft = sum(slow.soft_loss(p, q, temperature) for p, q in permutations(logits, 2)) / (count - 1)
    soft *= temperature**2 if squared else 1
    feature = math.fsum(
        (one - other) ** 2
        for embedding in embeddings[:-1]
        for row, target in zip(embedding, embeddings[-1])
        for one, other in zip(row, target)
    )
    return (1 - alpha) * hard + alpha * soft + beta * feature / len(labels)


def test_known_answers():
    assert mutual_kl(SHEET, 1).item() == pytest.approx(0.5711956169668236, rel=1e-12)
    assert mutual_kl(SHEET, 3).item() == pytest.approx(0.08037818438290856, rel=1e-12)
    answers = [Answer(one, one) for one in SHEET]
    for squared, soft in ((True, 0.723403659), (False, 0.08037818438290856)):
        _, losses = answered(built(t_squared=squared), answers, torch.tensor([0]))
        assert losses["soft"].item() == pytest.approx(soft, rel=1e-9)
        assert losses["ce"].item() == pytest.approx(1.133336879121141, rel=1e-12)
        assert losses["feature"].item() == pytest.approx(1 + 4)


@pytest.mark.parametrize(("schedule", "values"), [(cosine, (0.1, 0.0505, 0.001)), (printed, (0.5505, 0.501, 0.4515))])
def test_annealing_meant_and_printed(schedule, values):
    beta = schedule(0.1, 0.001)
    found = [beta(Progress(step=step, total_steps=100)) for step in (0, 50, 100)]
    assert found == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize(
    ("annealing", "values"), [("meant", (0.1, 0.0505, 0.001)), ("printed", (0.5505, 0.501, 0.4515))]
)
def test_the_weight_of_the_features_follows_the_progress(annealing, values):
    method = built(beta_start=0.1, beta_end=0.001, annealing=annealing)
    found = [method.weight("feature", Progress(step=step, total_steps=8)) for step in (0, 4, 8)]
    assert found == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize("detach", [False, True])
def test_order_does_not_matter_and_exits_that_agree_cost_nothing(detach):
    values = [mutual_kl(list(order), 2, detach=detach).item() for order in permutations(SHEET)]
    assert values == pytest.approx([values[0]] * 6, rel=1e-12)
    same = [torch.randn(3, 5).bfloat16()] * 3
    assert mutual_kl(same, 2, detach=detach).item() == pytest.approx(0, abs=1e-6)
    assert feature_term(same).item() == 0


@pytest.mark.parametrize("squared", [True, False])
def test_value_and_gradient_are_the_slow_loops(slow, squared):
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    method = built(alpha=0.4, temperature=2.5, beta_start=0.2, t_squared=squared)
    total, _ = answered(method, [Answer(*pair) for pair in zip(logits, embeddings)], LABELS)
    settings = {"alpha": 0.4, "beta": 0.2, "temperature": 2.5, "squared": squared}

    def value(*tensors):
        return expected(slow, *(one.tolist() for one in tensors), LABELS.tolist(), **settings)

    assert total.item() == pytest.approx(value(logits, embeddings), rel=1e-9)
    # Nothing is stopped: the gradient is that of the whole, at the deepest exit too.
    gradients = torch.autograd.grad(total, [logits, embeddings])
    step = 1e-6
    for place in [(0, 0, 0), (1, 3, 4), (2, 2, 1)]:
        for which, gradient in enumerate(gradients):
            sides = []
            for sign in (1, -1):
                both = [logits.detach().clone(), embeddings.detach().clone()]
                both[which][place] += sign * step
                sides.append(value(*both))
            assert gradient[place].item() == pytest.approx((sides[0] - sides[1]) / 2 / step, rel=1e-5, abs=1e-8)


def test_detached_targets_have_the_gradient_of_cross_entropies():
    torch.manual_seed(3)
    logits = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    loss = mutual_kl(logits, 2.0, detach=True)
    assert loss.item() == pytest.approx(mutual_kl(logits, 2.0).item(), rel=1e-12)
    gradients = torch.autograd.grad(loss, logits)
    p = [(one / 2).softmax(1).detach() for one in logits]
    for number, gradient in enumerate(gradients):
        # d/dz_i of sum_j KL(p_j || p_i) / (N - 1) is sum_j (p_i - p_j) / (tau B (N - 1)).
        closed = sum(p[number] - other for other in p) / 2 / 4 / 2
        torch.testing.assert_close(gradient, closed, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("detach", [False, True])
def test_the_deepest_embedding_learns_unless_detached(detach):
    embeddings = [torch.randn(4, 6, requires_grad=True) for _ in range(3)]
    loss = feature_term(embeddings, detach=detach)
    *shallow, deepest = torch.autograd.grad(loss, embeddings, allow_unused=True)
    assert (deepest is None) == detach
    if not detach:
        torch.testing.assert_close(deepest, -sum(shallow))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_confident_exits_have_finite_losses_and_gradients(dtype):
    logits = [(torch.eye(3)[:, row] * 1e4).to(dtype).requires_grad_(True) for row in ([0, 1, 2], [1, 2, 0])]
    for detach in (False, True):
        loss = mutual_kl(logits, 1.0, detach=detach)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(loss, logits))


def test_the_method_computes_this_on_what_its_exits_say(slow):
    method = built(beta_start=0.01).double().train()
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
    value = expected(slow, logits, embeddings, LABELS.tolist(), alpha=0.1, beta=0.01, temperature=3.0)
    assert method.total(Update(losses), Progress()).item() == pytest.approx(value, rel=1e-9)


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


def test_exits_of_a_residual_network_have_three_two_and_one_blocks():
    method = MSD(CATALOGUE["tfkd_resnet18"](10), torch.randn(2, 3, 32, 32))
    assert [len(branch.body) for branch in method.exits.branches] == [3, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"temperature": 0}, "temperature=0"),
        ({"beta_start": -1}, "beta_start=-1"),
        ({"exits": "layer7"}, "no layer named 'layer7'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)
