"""Which dropout stays on, that nothing else moves, and who sees it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import NoLayersError, UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import parse_choice
from tutelage.features.anatomy import classified, classifier
from tutelage.methods.fickle_teacher import fickle
from tutelage.models.dropout import ActiveDropout
from tutelage.models.normalization import Normalized
from tutelage.models.zoo.wrn import wrn
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import TRAINING, ToyNetwork, methods_of, toy_batch, toy_data, toy_experiment
from tutelage.testing.trials import take_steps
from tutelage.training import fingerprint
from tutelage.training.checkpoint import student_state
from tutelage.training.driver import Driver

EXAMPLE = toy_data().example(2)


class Dropping(ToyNetwork):
    """The toy network with dropout of several kinds inside."""

    def __init__(self, width=10, **options):
        super().__init__(width, **options)
        self.layer1.add_module("drop", nn.Dropout2d(0.25))
        self.layer2.add_module("drop", nn.Dropout(0.1))
        self.layer2.add_module("nothing", nn.Dropout(0.0))


def rates(teacher):
    return [(layer.kind, layer.p) for layer in teacher.modules() if isinstance(layer, ActiveDropout)]


def around(method, teacher, **options):
    """Return the methods that are trained by a fickle teacher made of a network."""
    experiment = toy_experiment(teacher=FrozenTeacher(teacher))
    return methods_of(catalogue.get("fickle-teacher"), experiment, {"method": method, **options})


def test_a_network_without_dropout_gets_one_in_front_of_its_classifier():
    network = ToyNetwork(10).eval()
    teacher = fickle(FrozenTeacher(network), EXAMPLE)
    assert rates(teacher) == [("Dropout", 0.4)]
    assert classifier(teacher.inner_network(), EXAMPLE) == "classifier.1"
    assert rates(fickle(FrozenTeacher(network), EXAMPLE, 0.7)) == [("Dropout", 0.7)]
    assert not rates(FrozenTeacher(network)), "the network itself stays as it is"


def test_layers_keep_their_rates_unless_one_is_given():
    network = Dropping()
    assert rates(fickle(FrozenTeacher(network), EXAMPLE)) == [("Dropout2d", 0.25), ("Dropout", 0.1)]
    assert rates(fickle(FrozenTeacher(network), EXAMPLE, 0.3)) == [("Dropout2d", 0.3), ("Dropout", 0.3)]


def test_a_layer_at_two_places_drops_at_both():
    shared = nn.Dropout(0.5)
    network = nn.Sequential(nn.Flatten(), shared, nn.Linear(4, 8), shared, nn.Linear(8, 3))
    teacher = fickle(FrozenTeacher(network), torch.rand(2, 4))
    assert [type(teacher.inner_network()[place]) for place in (1, 3)] == [ActiveDropout, ActiveDropout]


def test_two_answers_differ_and_only_dropout_moves():
    (method,) = around("kd", Dropping()).values()
    teacher = method.teacher
    before = copy.deepcopy(teacher.state_dict())
    assert any(key.endswith("running_mean") for key in before)
    answers = [teacher(toy_batch()).logits for _ in range(2)]
    assert not torch.equal(*answers)
    Driver(TRAINING).fit(method, toy_data())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())


def test_the_mean_answer_is_the_one_without_dropout():
    network = ToyNetwork(10).eval()
    teacher, batch = fickle(FrozenTeacher(network), EXAMPLE), toy_batch()
    many = Batch(inputs=batch.inputs[:1].expand(20_000, -1, -1, -1))
    # The classifier is linear in the mask.
    answers, expected = teacher(many).logits, network(batch.inputs[:1])
    error = answers.std(0) / len(answers) ** 0.5
    assert ((answers.mean(0) - expected).abs() < 5 * error).all()


def test_samples_of_a_batch_have_masks_of_their_own():
    teacher = fickle(FrozenTeacher(ToyNetwork(10)), EXAMPLE)
    answers = teacher(Batch(inputs=toy_batch().inputs[:1].expand(8, -1, -1, -1))).logits
    assert len(answers.unique(dim=0)) > 4


@pytest.mark.parametrize("teacher", [ToyNetwork(10), Dropping()])
def test_at_rate_zero_it_is_the_method_itself_bit_for_bit(teacher):
    (plain,) = methods_of(catalogue.get("kd"), toy_experiment(teacher=FrozenTeacher(teacher))).values()
    (found,) = around("kd", teacher, rate=0.0).values()
    assert not rates(found.teacher)
    for method in (plain, found):
        Driver(TRAINING).fit(method, toy_data())
    one, other = student_state(plain), student_state(found)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", ["kd", "at", "sp", "srrl", "simkd", "crd", "mlld", "semckd"])
def test_whatever_a_method_reads_it_reads_of_the_fickle_network(method):
    (found,) = around(method, Dropping()).values()
    assert ("Dropout2d", 0.25) in rates(found)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        fresh = next(iter(around(method, Dropping()).values()))
        torch.manual_seed(len(losses) + 1)
        losses.append(take_steps(fresh, toy_batch(), steps=1)[0])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("network", [ToyNetwork(10), Dropping()])
def test_its_parts_are_found_as_without(network):
    teacher = fickle(FrozenTeacher(network), EXAMPLE)
    assert classified(teacher.inner_network(), EXAMPLE) == classified(network, EXAMPLE)


@pytest.mark.parametrize("method", ["kd", "at", "end"])
def test_every_member_of_an_ensemble_becomes_fickle(method):
    ensemble = EnsembleTeacher([FrozenTeacher(ToyNetwork(10)), FrozenTeacher(Dropping())])
    experiment = toy_experiment(teacher=ensemble)
    options = {"method": method}
    (found,) = methods_of(catalogue.get("fickle-teacher"), experiment, options).values()
    assert rates(found) == [("Dropout", 0.4), ("Dropout2d", 0.25), ("Dropout", 0.1)]


@pytest.mark.parametrize("teacher", [RecordedTeacher(), UniformTeacher(6)])
def test_a_teacher_without_a_network_is_refused(teacher):
    with pytest.raises(NoLayersError, match=f"A {type(teacher).__name__} gives only logits"):
        methods_of(catalogue.get("fickle-teacher"), toy_experiment(teacher=teacher))


@pytest.mark.parametrize("method", ["supervised", "tf-kd-self", "tf-kd-reg", "supervised-teacher"])
def test_a_method_without_a_teacher_is_refused(method):
    with pytest.raises(UserError, match=f"{method} does not learn from a trained teacher.*kd"):
        methods_of(catalogue.get("fickle-teacher"), toy_experiment(), {"method": method})


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_is_a_share(rate):
    with pytest.raises(UserError, match="rate=.*at least 0 and below 1"):
        around("kd", ToyNetwork(10), rate=rate)


def test_a_network_in_which_nothing_can_drop_is_refused():
    with pytest.raises(UserError, match="single layer"):
        fickle(FrozenTeacher(nn.Linear(4, 3)), torch.rand(2, 4))
    with pytest.raises(UserError, match=r"no dropout.*no place"):
        fickle(FrozenTeacher(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))), torch.rand(2, 4))


def test_networks_that_normalise_for_themselves():
    bare = ToyNetwork(10)
    teacher = fickle(FrozenTeacher(Normalized(bare, (0.5,), (0.25,))), EXAMPLE)
    assert rates(teacher) == [("Dropout", 0.4)]
    assert isinstance(teacher.inner_network(), Normalized)
    assert isinstance(teacher.inner_network().model.classifier, nn.Sequential)
    assert isinstance(bare.classifier, nn.Linear)


def test_a_wide_network_drops_between_its_convolutions():
    network = wrn(10, depth=10, widen=1, dropout=0.4)
    teacher = fickle(FrozenTeacher(network), torch.rand(2, 3, 32, 32))
    assert rates(teacher) == [("Dropout", 0.4)] * 3


def test_another_rate_is_another_piece_of_work():
    found = [fingerprint.of_method(next(iter(around("kd", Dropping(), rate=rate).values()))) for rate in (0.1, 0.2)]
    assert found[0]["networks"] != found[1]["networks"]


def test_chance_goes_on_where_it_was():
    (method,) = around("kd", ToyNetwork(10)).values()
    torch.manual_seed(1)
    first, second = (method.teacher(toy_batch()).logits for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(method.teacher(toy_batch()).logits, first)
    state = torch.get_rng_state()
    assert torch.equal(method.teacher(toy_batch()).logits, second)
    torch.set_rng_state(state)
    assert torch.equal(method.teacher(replace(toy_batch(), teacher=None)).logits, second)


def test_it_asks_for_what_its_method_asks_for():
    assert parse_choice("fickle-teacher:method=crd").fixtures >= {"distill", "teacher", "student", "data", "batch_size"}
