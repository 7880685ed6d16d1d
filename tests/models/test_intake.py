"""What does not take the data, or answers otherwise than their task asks for, is refused before anything is trained."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.models.intake import check_trains, check_untouched, kept_inputs

SETTINGS = {"epochs": 1, "progress": False, "batch_size": 16}


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes)

    def forward(self, inputs):
        return self.last(self.norm(self.conv(inputs)).relu().mean((2, 3)))


class Asserting(Net):
    def forward(self, inputs):
        assert inputs.shape[-1] == 224, f"Input size {inputs.shape[-1]} doesn't match model (224)."
        return super().forward(inputs)


class Raising(Net):
    def forward(self, inputs):
        if inputs.shape[-1] != 64:
            raise ValueError(f"Input image size ({inputs.shape[-1]}) doesn't match model (64).")
        return super().forward(inputs)


class Silent(Net):
    def forward(self, inputs):
        raise AssertionError


@pytest.fixture(scope="module")
def data():
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, torch.arange(60) % 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Asserting(),
            r"Input size 8 doesn't match model \(224\)\. It takes images of 224x224 pixels, and these are 8x8",
        ),
        (Raising(), r"doesn't match model \(64\)\. It takes images of 64x64 pixels.*--image-size 64.*img_size=8"),
        (Silent(), r"of shape \[2, 3, 8, 8\] of data: AssertionError\."),
    ],
)
def test_a_fixed_size_is_named_with_the_ways_out(network, message, data):
    with pytest.raises(UserError, match=f"The teacher cannot take inputs.*{message}"):
        tutelage.distill("kd", student=Net(), teacher=network, data=data, **SETTINGS)
    with pytest.raises(UserError, match=f"The student cannot take inputs.*{message}"):
        tutelage.distill("supervised", student=network, data=data, **SETTINGS)
    with pytest.raises(UserError, match=f"The network cannot take inputs.*{message}"):
        tutelage.evaluate(network, data=data)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_another_type_of_numbers_is_named_with_the_way_out(kind, data):
    message = rf"Its numbers are {kind}, and the inputs are torch\.float32: pass network\.to\(torch\.float32\)"
    with pytest.raises(UserError, match=f"The teacher cannot take inputs.*{message}"):
        tutelage.distill("kd", student=Net(), teacher=Net().to(kind), data=data, **SETTINGS)
    with pytest.raises(UserError, match=f"The student cannot take inputs.*{message}"):
        tutelage.distill("supervised", student=Net().to(kind), data=data, **SETTINGS)


@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("method", ["supervised", "kd", "tf-kd-reg", "at", "dml"])
def test_another_number_of_classes_is_refused(method, classes, data):
    teacher = {"teacher": Net()} if method in ("kd", "at") else {}
    student = [Net(), Net(classes)] if method == "dml" else Net(classes)
    with pytest.raises(
        UserError, match=rf"For 2 samples the student(-2)? returns shape \(2, {classes}\), but data has 3"
    ):
        tutelage.distill(method, student=student, data=data, **teacher, **SETTINGS)


def test_a_student_whose_classifier_is_replaced_may_have_any(data):
    student = tutelage.distill("simkd", student=Net(1000), teacher=Net(), data=data, **SETTINGS)
    assert student(torch.rand(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:.torch.jit", "ignore::torch.jit.TracerWarning")
class TestGraphs:
    """Graphs that were recorded once."""

    def test_one_that_was_traced_in_training_is_no_teacher(self, data):
        traced = torch.jit.trace(Net().train(), torch.rand(2, 3, 8, 8), check_trace=False)
        with pytest.raises(UserError, match="it was traced or exported in training mode"):
            tutelage.distill("kd", student=Net(), teacher=traced, data=data, **SETTINGS)

    def test_one_for_a_single_batch_size_is_no_teacher(self, data):
        graph = torch.export.export(Net().eval(), (torch.rand(2, 3, 8, 8),)).module()
        with pytest.raises(UserError, match="accepts only one batch size"):
            tutelage.distill("kd", student=Net(), teacher=graph, data=data, **SETTINGS)

    @pytest.mark.parametrize("how", ["traced", "frozen", "exported"])
    def test_one_without_a_training_mode_is_no_student(self, how, data):
        example = torch.rand(2, 3, 8, 8)
        make = {
            "traced": lambda: torch.jit.trace(Net().eval(), example),
            "frozen": lambda: torch.jit.freeze(torch.jit.script(Net().eval())),
            "exported": lambda: torch.export.export(Net().eval(), (example,)).module(),
        }
        with pytest.raises(UserError, match="The student was traced, frozen or exported"):
            tutelage.distill("supervised", student=make[how](), data=data, **SETTINGS)

    def test_a_frozen_one_teaches(self, data):
        teacher = torch.jit.freeze(torch.jit.script(Net().eval()))
        assert tutelage.distill("kd", student=Net(), teacher=teacher, data=data, **SETTINGS) is not None

    @pytest.mark.parametrize("method", ["at", "sp", "vid", "fitnet", "simkd", "srrl", "crd", "semckd", "byot"])
    def test_layers_of_torchscript_are_not_read(self, method, data):
        script = torch.jit.script(Net())
        networks = {"student": script} if method == "byot" else {"student": Net(), "teacher": script}
        with pytest.raises(UserError, match=r"layers of a network in TorchScript cannot be read.*such as kd"):
            tutelage.distill(method, data=data, **networks, **SETTINGS)

    def test_a_part_in_torchscript_is_passed_as_a_whole(self, data):
        network = Net()
        network.norm = torch.jit.script(network.norm)
        assert tutelage.distill("at", student=network, teacher=Net(), data=data, **SETTINGS) is not None


class Auxiliary(Net):
    """Another classifier of training alone takes no image smaller than 16 pixels."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 16)

    def forward(self, inputs):
        if self.training:
            self.other(inputs)
        return super().forward(inputs)


class Pair(Net):
    def forward(self, inputs):
        found = super().forward(inputs)
        return (found, found) if self.training else found


class Cut(Net):
    def forward(self, inputs):
        return super().forward(inputs).detach()


class InPlace(Net):
    def forward(self, inputs):
        return super().forward(inputs.sub_(0.5).div_(0.5))


class TestTraining:
    """What only training would show is looked at before it."""

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (
                Auxiliary(),
                r"In training mode the student fails on inputs of data, unlike in eval mode:.*aux_logits=False",
            ),
            (Pair(), "In training mode the student fails, unlike in eval mode: A network returned a tuple"),
            (Cut(), r"The student passes no gradient to its parameters.*detach\(\)"),
            (Net().requires_grad_(False), r"The student has no parameter that learns: all are frozen"),
        ],
    )
    def test_a_student_that_cannot_learn_is_refused(self, network, message, data):
        with pytest.raises(UserError, match=message):
            tutelage.distill("supervised", student=network, data=data, **SETTINGS)

    def test_such_networks_teach(self, data):
        for network in (Auxiliary(), Pair(), Cut(), Net().requires_grad_(False)):
            assert tutelage.distill("kd", student=Net(), teacher=network, data=data, **SETTINGS) is not None

    def test_a_part_may_be_frozen(self, data):
        student = Net()
        student.conv.requires_grad_(False)
        trained = tutelage.distill("supervised", student=student, data=data, **SETTINGS)
        assert torch.equal(trained.conv.weight, student.conv.weight)
        assert not torch.equal(trained.last.weight, student.last.weight)

    def test_looking_changes_nothing(self, data):
        network = nn.Sequential(Net(), nn.Dropout())
        before = {name: value.clone() for name, value in network.state_dict().items()}
        state = torch.get_rng_state()
        check_trains(network, as_data(data), who="student")
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
        assert network.training

    def test_inputs_are_left_alone(self, data):
        with pytest.raises(UserError, match=r"The teacher changes its inputs in place.*x = x\.clone\(\)"):
            tutelage.distill("kd", student=Net(), teacher=InPlace(), data=data, **SETTINGS)
        with pytest.raises(UserError, match="The student changes its inputs in place"):
            tutelage.distill("kd", student=InPlace(), teacher=Net(), data=data, **SETTINGS)

    def test_inputs_that_are_no_numbers_are_not_changed(self):
        inputs = {"image": torch.tensor([1.0, float("nan")]), "tokens": torch.tensor([1, 2])}
        before = kept_inputs(inputs)
        check_untouched(before, inputs, who="student")
        inputs["tokens"] += 1
        with pytest.raises(UserError, match="changes its inputs in place"):
            check_untouched(before, inputs, who="student")
