import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods.afd import AFD, Discriminator, discriminator_loss, generator_loss, transfer
from tutelage.methods.dml import DML
from tutelage.testing.toys import ToyNetwork, methods_of, toy_batch, toy_experiment, toy_transformer
from tutelage.training.settings import Training


class Answer(nn.Module):
    """Says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float64))

    def forward(self, inputs):
        return self.logits * 1


class Constant(nn.Module):
    """A discriminator that says the same of every map."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, maps):
        return self.value.expand(len(maps))


def toys(widths=(6, 8, 6), **options):
    torch.manual_seed(sum(widths))
    networks = [ToyNetwork(width, batch_norm=options.pop("batch_norm", True)) for width in widths]
    return AFD(networks, toy_batch().inputs, **options)


def steps_of(method, batch=None):
    """Take one training step; return for each update its optimizer, its losses and what it changed."""
    optimizers = {name: Training(lr=0.1).build_optimizer(spec) for name, spec in method.optimizers().items()}
    found = []
    for update in method.train().step(batch or toy_batch(), Progress()):
        before = {name: value.clone() for name, value in method.state_dict().items()}
        optimizers[update.optimizer].zero_grad()
        params = list(method.optimizers()[update.optimizer].params)
        torch.autograd.backward(method.total(update, Progress()), inputs=params)
        optimizers[update.optimizer].step()
        changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
        found.append((update.optimizer, {name: loss.item() for name, loss in update.losses.items()}, changed))
    return found


def values(updates):
    return {update.optimizer: [loss.item() for loss in update.losses.values()] for update in updates}


def slow_convolution(maps, weight, bias, stride):
    """A convolution without padding, one number at a time."""
    height, width = len(weight[0][0]), len(weight[0][0][0])
    rows = range(0, len(maps[0][0]) - height + 1, stride)
    columns = range(0, len(maps[0][0][0]) - width + 1, stride)
    return [
        [
            [
                [
                    bias[d]
                    + math.fsum(
                        kernel[c][i][j] * sample[c][y + i][x + j]
                        for c in range(len(sample))
                        for i in range(height)
                        for j in range(width)
                    )
                    for x in columns
                ]
                for y in rows
            ]
            for d, kernel in enumerate(weight)
        ]
        for sample in maps
    ]


def slow_discriminator(discriminator, maps):
    """What the discriminator says in train mode, `[batch]`, one number at a time."""
    first, norm, _, second = discriminator.layers
    hidden = slow_convolution(maps, first.weight.tolist(), [0.0] * first.out_channels, 1)
    for d, (scale, shift) in enumerate(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)):
        seen = [value for sample in hidden for row in sample[d] for value in row]
        mean = math.fsum(seen) / len(seen)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in seen) / len(seen) + 1e-5)
        for sample in hidden:
            scaled = [[(value - mean) / deviation * scale + shift for value in row] for row in sample[d]]
            sample[d] = [[value if value > 0 else 0.01 * value for value in row] for row in scaled]
    places = slow_convolution(hidden, second.weight.tolist(), second.bias.tolist(), 2)
    means = [math.fsum(value for row in sample[0] for value in row) / sum(map(len, sample[0])) for sample in places]
    return [1 / (1 + math.exp(-value)) for value in means]


def slow_contest(discriminator, real, fake):
    """The discriminator's loss and the generator's."""
    said = slow_discriminator(discriminator, fake)
    judged = [(1 - d) ** 2 for d in slow_discriminator(discriminator, real)]
    return math.fsum(judged + [d**2 for d in said]) / len(said), math.fsum((1 - d) ** 2 for d in said) / len(said)


def test_logit_losses_go_round_against_loops(slow):
    torch.manual_seed(1)
    labels = [0, 3, 1, 1, 2]
    networks = [Answer(torch.randn(5, 4) * 2) for _ in range(3)]
    rows = [network.logits.tolist() for network in networks]
    batch = Batch(inputs=torch.zeros(5, 1), targets=torch.tensor(labels))
    for temperature, t_squared in [(3.0, True), (3.0, False), (1.0, True)]:
        method = AFD(networks, None, adversarial=False, temperature=temperature, t_squared=t_squared)
        updates = list(method.step(batch, Progress()))
        assert [update.optimizer for update in updates] == ["student", "student-2", "student-3"]
        for k, peer in [(0, 2), (1, 0), (2, 1)]:
            found = updates[k].losses
            factor = temperature**2 if t_squared else 1
            soft = factor * slow.soft_loss(rows[k], rows[peer], temperature)
            assert found["ce"].item() == pytest.approx(slow.label_loss(rows[k], labels), rel=1e-12)
            assert found["peers"].item() == pytest.approx(soft, rel=1e-12)
            gradients = torch.autograd.grad(sum(found.values()), [n.logits for n in networks], allow_unused=True)
            assert [gradient is None for gradient in gradients] == [number != k for number in range(3)]
            closed = []
            for row, other, y in zip(rows[k], rows[peer], labels, strict=True):
                hot, soft, target = slow.softmax(row), slow.softmax(row, temperature), slow.softmax(other, temperature)
                pull = [factor / temperature * (p - t) for p, t in zip(soft, target, strict=True)]
                closed.append([(hot[c] - (c == y) + pull[c]) / 5 for c in range(4)])
            expected = torch.tensor(closed, dtype=torch.float64)
            torch.testing.assert_close(gradients[k], expected, rtol=1e-11, atol=1e-14)


def test_without_the_contest_two_networks_are_mutual_learning():
    torch.manual_seed(2)
    networks = [Answer(torch.randn(5, 4)), Answer(torch.randn(5, 4))]
    batch = Batch(inputs=torch.zeros(5, 1), targets=torch.tensor([0, 3, 1, 1, 2]))
    ours, theirs = AFD(networks, None, adversarial=False), DML(networks, temperature=3.0)
    assert values(ours.step(batch, Progress())) == values(theirs.step(batch, Progress()))
    assert ours.optimizers().keys() == theirs.optimizers().keys()
    assert len(ours.discriminators) == len(ours.transfers) == len(ours.pairs) == 0


@pytest.mark.parametrize("constant", [0.0, 0.3, 0.5, 1.0])
def test_a_discriminator_that_says_the_same_of_all(constant):
    said = torch.full((4,), constant)
    assert discriminator_loss(said, said).item() == pytest.approx((1 - constant) ** 2 + constant**2)
    assert generator_loss(said).item() == pytest.approx((1 - constant) ** 2)
    method = toys()
    method.discriminators = nn.ModuleList(Constant(constant) for _ in range(3))
    found = values(method.train().step(toy_batch(), Progress()))
    assert found["student-2-discriminator"] == pytest.approx([(1 - constant) ** 2 + constant**2])
    assert found["student-2-features"] == pytest.approx([(1 - constant) ** 2])


def test_known_answers():
    real, fake = torch.tensor([0.8]), torch.tensor([0.3])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.13)
    assert generator_loss(fake).item() == pytest.approx(0.49)
    # The published size, less a bias that batch norm would cancel.
    assert sum(p.numel() for p in Discriminator(512, (4, 4)).parameters()) == 526_081 - 256
    assert isinstance(transfer(8, 8), nn.Identity)
    assert sum(p.numel() for p in transfer(16, 8).parameters()) == 128


@pytest.mark.parametrize("size", [(3, 4), (4, 4), (6, 5)])
def test_discriminator_and_both_losses_against_loops(size, double):
    torch.manual_seed(3)
    discriminator = Discriminator(4, size).train()
    with torch.no_grad():
        discriminator.layers[1].weight.uniform_(0.5, 2)
        discriminator.layers[1].bias.uniform_(-0.5, 0.5)
    real, fake = torch.randn(3, 4, *size), torch.randn(3, 4, *size, requires_grad=True)
    judged = discriminator_loss(discriminator(real), discriminator(fake))
    passed = generator_loss(discriminator(fake))
    expected = slow_contest(discriminator, real.tolist(), fake.tolist())
    assert (judged.item(), passed.item()) == pytest.approx(expected, rel=1e-10)
    for which, loss in enumerate((judged, passed)):
        (gradient,) = torch.autograd.grad(loss, fake, retain_graph=True)
        for place in [(0, 0, 0, 0), (1, 2, 1, 1), (2, 3, 0, 1)]:
            shift = torch.zeros_like(fake)
            shift[place] = 1e-6
            up, down = (
                slow_contest(discriminator, real.tolist(), (fake.detach() + s * shift).tolist())[which] for s in (1, -1)
            )
            assert gradient[place].item() == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (2, 1), (3, 3), (4, 4), (7, 7), (8, 8), (5, 16)])
@pytest.mark.parametrize("channels", [1, 5])
def test_one_number_leaves_for_each_map_whatever_its_size(size, channels):
    said = Discriminator(channels, size)(torch.randn(3, channels, *size))
    assert said.shape == (3,)
    assert ((said > 0) & (said < 1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_discriminator_says_is_wide(dtype):
    discriminator = Discriminator(4, (4, 4))
    with torch.autocast("cpu", dtype):
        assert discriminator(torch.randn(3, 4, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize("widths", [(6, 6), (6, 8), (6, 8, 6)])
def test_the_method_computes_the_slow_loops_on_the_last_maps(widths):
    method, batch = toys(widths).double().train(), toy_batch()
    inputs = batch.inputs.double()
    networks = [network.model for network in method.peers.extractors.values()]
    with torch.no_grad():
        maps = [network.layer2(network.layer1(inputs)) for network in networks]
        maps = [adapter(one) for one, adapter in zip(maps, method.transfers, strict=True)]
    assert [one.shape[1:] for one in maps] == [(12, 3, 4)] * len(widths)
    found = values(method.step(replace(batch, inputs=inputs), Progress()))
    for k, name in enumerate(method.peers):
        # Of two networks the one before is the one behind: the circle is the exchange.
        expected = slow_contest(method.discriminators[k], maps[k - 1].tolist(), maps[k].tolist())
        pair = [*found[f"{name}-discriminator"], *found[f"{name}-features"]]
        assert pair == pytest.approx(expected, rel=1e-8)


def test_updates_in_their_order_and_what_each_changes():
    found = steps_of(toys())
    names = ["student", "student-2", "student-3"]
    order = [name + kind for kind in ("", "-discriminator", "-features") for name in names]
    assert [optimizer for optimizer, _, _ in found] == order
    for k, name in enumerate(names):
        _, losses, changed = found[k]
        assert list(losses) == ["ce", "peers"]
        assert all(key.startswith(f"peers.{name}.") for key in changed if "running" not in key and "num_" not in key)
        _, losses, changed = found[k + 3]
        assert list(losses) == ["discriminator"]
        assert {key.split(".")[0] for key in changed} == {"discriminators"}
        weights = {key for key in changed if "running" not in key and "num_" not in key}
        assert {key.split(".")[1] for key in weights} == {str(k)}
        _, losses, changed = found[k + 6]
        assert list(losses) == ["adversarial"]
        assert changed
        # The widest has a transfer layer, which is trained with it; no statistics move, and no classifier.
        own = (f"peers.{name}.model.layer", f"transfers.{k}.")
        assert all(key.startswith(own) and "running" not in key and "num_" not in key for key in changed)
    assert "transfers.1.weight" in found[7][2]


def test_a_step_of_a_discriminator_leaves_the_networks_without_gradient():
    method = toys()
    for update in method.train().step(toy_batch(), Progress()):
        # Even where nobody names the parameters.
        if update.optimizer.endswith("-discriminator"):
            method.zero_grad()
            method.total(update, Progress()).backward()
            assert all(p.grad is None for p in [*method.peers.parameters(), *method.transfers.parameters()])
    gradients = {}
    for update in method.step(toy_batch(), Progress()):
        if update.optimizer.endswith("-features"):
            named = dict(method.peers.named_parameters())
            found = torch.autograd.grad(update.losses["adversarial"], list(named.values()), allow_unused=True)
            gradients[update.optimizer] = {name.split(".")[0] for name, g in zip(named, found) if g is not None}
    assert gradients == {f"{name}-features": {name} for name in ("student", "student-2", "student-3")}


def test_swapping_the_networks_swaps_the_losses():
    def made(order):
        torch.manual_seed(0)
        networks, judges = [ToyNetwork(6), ToyNetwork(6)], [Discriminator(12, (3, 4)) for _ in range(2)]
        method = AFD([networks[k] for k in order], toy_batch().inputs)
        method.discriminators = nn.ModuleList(judges[k] for k in order)
        return values(method.train().step(toy_batch(), Progress()))

    one, other = made((0, 1)), made((1, 0))
    for kind in ("", "-discriminator", "-features"):
        assert one[f"student{kind}"] == other[f"student-2{kind}"]
        assert one[f"student-2{kind}"] == other[f"student{kind}"]
    assert one["student"] != one["student-2"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_there_are_as_many_discriminators_as_networks(count):
    method = toys((6, 8, 6, 8)[:count])
    assert len(method.discriminators) == len(method.transfers) == count
    assert len(method.optimizers()) == 3 * count
    assert [str(pair.student) for pair in method.pairs[:2]] == ["layer2 (12x3x4)", "layer2 (16x3x4)"]
    assert [pair.teacher for pair in method.pairs] == [method.pairs[k - 1].student for k in range(count)]


@pytest.mark.parametrize(("adversarial", "passes"), [(True, 2), (False, 1)])
def test_forward_passes_are_counted_and_statistics_move_once(adversarial, passes):
    method, calls = toys((6, 8), adversarial=adversarial).train(), []
    for network in method.peers.extractors.values():
        network.model.register_forward_hook(lambda *_: calls.append(1))
    list(method.step(toy_batch(), Progress()))
    assert len(calls) == 2 * passes
    counts = [buffer.item() for name, buffer in method.peers.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [1] * 4
    # Real and fake maps are two batches; the pass for the networks leaves no trace.
    counts = [b.item() for name, b in method.discriminators.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [2, 2] * adversarial


def test_optimizers_of_the_contest_have_rate_decay_and_course_of_their_own():
    method = toys((6, 8), feature_lr=1e-3, feature_weight_decay=0.2, feature_milestones=[0.5], lr_scales=[1, 0.5])
    specs = method.optimizers()
    for name, spec in specs.items():
        optimizer = Training(lr=0.1).build_optimizer(spec)
        own = name.count("-") > name.count("-2")
        assert isinstance(optimizer, torch.optim.Adam) == own
        if own:
            assert optimizer.param_groups[0]["initial_lr"] == 1e-3
            assert optimizer.param_groups[0]["weight_decay"] == 0.2
            at = [spec.schedule(Progress(step=step, total_steps=10)) for step in (0, 4, 5, 9)]
            assert at == pytest.approx([1, 1, 0.1, 0.1])
        else:
            assert spec.schedule is None
    assert specs["student-2"].lr_scale == 0.5
    defaults = catalogue.get("afd").hyper_parameters
    assert (defaults["feature_lr"], defaults["feature_weight_decay"]) == (2e-5, 0.1)
    assert defaults["feature_milestones"] == (75 / 300, 150 / 300)


def test_a_transfer_layer_belongs_to_the_network_that_is_wider():
    method = toys()
    kinds = [type(layer) for layer in method.transfers]
    assert kinds == [nn.Identity, nn.Conv2d, nn.Identity]
    weight = method.transfers[1].weight
    owners = [name for name, spec in method.optimizers().items() if any(p is weight for p in spec.params)]
    assert owners == ["student-2-features"]


@pytest.mark.parametrize("pair", [("cnn", "vit"), ("vit", "cnn"), ("vit", "vit")])
def test_networks_of_different_kinds_and_sizes(pair):
    torch.manual_seed(4)
    networks = [toy_transformer(6, image_size=(16, 24)) if kind == "vit" else ToyNetwork(8) for kind in pair]
    example = torch.randn(4, 3, 16, 24)
    method = AFD(networks, example)
    assert method.size == ((2, 3) if "vit" in pair else (4, 6))
    found = steps_of(method, Batch(inputs=example, targets=torch.tensor([0, 1, 2, 1])))
    assert len(found) == 6
    for _, losses, changed in found:
        assert changed
        assert all(math.isfinite(loss) for loss in losses.values())


def test_layers_by_name():
    assert [pair.student.layer for pair in toys(layers="layer1").pairs] == ["layer1"] * 3
    method = toys(layers="layer2+layer1+layer2")
    assert [pair.student.layer for pair in method.pairs] == ["layer2", "layer1", "layer2"]
    assert method.size == (3, 4)
    list(method.train().step(toy_batch(), Progress()))
    with pytest.raises(UserError, match="must name one layer for all 3 networks, or one for each"):
        toys(layers="layer1+layer2")
    with pytest.raises(UserError, match="In the student-2: There is no layer named 'layer9'"):
        toys(layers="layer1+layer9+layer1")


def test_parts_of_a_batch_add_up_in_every_update():
    halves = [replace(toy_batch(), **{k: getattr(toy_batch(), k)[r::2] for k in ("inputs", "targets")}) for r in (0, 1)]
    found = []
    for part in (toy_batch(), *halves):
        method = toys().eval()
        specs = method.optimizers()
        found.append(
            {
                update.optimizer: torch.autograd.grad(
                    method.total(update, Progress()), list(specs[update.optimizer].params), allow_unused=True
                )
                for update in method.step(part, Progress())
            }
        )
    for optimizer, gradients in found[0].items():
        for whole, one, other in zip(gradients, found[1][optimizer], found[2][optimizer], strict=True):
            assert (whole is None) == (one is None) == (other is None)
            if whole is not None:
                torch.testing.assert_close((one + other) / 2, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [None, 2])
def test_predictions_members_and_what_ships(count):
    (method,) = methods_of(catalogue.get("afd"), toy_experiment(), {"networks": count}).values()
    inputs = toy_batch().inputs
    predictions = method.eval()(inputs)
    assert list(predictions) == ["student", "student-2", *["student-3"] * (count is None), "ensemble"]
    assert torch.equal(method.export()(inputs), predictions["student"])
    for name, network in method.members().items():
        assert type(network) is ToyNetwork
        assert torch.equal(network(inputs), predictions[name])


def test_the_contest_teaches_discriminators_to_tell_and_networks_to_pass():
    """With one side alone at work, its loss falls."""
    for kind, at_work in (("discriminator", "-discriminator"), ("adversarial", "-features")):
        method = toys((6, 8), feature_lr=1e-2, feature_weight_decay=0.0).train()
        optimizers = {name: Training().build_optimizer(spec) for name, spec in method.optimizers().items()}
        history = []
        for _ in range(30):
            for update in method.step(toy_batch(), Progress()):
                if update.optimizer.endswith(at_work):
                    optimizers[update.optimizer].zero_grad()
                    params = list(method.optimizers()[update.optimizer].params)
                    torch.autograd.backward(update.losses[kind], inputs=params)
                    optimizers[update.optimizer].step()
                    history.append(update.losses[kind].item())
        assert history[-1] < 0.2 * history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "must be above zero"),
        ({"feature_lr": 0.0}, "must be above zero"),
        ({"feature_weight_decay": -0.1}, "must not be negative"),
        ({"feature_milestones": [0.5, 0.25]}, "must be rising shares of the run"),
        ({"networks": 1}, "networks=1 must be 2 or more"),
        ({"lr_scales": [1, 2]}, "one number for all 3 networks"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        toys(**options)
