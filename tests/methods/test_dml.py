import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods.afd import AFD
from tutelage.methods.dml import DML
from tutelage.methods.parts.peers import Peers
from tutelage.testing.maps import ToyMapNetwork
from tutelage.testing.toys import CLASSES, ToyNetwork, methods_of, toy_batch, toy_experiment
from tutelage.training.settings import Training


class Answer(nn.Module):
    """Says the same whatever it is asked, and learns it."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float64))
        self.calls = []

    def forward(self, inputs):
        self.calls.append(torch.is_grad_enabled())
        return self.logits * 1


def answers(count=3, *, samples=5, classes=4):
    torch.manual_seed(count)
    return [Answer(torch.randn(samples, classes, dtype=torch.float64) * 2) for _ in range(count)]


def batch_of(labels):
    labels = torch.as_tensor(labels)
    return Batch(inputs=torch.zeros(len(labels), 1), targets=labels)


LABELS = [0, 3, 1, 1, 2]


def slow_losses(slow, rows, labels, *, peer="mean", temperature=1.0, factor=1.0):
    """The losses of all networks, one number at a time. `rows` is logits by network and sample."""
    found = []
    for k, own in enumerate(rows):
        others = [other for number, other in enumerate(rows) if number != k]
        if peer == "mean-probability":
            samples = []
            for b, row in enumerate(own):
                columns = zip(*(slow.softmax(other[b], temperature) for other in others), strict=True)
                samples.append(slow.kl([slow.mean(column) for column in columns], slow.softmax(row, temperature)))
            divergence = slow.mean(samples)
        else:
            terms = [slow.soft_loss(own, other, temperature) for other in others]
            divergence = math.fsum(terms) / (len(others) if peer == "mean" else 1)
        found.append((slow.label_loss(own, labels), factor * divergence))
    return found


def losses_of(method, labels=LABELS):
    updates = list(method.step(batch_of(labels), Progress()))
    return [(update.losses["ce"], update.losses["peers"]) for update in updates], [u.optimizer for u in updates]


@pytest.mark.parametrize("peer", ["mean", "sum", "mean-probability"])
@pytest.mark.parametrize(("temperature", "t_squared"), [(1.0, True), (3.0, True), (3.0, False)])
def test_losses_and_gradients_against_loops(peer, temperature, t_squared, slow):
    networks = answers()
    method = DML(networks, peer=peer, temperature=temperature, t_squared=t_squared)
    rows = [network.logits.tolist() for network in networks]
    factor = temperature**2 if t_squared else 1.0
    settings = {"peer": peer, "temperature": temperature, "factor": factor}
    found, optimizers = losses_of(method)
    assert optimizers == ["student", "student-2", "student-3"]
    for (ce, peers), expected in zip(found, slow_losses(slow, rows, LABELS, **settings), strict=True):
        assert (ce.item(), peers.item()) == pytest.approx(expected, rel=1e-12)
    step = 1e-6
    for k, network in enumerate(networks):
        gradients = torch.autograd.grad(sum(found[k]), [one.logits for one in networks], allow_unused=True)
        # Peers are constants.
        assert [gradient is None for gradient in gradients] == [number != k for number in range(3)]
        for sample, label in [(0, 0), (3, 2), (4, 1)]:
            ends = []
            for sign in (1, -1):
                moved = [[list(row) for row in one] for one in rows]
                moved[k][sample][label] += sign * step
                ends.append(math.fsum(slow_losses(slow, moved, LABELS, **settings)[k]))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert gradients[k][sample, label].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)
        assert network.calls == [True]


@pytest.mark.parametrize(
    ("peer", "divergences", "totals"),
    [
        ("mean", [0.0936226307, 0.2193786986, 0.2581942877], [0.4068843182, 0.9125258791, 0.3851222987]),
        ("sum", None, [0.5005069489, 1.1319045777, 0.6433165864]),
        ("mean-probability", [0.0040817342, 0.2010731088, 0.2296590315], None),
    ],
)
def test_known_answers(peer, divergences, totals):
    networks = [Answer([[1.0, 0.0]]), Answer([[0.0, 0.0]]), Answer([[2.0, 0.0]])]
    found, _ = losses_of(DML(networks, peer=peer), [0])
    if divergences is not None:
        assert [peers.item() for _, peers in found] == pytest.approx(divergences, abs=1e-10)
    if totals is not None:
        assert [(ce + peers).item() for ce, peers in found] == pytest.approx(totals, abs=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_forms_are_one_for_two_networks(temperature):
    found = [
        losses_of(DML(answers(2), peer=peer, temperature=temperature))[0]
        for peer in ("mean", "sum", "mean-probability")
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("peer", ["mean", "sum", "mean-probability"])
def test_networks_that_agree_have_the_cross_entropy_alone(peer):
    networks = answers()
    method = DML(networks, peer=peer)
    for network in networks:
        network.logits.data.copy_(networks[0].logits.data)
    found, _ = losses_of(method)
    for k, (ce, peers) in enumerate(found):
        assert peers.item() == pytest.approx(0.0, abs=1e-14)
        (gradient,) = torch.autograd.grad(ce + peers, networks[k].logits)
        closed = (F.softmax(networks[k].logits, 1) - F.one_hot(torch.tensor(LABELS), 4)) / 5
        torch.testing.assert_close(gradient, closed, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_forward_passes_are_counted(count):
    for update, calls in (("simultaneous", [True]), ("sequential", [True, False])):
        networks = answers(count)
        list(DML(networks, update=update).step(batch_of(LABELS), Progress()))
        assert [network.calls for network in networks[:-1]] == [calls] * (count - 1)
        assert networks[-1].calls == [True]
        total = sum(len(network.calls) for network in networks)
        assert total == (count if update == "simultaneous" else 2 * count - 1)


@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
def test_who_reads_answers_of_before_the_update_and_who_of_after(update, slow):
    networks = answers()
    rows = [network.logits.tolist() for network in networks]
    for k, found in enumerate(DML(networks, update=update).step(batch_of(LABELS), Progress())):
        assert found.losses["peers"].item() == pytest.approx(slow_losses(slow, rows, LABELS)[k][1], rel=1e-12)
        with torch.no_grad():
            networks[k].logits.add_(torch.randn(5, 4, dtype=torch.float64))
        if update == "sequential":
            rows[k] = networks[k].logits.tolist()


def test_answering_anew_leaves_the_running_statistics():
    states = {}
    for update in ("simultaneous", "sequential"):
        torch.manual_seed(0)
        method = DML([ToyNetwork(), ToyNetwork(8)], update=update).train()
        list(method.step(toy_batch(), Progress()))
        states[update] = dict(method.named_buffers())
        assert all(layer.track_running_stats for layer in method.modules() if isinstance(layer, nn.BatchNorm2d))
    counts = [value.item() for name, value in states["sequential"].items() if name.endswith("num_batches_tracked")]
    assert counts == [1] * 4
    for name, value in states["simultaneous"].items():
        assert torch.equal(value, states["sequential"][name]), name


@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
def test_an_update_changes_one_network(update):
    torch.manual_seed(0)
    method = DML([ToyNetwork(), ToyNetwork(8), ToyNetwork()], update=update, lr_scales=[1, 0.5, 0.25]).train()
    specs = method.optimizers()
    optimizers = {name: Training(lr=0.1, momentum=0).build_optimizer(spec) for name, spec in specs.items()}
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()] == [0.1, 0.05, 0.025]
    for found in method.step(toy_batch(), Progress()):
        before = {name: parameter.clone() for name, parameter in method.named_parameters()}
        loss = method.total(found, Progress())
        # Whoever forgets to name the parameters does no harm: the others have no graph.
        optimizers[found.optimizer].zero_grad()
        loss.backward()
        optimizers[found.optimizer].step()
        moved = {name.split(".")[1] for name, p in method.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {found.optimizer}


def test_parts_of_a_batch_add_up_for_every_network():
    gradients = {}
    halves = [replace(toy_batch(), **{k: getattr(toy_batch(), k)[r::2] for k in ("inputs", "targets")}) for r in (0, 1)]
    for name, part in {"whole": toy_batch(), "one": halves[0], "other": halves[1]}.items():
        torch.manual_seed(0)
        method = DML([ToyNetwork(), ToyNetwork(8)], peer="mean-probability", temperature=2.0).eval()
        specs = method.optimizers()
        gradients[name] = [
            torch.autograd.grad(method.total(update, Progress()), list(specs[update.optimizer].params))
            for update in method.step(part, Progress())
        ]
    for whole, one, other in zip(*gradients.values(), strict=True):
        for found, first, second in zip(whole, one, other, strict=True):
            torch.testing.assert_close((first + second) / 2, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("peer", ["mean", "sum", "mean-probability"])
def test_confident_and_equal_answers_stay_finite(dtype, peer):
    networks = [Answer([[1e4, -1e4, 0.0]]), Answer([[-1e4, 1e4, 0.0]]), Answer([[0.0, 0.0, 0.0]])]
    for network in networks:
        network.logits = nn.Parameter(network.logits.detach().to(dtype))
    found, _ = losses_of(DML(networks, peer=peer, temperature=3.0), [2])
    for network, (ce, peers) in zip(networks, found, strict=True):
        assert peers.dtype == torch.float32
        assert torch.isfinite(peers)
        (gradient,) = torch.autograd.grad(ce + peers, network.logits)
        assert gradient.isfinite().all()


def test_names_of_predictions_members_and_what_ships():
    method = DML([ToyNetwork(), ToyNetwork(8)]).eval()
    inputs = toy_batch().inputs
    predictions = method(inputs)
    assert list(predictions) == ["student", "student-2", "ensemble"]
    assert list(method.members()) == ["student-2"]
    assert torch.equal(method.export()(inputs), predictions["student"])
    assert torch.equal(method.members()["student-2"](inputs), predictions["student-2"])


@pytest.mark.parametrize(("networks", "widths"), [(None, [6, 8, 6]), (2, [6, 8]), (4, [6, 8, 6, 6])])
def test_the_networks_of_an_experiment(networks, widths):
    (method,) = methods_of(catalogue.get("dml"), toy_experiment(), {"networks": networks}).values()
    assert isinstance(method.peers, Peers)
    found = [network.model for network in method.peers.extractors.values()]
    assert [network.layer1[0].out_channels for network in found] == widths
    same = [network for network, width in zip(found, widths, strict=True) if width == 6]
    assert not torch.equal(same[0].classifier.weight, same[-1].classifier.weight) or len(same) == 1


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="temperature=0.0 must be above zero"):
        DML(answers(2), temperature=0.0)
    with pytest.raises(UserError, match="networks=1 must be 2 or more"):
        DML(answers(2), networks=1)
    with pytest.raises(UserError, match="start from the same weights"):
        DML([*answers(2), *answers(2)])


class TwoHeads(ToyMapNetwork):
    """Answers in training with an auxiliary head beside it, as torchvision's segmentation networks do."""

    def __init__(self, width):
        super().__init__(width)
        self.head = nn.Conv2d(3, CLASSES, 1)

    def forward(self, inputs):
        answer = super().forward(inputs)
        return {"out": answer, "aux": self.head(inputs)} if self.training else answer


@pytest.mark.parametrize("method", ["dml", "afd"])
def test_auxiliary_heads_of_all_networks_learn(method):
    torch.manual_seed(0)
    networks = [TwoHeads(4), TwoHeads(4)]
    images = torch.rand(4, 3, 12, 16)
    build = {"dml": DML, "afd": lambda found: AFD(found, images, adversarial=False)}[method]
    batch = Batch(inputs=images, targets=torch.randint(CLASSES, (4, 12, 16)))
    updates = list(build(networks).train().step(batch, Progress()))
    assert len(updates) == 2
    for update, network in zip(updates, networks, strict=True):
        assert set(update.losses) == {"ce", "peers", "aux"}
        torch.testing.assert_close(update.losses["aux"], 0.4 * batch.loss(network.head(images)))
