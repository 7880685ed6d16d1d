import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutelage.core.method import Method, OptimizerSpec, Progress, TransferSet, Update
from tutelage.core.schedules import linear
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.data.samplers import RepeatedBatches
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.testing.toys import toy_data
from tutelage.training.settings import Training


class Two(Method):
    def __init__(self, student, teacher=None, weights=None):
        super().__init__(weights)
        self.student = FeatureExtractor(student)
        if teacher is not None:
            self.teacher = teacher

    def losses(self, batch):
        logits = self.student(batch.inputs).logits
        return {"first": logits.mean(), "second": logits.square().mean()}


@pytest.mark.parametrize(("step", "total", "fraction"), [(0, 10, 0.0), (5, 10, 0.5), (10, 10, 1.0), (0, 0, 0.0)])
def test_fraction(step, total, fraction):
    assert Progress(step=step, total_steps=total).fraction == fraction


def test_total_weighs_the_losses():
    method = Two(nn.Linear(2, 3), weights={"first": 2.0, "second": linear(0.0, 4.0)})
    update = Update({"first": torch.tensor(3.0), "second": torch.tensor(5.0), "third": torch.tensor(7.0)})
    found = [method.total(update, Progress(step=step, total_steps=4)).item() for step in (0, 2, 4)]
    assert found == [6.0 + 0.0 + 7.0, 6.0 + 10.0 + 7.0, 6.0 + 20.0 + 7.0]


def test_a_weight_is_a_number_a_function_or_one():
    method = Two(nn.Linear(2, 3), weights={"first": 2.0, "second": lambda progress: progress.epoch / 10})
    now = Progress(epoch=3)
    assert [method.weight(name, now) for name in ("first", "second", "third")] == [2.0, 0.3, 1.0]


def test_weights_are_a_copy():
    weights = {"first": 2.0}
    method = Two(nn.Linear(2, 3), weights=weights)
    weights["first"] = 9.0
    assert method.weights == {"first": 2.0}


def test_an_update_needs_a_loss():
    with pytest.raises(UserError, match="Two yielded an update without losses"):
        Two(nn.Linear(2, 3)).total(Update({}), Progress())


def test_one_update_from_the_losses():
    method, batch = Two(nn.Linear(2, 3)), Batch(inputs=torch.ones(4, 2))
    (update,) = method.step(batch, Progress())
    assert update.optimizer == "student"
    assert set(update.losses) == {"first", "second"}
    method.total(update, Progress()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_a_method_without_losses_says_so():
    class Empty(Method):
        pass

    with pytest.raises(TypeError, match=r"Empty must define losses\(batch\) or step\(batch, progress\)"):
        next(Empty().step(Batch(inputs=torch.ones(1)), Progress()))


def test_predictions_and_export():
    network = nn.Linear(2, 3)
    method, inputs = Two(network), torch.ones(4, 2)
    assert list(method(inputs)) == ["student"]
    assert method.export() is network
    assert torch.equal(method(inputs)["student"], network(inputs))


def test_the_optimizer_takes_what_is_trainable_and_no_teacher():
    network, teacher = nn.Linear(2, 3), nn.Linear(2, 3)
    method = Two(network, FrozenTeacher(teacher))
    network.bias.requires_grad_(False)
    assert list(method.optimizers()) == ["student"]
    assert list(method.optimizers()["student"].params) == [network.weight]


def test_the_transfer_set_is_the_dataset_by_default():
    dataset = object()
    assert Two(nn.Linear(2, 3)).transfer_set(dataset) == TransferSet(dataset)
    assert TransferSet(dataset).batches is None


@pytest.mark.parametrize(("recorded", "fits"), [(None, True), (4, True), (3, False)])
def test_a_batch_shows_no_more_views_than_are_recorded(recorded, fits):
    recording = None if recorded is None else SimpleNamespace(views=recorded, augmentation=Augmentation())
    data = replace(toy_data(), recording=recording)
    transfer = TransferSet(data.train, RepeatedBatches(48, batch_size=8, repeats=4), sections=4, views=4)
    if fits:
        assert len(transfer.loader(data, batch_size=8)) == 6
        return
    with pytest.raises(UserError, match=r"4 views of each image.* only 3 of each are recorded.*record --views 4"):
        transfer.loader(data, batch_size=8)


def test_copies_are_independent():
    method = Two(nn.Linear(2, 3), weights={"first": 2.0})
    twin = copy.deepcopy(method)
    twin.weights["first"] = 5.0
    with torch.no_grad():
        twin.student.model.weight.zero_()
    assert method.weights == {"first": 2.0}
    assert method.student.model.weight.abs().sum() > 0


def test_optimizer_spec_of_ones_own():
    parameter = nn.Parameter(torch.ones(2))
    spec = OptimizerSpec(params=[parameter], build=lambda params: torch.optim.Adam(params, lr=0.5), lr_scale=0.1)
    optimizer = Training().build_optimizer(spec)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
