"""Who is asked: named as elsewhere, trained, with the data's classes; untouched by it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.features.anatomy import stages
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network
from tutelage.recording.asking import Answers, asked, decision_of
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import toy_data, toy_recording
from tutelage.training.settings import Training

NET = "from torch.nn import *\n\ndef net(num_classes):\n    return Sequential(Flatten(), Linear(64, num_classes))\n"


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100)


def network(seed=0):
    torch.manual_seed(seed)
    return load_network("tiny_cnn,width=4", num_classes=10, in_channels=1)


@pytest.fixture
def run(tmp_path, data):
    found = network()
    save_network(tmp_path / "run", found, spec=found.spec, num_classes=10, in_channels=1, class_names=data.class_names)
    return str(tmp_path / "run")


def test_a_run_by_name_and_the_module_are_the_same_teacher(run, data):
    by_name, module = asked(run, data), asked(network(), data)
    assert by_name.identity.weights == module.identity.weights
    assert by_name.identity.source == run
    batch = Batch(inputs=data.example(5))
    torch.testing.assert_close(by_name.teacher(batch).logits, module.teacher(batch).logits)


def test_several_networks_answer_as_their_ensemble(data):
    members = [network(0), network(1)]
    found = asked(members, data)
    inputs = data.example(4)
    with torch.no_grad():
        expected = torch.stack([member.eval()(inputs).double().softmax(1) for member in members]).mean(0).log()
    torch.testing.assert_close(found.teacher(Batch(inputs=inputs)).logits.double(), expected, rtol=1e-5, atol=1e-5)
    assert found.identity.weights not in (asked(members[0], data).identity.weights, "")
    assert found.identity.weights != asked(members[::-1], data).identity.weights


def test_an_untrained_name_is_refused_with_the_fix(data):
    with pytest.raises(UserError, match=r"has no trained weights .* Train it first .* or add @FILE") as error:
        asked(["tiny_cnn"], data)
    assert "tutelage distill supervised --student tiny_cnn" in str(error.value)


def test_a_recording_is_not_asked():
    recording = toy_recording("full")
    for source in (recording, f"recording:{recording.folder}", RecordedTeacher(recording)):
        with pytest.raises(UserError, match="has answers only to its own views: name the network"):
            asked(source, toy_data())


def test_no_teacher_at_all_is_told(data):
    with pytest.raises(UserError, match="No teacher was given"):
        asked([], data)


@pytest.mark.parametrize("wrap", [lambda it: it, FrozenTeacher, lambda it: BlackBoxTeacher(it.eval())])
def test_other_classes_and_dense_maps_are_refused(wrap, data):
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    dense = nn.Conv2d(1, 10, 1)
    for teacher in (few, dense):
        with pytest.raises(UserError, match="has 10 classes"):
            asked(wrap(teacher), data)


def test_a_teacher_is_taken_as_it_is(data):
    teacher = UniformTeacher(10)
    assert asked(teacher, data).teacher is teacher


def test_layers_come_with_their_shapes(data):
    found = asked(network(), data, ["layer2.0", "embedding"])
    features = found.teacher(Batch(inputs=data.example(3))).features
    assert {name: (3, *shape) for name, shape in found.layers.items()} == {
        n: tuple(f.shape) for n, f in features.items()
    }
    assert list(found.layers) == ["layer2.0", "embedding"]


def test_layers_come_in_the_order_in_which_they_run_beside_all_stages(data):
    model = network()
    live = stages(model, data.example(2))
    names = [live[-1].layer, "embedding", live[0].layer, "stem:in"]
    for named in (names, names[::-1], [*names, live[0].layer]):
        found = asked(model, data, named)
        assert list(found.layers) == ["stem:in", live[0].layer, live[-1].layer, "embedding"]
        assert list(found.stages) == [tap.layer for tap in live]
        assert [shape[1:] for shape in found.stages.values()] == [tap.size for tap in live]
    assert asked(model, data).stages == {}


def test_layers_of_a_network_without_maps_are_read_by_name(data):
    found = asked(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 10)), data, ["1"])
    assert (dict(found.layers), dict(found.stages)) == ({"1": (5,)}, {})


def test_where_a_network_came_from_is_kept_for_other_folders(run, data, monkeypatch):
    folder = Path(run).parent
    monkeypatch.chdir(folder)
    (folder / "nets.py").write_text(NET)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "own.pt")
    found = asked(["run", "nets.py:net@own.pt"], data).identity
    assert found.source == f"{run} + {folder}/nets.py:net@{folder}/own.pt"
    assert found.name == "run + nets.py:net@own.pt"
    assert asked("tiny_cnn,width=4@run", data).identity.source == f"tiny_cnn,width=4@{run}"


def test_layers_of_what_has_none_are_refused(data):
    with pytest.raises(UserError, match=r"Layers can only be read from a single network.*leave out --layers"):
        asked([network(0), network(1)], data, ["embedding"])
    with pytest.raises(UserError, match="no layer named 'feature'"):
        asked(network(), data, ["feature"])


def test_the_network_that_is_passed_stays_as_it_is(data):
    module = network().train()
    before = copy.deepcopy(module.state_dict())
    found = asked(module, data)
    Answers(found.teacher, decision_of(found, data, Training(device="cpu"), views=1, begun_in=None))(
        Batch(inputs=data.example(8))
    )
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_answers_have_no_gradient_and_are_those_of_eval_mode(data):
    module = network()
    found = asked(module, data)
    answers = Answers(found.teacher, decision_of(found, data, Training(device="cpu"), views=1, begun_in=None))
    output = answers(Batch(inputs=data.example(8)))
    assert not output.logits.requires_grad
    torch.testing.assert_close(output.logits, module.eval()(data.example(8)).detach())


def test_what_was_begun_in_a_precision_goes_on_in_it(data):
    found = asked(network(), data)
    training = Training(device="cpu")
    begun = decision_of(found, data, training, views=1, begun_in="bf16-mixed")
    assert begun.precision == "bf16-mixed"
    assert "as it was begun" in str(begun)
    assert "asked for" not in begun.reasons[0]
    other = decision_of(found, data, Training(device="cpu", precision="32-true"), views=1, begun_in="bf16-mixed")
    assert other.precision == "32-true"


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_computed_in(precision, data):
    found = asked(network(), data)
    exact = found.teacher(Batch(inputs=data.example(8))).logits
    training = Training(device="cpu", precision=precision)
    half = Answers(found.teacher, decision_of(found, data, training, views=1, begun_in=None))
    logits = half(Batch(inputs=data.example(8))).logits
    # As a training does on a processor.
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)


def test_nothing_is_said_of_optimizers(data):
    found = asked(network(), data)
    assert "optimizer" not in str(decision_of(found, data, Training(device="cpu"), views=1, begun_in=None))


def test_it_is_asked_about_views_as_a_training_would_ask(data):
    found, seen = asked(network(), data), []

    class Spy(Answers):
        def __call__(self, batch):
            seen.append(batch)
            return super().__call__(batch)

    answers = Spy(found.teacher, decision_of(found, data, Training(device="cpu"), views=1, begun_in=None))
    indices = torch.tensor([5, 2, 7])
    view = data.augmentation.sample(torch.Generator().manual_seed(0), 3, data.image_size)
    images, targets = data.train.images[indices], data.train.targets[indices]
    output = answers.about(images, targets, indices, view, data)
    expected = data.augmentation.apply(images, view) / 255
    torch.testing.assert_close(seen[0].inputs, expected)
    torch.testing.assert_close(output.logits, network().eval()(expected).detach())
    assert torch.equal(seen[0].indices, indices)
    assert torch.equal(seen[0].targets, targets)
    assert torch.equal(seen[0].extras["view"], view)
