import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tutelage
from tutelage.data.wrap import as_data
from tutelage.errors import Notice, UserError
from tutelage.models.class_order import put_in_order
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization
from tutelage.models.saving import save_network

QUICK = {"epochs": 6, "lr": 0.05, "batch_size": 16, "progress": False, "device": "cpu"}
SAVED = ("ant", "bee", "cat")


@pytest.fixture
def saved(tmp_path):
    """The folder of a network that knows its classes by name, and that network."""
    torch.manual_seed(3)
    network = load_network("tiny_cnn,width=4", num_classes=3, normalization=Normalization.named("cifar10")).eval()
    about = {"spec": "tiny_cnn,width=4", "num_classes": 3, "in_channels": 3, "class_names": SAVED}
    save_network(tmp_path / "run", network, input_size=(16, 16), **about)
    return tmp_path / "run", network


def load(folder, names, **options):
    return load_network(str(folder), num_classes=len(names), class_names=names, **options).eval()


@pytest.mark.parametrize("names", [("cat", "ant", "bee"), ("Cat", "ant", "bee"), ("bee", "CAT", "Ant")])
def test_a_network_answers_in_the_order_of_the_data(saved, names):
    folder, network = saved
    images = torch.rand(5, 3, 16, 16)
    with pytest.warns(Notice, match="is read by name. The network has ant, bee, cat; the data have"):
        again = load(folder, names)
    order = [SAVED.index(name.lower()) for name in names]
    torch.testing.assert_close(again(images), network(images)[:, order])
    assert again.normalization == network.normalization


def test_numbers_that_a_folder_has_in_the_order_of_their_text():
    numbers = [str(number) for number in range(11)]
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 11))
    before, inputs = copy.deepcopy(head), torch.rand(4, 3, 2, 2)
    with pytest.warns(Notice, match="the data have 11 classes, among them 10 at 2, 2 at 3"):
        put_in_order(head, numbers, sorted(numbers), source="x", shapes=[(3, 2, 2)])
    torch.testing.assert_close(head(inputs), before(inputs)[:, [0, 1, 10, *range(2, 10)]])


@pytest.mark.parametrize("names", [SAVED, ("Ant", "Bee", "Cat"), ("0", "1", "2"), None])
def test_the_same_order_and_mere_positions_leave_it_as_it_is(saved, names):
    folder, network = saved
    images = torch.rand(5, 3, 16, 16)
    again = load_network(str(folder), num_classes=3, class_names=names).eval()
    assert torch.equal(again(images), network(images))


def test_other_classes_are_refused_with_both_lists(saved):
    with pytest.raises(UserError, match="The network has ant, bee, cat; the data have bee, cat, dog"):
        load(saved[0], ("bee", "cat", "dog"))
    with pytest.raises(
        UserError, match="has 3 classes, the data 2. The network has ant, bee, cat; the data have ant, bee"
    ):
        load(saved[0], ("ant", "bee"))


def test_the_advice_of_the_message_helps(saved):
    folder, network = saved
    content = json.loads((folder / "network.json").read_text())
    del content["class_names"]
    (folder / "network.json").write_text(json.dumps(content))
    images = torch.rand(5, 3, 16, 16)
    assert torch.equal(load(folder, ("bee", "cat", "dog"))(images), network(images))


def test_names_that_differ_in_spaces_and_hyphens():
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    before = copy.deepcopy(head)
    network, data = ["red_fox", "polar-bear", "Sea Lion"], ["polar bear", "red fox", "sea_lion"]
    with pytest.warns(Notice):
        put_in_order(head, network, data, source="x", shapes=[(3, 2, 2)])
    inputs = torch.rand(4, 3, 2, 2)
    torch.testing.assert_close(head(inputs), before(inputs)[:, [1, 0, 2]])


def test_two_classes_that_differ_in_upper_case_alone_are_told_apart():
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    before = copy.deepcopy(head)
    with pytest.warns(Notice):
        put_in_order(head, ["cat", "Cat", "ant"], ["Cat", "ant", "cat"], source="x", shapes=[(3, 2, 2)])
    inputs = torch.rand(4, 3, 2, 2)
    torch.testing.assert_close(head(inputs), before(inputs)[:, [1, 2, 0]])


class Twice(nn.Module):
    """Answers with the mean of two classifiers, of which only one is registered last."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, images):
        return self.one(images.flatten(1)) + self.other(images.flatten(1))


class Sorted(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1)).sort(1).values


@pytest.mark.parametrize(
    "network", [Twice(), Sorted(12, 3), nn.Flatten(), nn.Sequential(nn.Flatten(), nn.LayerNorm(12))]
)
def test_where_the_rows_cannot_be_exchanged_nothing_is_changed_and_both_lists_are_told(network):
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(
        UserError, match="another order, and no classifier.*has ant, bee, cat; the data have cat, ant, bee"
    ):
        put_in_order(network, SAVED, ("cat", "ant", "bee"), source="x", shapes=[(3, 2, 2)])
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name])


def test_of_many_classes_those_are_named_that_differ(saved):
    one = [f"class {chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(100)]
    with pytest.raises(
        UserError, match="100 classes, among them class aa; the data have 100 classes, among them other"
    ):
        put_in_order(nn.Flatten(), one, ["other", *one[1:]], source="x", shapes=[])


def shades(names):
    """Images whose brightest channel is red for ant, green for bee, blue for cat."""
    labels = torch.arange(60) % len(names)
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 4
    for number, name in enumerate(names):
        images[labels == number, SAVED.index(name.lower())] += 0.6
    return as_data(torch.utils.data.TensorDataset(images, labels), class_names=names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tutelage.distill("supervised", student="tiny_cnn,width=8", data=shades(SAVED), out=folder, **QUICK)
    return str(folder)


def test_a_saved_run_is_evaluated_by_name(trained):
    assert tutelage.evaluate(trained, data=shades(SAVED), split="train").accuracy == 1
    with pytest.warns(Notice, match="read by name"):
        assert tutelage.evaluate(trained, data=shades(("Cat", "ant", "bee")), split="train").accuracy == 1


def test_a_saved_run_is_measured_on_data_that_lack_a_class(trained):
    with pytest.warns(Notice, match="does not have the network's classes bee: the network is measured on the others"):
        assert tutelage.evaluate(trained, data=shades(("cat", "ant")), split="train").accuracy == 1


@pytest.mark.parametrize("method", ["kd", "srrl"])
def test_a_teacher_teaches_by_name(method, trained):
    data = shades(("cat", "ant", "bee"))
    with pytest.warns(Notice, match="read by name"):
        student = tutelage.distill(method, student="tiny_cnn,width=8", teacher=trained, data=data, **QUICK)
    assert tutelage.evaluate(student, data=data, split="train").accuracy > 0.9


def test_a_classifier_that_a_student_takes_over_is_in_the_datas_order(trained):
    with pytest.warns(Notice, match="read by name"):
        student = tutelage.distill(
            "simkd", student="tiny_cnn,width=8", teacher=trained, data=shades(("cat", "ant", "bee")), **QUICK
        )
    saved = load_file(f"{trained}/student.safetensors")
    found = [module for module in student.modules() if isinstance(module, nn.Linear)][-1]
    assert torch.equal(found.weight, saved["classifier.weight"][[2, 0, 1]])
    assert torch.equal(found.bias, saved["classifier.bias"][[2, 0, 1]])
