import json

import pytest
import torch
from torch import nn

from tutelage.core.method import Method, OptimizerSpec, Progress, TransferSet, Update
from tutelage.data.batch import Batch
from tutelage.data.label_noise import label_offsets
from tutelage.experiments import catalogue
from tutelage.methods.messy_collaboration import LabelNoise
from tutelage.methods.parts.altered import Altered
from tutelage.methods.soft_randomization import InputNoise
from tutelage.methods.supervised import Supervised
from tutelage.testing.toys import methods_of, toy_batch, toy_experiment
from tutelage.testing.trials import take_steps
from tutelage.training import fingerprint
from tutelage.training.checkpoint import student_state


class Doubled(nn.Module):
    def forward(self, batch, progress):
        return Batch(inputs=2 * batch.inputs, targets=batch.targets + progress.epoch)


class Telling(Method):
    """Uses every part of the interface, each in a way of its own."""

    density = "dirichlet"

    def __init__(self):
        super().__init__({"a": 3.0})
        self.layer, self.done = nn.Linear(2, 2), []
        self.pairs = ("first", "last")

    def step(self, batch, progress):
        yield Update({"a": batch.inputs.sum(), "b": batch.targets.sum()})
        self.done.append("after the step")

    def optimizers(self):
        return {"other": OptimizerSpec(params=[self.layer.weight])}

    def forward(self, inputs):
        return {"one": inputs, "two": self.layer(inputs)}

    def export(self):
        return nn.Identity()

    def members(self):
        return {"two": self.layer}

    def transfer_set(self, dataset):
        return TransferSet([dataset], sections=2)

    def weight(self, name, progress):
        return 10 * super().weight(name, progress)

    def total(self, update, progress):
        return super().total(update, progress) + 1


def test_it_trains_on_the_altered_batch_and_the_rest_is_the_methods():
    inner = Telling()
    method, progress = Altered(inner, Doubled()), Progress(epoch=5)
    steps = method.step(Batch(inputs=torch.ones(3), targets=torch.zeros(3)), progress)
    update = next(steps)
    assert {name: value.item() for name, value in update.losses.items()} == {"a": 6, "b": 15}
    assert not inner.done
    assert next(steps, None) is None
    assert inner.done == ["after the step"]
    assert method.weight("a", progress) == 30
    assert method.total(update, progress) == 30 * 6 + 10 * 15 + 1
    assert method.weights == {"a": 3.0}
    assert list(method.optimizers()) == ["other"]
    assert list(method(torch.ones(1, 2))) == ["one", "two"]
    assert torch.equal(method(torch.ones(1, 2))["one"], torch.ones(1, 2)), "predictions are of the inputs as they are"
    assert isinstance(method.export(), nn.Identity)
    assert method.members() == {"two": inner.layer}
    assert (method.transfer_set("data").dataset, method.transfer_set("data").sections) == (["data"], 2)
    assert (method.pairs, method.density) == (("first", "last"), "dirichlet")


def test_parameters_have_one_name_each():
    inner = Supervised(nn.Linear(3, 2))
    method = Altered(inner, Doubled())
    assert method.student is inner.student
    assert list(student_state(method)) == ["method.student.model.weight", "method.student.model.bias"]


def test_a_method_without_a_student_has_none():
    assert not hasattr(Altered(Telling(), Doubled()), "student")


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (InputNoise(0.1), InputNoise(0.2)),
        (InputNoise(0.1), InputNoise(0.1, clip=True)),
        (LabelNoise(0.1, 6, flips="any", seed=0), LabelNoise(0.2, 6, flips="any", seed=0)),
        (LabelNoise(0.1, 6, flips="any", seed=0), LabelNoise(0.1, 6, flips="other", seed=0)),
        (LabelNoise(0.1, 6, flips="any", seed=0), LabelNoise(0.1, 6, flips="any", seed=1)),
        (LabelNoise(0.1, 6, flips="any", seed=0), LabelNoise(0.1, 6, flips="any", seed=0, samples=48)),
        (InputNoise(0.1), LabelNoise(0.1, 6, flips="any", seed=0)),
    ],
)
def test_another_level_is_another_piece_of_work(change, other):
    inner = Supervised(nn.Linear(3, 2))
    plain, found, again = (
        json.dumps(fingerprint.of_method(method), sort_keys=True)
        for method in (inner, Altered(inner, change), Altered(inner, other))
    )
    assert len({plain, found, again}) == 3


def test_a_drawn_epoch_is_no_setting():
    noise = LabelNoise(0.5, 6, flips="any", seed=0, samples=48)
    method = Altered(Supervised(nn.Linear(3, 6)), noise)
    before = fingerprint.of_method(method)
    noise(toy_batch(), Progress())
    assert fingerprint.of_method(method) == before
    assert label_offsets(3, 1.0, 6).dtype == torch.int64


WRAPPERS = {
    "fickle-teacher": {"rate": 0.3},
    "soft-randomization": {"std": 0.2, "clip": True},
    "messy-collaboration": {"student_rate": 0.5, "redraw": "epoch"},
}
# Stages in which nothing of what the wrapper alters is looked at: labels, or what lies behind the teacher's layers.
UNTOUCHED = {
    "fickle-teacher": {("at", "distill"), ("fitnet:variant=paper", "hints")},
    "soft-randomization": set(),
    "messy-collaboration": {
        ("endd", "distill"),
        ("fitnet:variant=paper", "hints"),
        ("born-again", "generation-1"),
        ("born-again", "generation-2"),
    },
}
INNER = ["kd", "at", "mlld", "crd", "supervised", "tf-kd-self", "srrl", "endd", "fitnet:variant=paper", "born-again"]


def wrapped(wrapper, method):
    return methods_of(catalogue.get(wrapper), toy_experiment(), WRAPPERS[wrapper] | {"method": method})


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_any_method_can_be_wrapped(wrapper, inner):
    without_teacher = wrapper == "fickle-teacher" and inner in ("supervised", "tf-kd-self", "born-again")
    if without_teacher:
        with pytest.raises(ValueError, match="does not learn from a trained teacher"):
            wrapped(wrapper, inner)
        return
    plain, found = methods_of_text(inner), wrapped(wrapper, inner)
    assert list(found) == list(plain)
    for stage, method in found.items():
        assert isinstance(method, Altered) == (wrapper != "fickle-teacher"), stage
        inside = getattr(method, "method", method)
        assert type(inside) is type(plain[stage])
        losses = take_steps(method, toy_batch(), steps=2)
        assert torch.tensor(losses).isfinite().all()
        altered = losses[0] != take_steps(plain[stage], toy_batch(), steps=1)[0]
        assert altered == ((inner, stage) not in UNTOUCHED[wrapper]), stage


def methods_of_text(text):
    from tutelage.experiments.choice import parse_choice

    choice = parse_choice(text)
    return methods_of(choice.entry, toy_experiment(), choice.options)


@pytest.mark.parametrize(
    "method",
    ["(fickle-teacher:rate=0.3,method=(kd:temperature=8,alpha=0.5))", "fickle-teacher:method=kd", "fickle-teacher"],
)
def test_wrappers_nest(method):
    outer = catalogue.get("messy-collaboration")
    options = {"method": f"(soft-randomization:std=0.2,method={method})", "redraw": "epoch"}
    (found,) = methods_of(outer, toy_experiment(), options).values()
    labels, inputs = found.change, found.method.change
    assert (type(labels), type(inputs)) == (LabelNoise, InputNoise)
    inner = found.method.method
    assert inner.temperature == (8.0 if "temperature" in method else 4.0)
    assert any(type(module).__name__ == "ActiveDropout" for module in inner.teacher.modules())
    assert torch.tensor(take_steps(found, toy_batch(), steps=2)).isfinite().all()
