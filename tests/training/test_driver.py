"""The loop: equal to a plain one, resumed bit for bit, and clear about what stops it."""

import math
import os
import signal
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from tutelage.core.method import Method, Progress, Update
from tutelage.core.teachers import FrozenTeacher, ShuffledTeacher
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.methods.tf_kd_reg import TfKDReg
from tutelage.models.loading import load_network
from tutelage.system import chance
from tutelage.system.console import Silent
from tutelage.system.devices import threads
from tutelage.system.interrupt import Interrupted
from tutelage.training import checkpoint
from tutelage.training.driver import Driver
from tutelage.training.settings import Training
from tutelage.training.state import Stop

TRAINING = Training(epochs=3, batch_size=32, lr=0.05, precision="32-true", warmup_epochs=0.5, log_every=1)
STEPS = 5 * 3


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=170, augment="crop:1,rotate:10", validation=0.1)


def network(seed, width=4):
    torch.manual_seed(seed)
    return load_network(f"tiny_cnn,width={width}", num_classes=10, in_channels=1)


def teacher():
    return FrozenTeacher(network(7, width=6).eval())


METHODS = {
    "kd": lambda: KD(network(1), teacher()),
    "virtual teacher": lambda: TfKDReg(network(1), 10),
    "shuffled teacher": lambda: KD(network(1), ShuffledTeacher(teacher())),
}


class At(Silent):
    """A reporter that does something after some batch."""

    def __init__(self, step, act):
        self.step, self.act, self.seen = step, act, 0

    def advance(self, steps):
        self.seen += steps
        if self.seen == self.step:
            self.act()


class PowerCut(BaseException):
    """Ends a training as kill -9 does: nothing gets a chance to save."""


def cut():
    raise PowerCut


def timeless(state):
    return {key: value for key, value in vars(state).items() if key not in ("seconds", "best", "sums")}


def plain_loop(method, data, training, seed):
    chance.seed_everything(seed)
    loader = data.loader("train", train=True, batch_size=training.batch_size, seed=seed, channels_last=True)
    method.to(memory_format=torch.channels_last)
    optimizer = training.build_optimizer(method.optimizers()["student"])
    total, step = training.epochs * len(loader), 0
    for epoch in range(training.epochs):
        method.train()
        for position, batch in enumerate(loader.epoch(epoch)):
            progress = Progress(step=step, total_steps=total, epoch=epoch, first_of_epoch=position == 0)
            for group in optimizer.param_groups:
                group["lr"] = training.lr * training.lr_factor(step, steps_per_epoch=len(loader), total_steps=total)
            optimizer.zero_grad()
            loss = sum(
                (method.weight(name, progress) * value for name, value in method.losses(batch).items()),
                start=torch.zeros(()),
            )
            loss.backward()
            optimizer.step()
            step += 1


@pytest.mark.parametrize("name", METHODS)
def test_driver_equals_a_plain_loop_bit_for_bit(name, data):
    driven, plain = METHODS[name](), METHODS[name]()
    Driver(TRAINING, seed=3).fit(driven, data)
    with threads(1):
        plain_loop(plain, data, TRAINING, seed=3)
    for (key, one), other in zip(driven.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [3, 5, 7, STEPS])
def test_interrupted_and_resumed_is_the_run_that_never_stopped(name, step, data, tmp_path):
    straight, stopped, resumed = (METHODS[name]() for _ in range(3))
    whole = Driver(TRAINING, seed=3).fit(straight, data)
    file = tmp_path / "checkpoint.pt"
    interrupt = At(step, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="Run the same command again"):
        Driver(TRAINING, seed=3, reporter=interrupt).fit(stopped, data, checkpoint_file=file)
    torch.rand(5)
    state = Driver(TRAINING, seed=3).fit(resumed, data, checkpoint_file=file)
    assert timeless(state) == timeless(whole)
    for (key, one), other in zip(resumed.state_dict().items(), straight.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    assert all(torch.equal(whole.best[key], state.best[key]) for key in whole.best)


@pytest.mark.parametrize("name", METHODS)
def test_killed_in_the_middle_of_an_epoch_and_resumed_is_the_same_run(name, data, tmp_path):
    straight, killed, resumed = (METHODS[name]() for _ in range(3))
    whole = Driver(TRAINING, seed=3).fit(straight, data)
    file, often = tmp_path / "checkpoint.pt", replace(TRAINING, checkpoint_seconds=0.0)
    with pytest.raises(PowerCut):
        Driver(often, seed=3, reporter=At(8, cut)).fit(killed, data, checkpoint_file=file)
    seen = At(-1, cut)
    state = Driver(often, seed=3, reporter=seen).fit(resumed, data, checkpoint_file=file)
    assert seen.seen == STEPS - 7, "it went on from the checkpoint after batch 7"
    assert timeless(state) == timeless(whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))


def test_signal_during_the_last_validation_is_not_lost(data, tmp_path, monkeypatch):
    method, file = METHODS["kd"](), tmp_path / "checkpoint.pt"
    reporter = Silent()
    monkeypatch.setattr(
        reporter,
        "epoch",
        lambda number, *_, **__: os.kill(os.getpid(), signal.SIGTERM) if number == 3 else None,
        raising=False,
    )
    with pytest.raises(Interrupted) as stop:
        Driver(TRAINING, reporter=reporter).fit(method, data, checkpoint_file=file)
    assert stop.value.signal == signal.SIGTERM
    assert Driver(TRAINING).fit(METHODS["kd"](), data, checkpoint_file=file).epoch == 3


def test_a_stop_that_was_reached_before_an_interruption_stays_reached(data, tmp_path):
    file = tmp_path / "checkpoint.pt"

    class Signalling(Silent):
        def epoch(self, number, epochs, metrics, **_):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        Driver(TRAINING, reporter=Signalling()).fit(METHODS["kd"](), data, stop=Stop(after=1), checkpoint_file=file)
    assert Driver(TRAINING).fit(METHODS["kd"](), data, stop=Stop(after=1), checkpoint_file=file).epoch == 1


def test_stop_at_an_accuracy_ends_the_training_early(data):
    state = Driver(TRAINING).fit(METHODS["kd"](), data, stop=Stop(at_score=0.01))
    assert state.epoch == 1


def test_student_is_in_train_mode_at_every_step_and_its_statistics_move_in_every_epoch(data):
    modes, means = [], []

    class Watching(Supervised):
        def losses(self, batch):
            modes.append(all(module.training for module in self.student.modules()))
            norm = next(m for m in self.student.modules() if isinstance(m, nn.BatchNorm2d))
            means.append(norm.running_mean.clone())
            return super().losses(batch)

    Driver(TRAINING).fit(Watching(network(1)), data)
    assert modes == [True] * STEPS
    assert not any(torch.equal(before, after) for before, after in pairwise(means))


def test_teacher_stays_in_eval_mode_and_unchanged(data):
    method = METHODS["kd"]()
    before = checkpoint.snapshot(method.teacher.extractor)
    Driver(TRAINING).fit(method, data)
    assert not any(module.training for module in method.teacher.modules())
    after = method.teacher.extractor.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_nan_loss_is_told_with_its_name_epoch_and_remedies(data):
    with pytest.raises(UserError, match=r"'ce' became infinite or NaN in epoch \d.*--lr") as error:
        Driver(replace(TRAINING, lr=1e9, warmup_epochs=0.0)).fit(Supervised(network(1)), data)
    assert "checkpoint" not in str(error.value)


def test_a_checkpoint_is_never_written_over_with_nan(data, tmp_path):
    file = tmp_path / "checkpoint.pt"

    class Breaking(Supervised):
        calls = 0

        def losses(self, batch):
            self.calls += 1
            return {name: loss * (math.nan if self.calls > 6 else 1) for name, loss in super().losses(batch).items()}

    often = replace(TRAINING, checkpoint_seconds=0.0, log_every=1000)
    with pytest.raises(UserError, match="is sound"):
        Driver(often).fit(Breaking(network(1)), data, checkpoint_file=file)
    content = checkpoint.load(file)
    assert content["state"]["steps"] == 6
    assert all(torch.isfinite(value).all() for value in content["method"].values() if value.is_floating_point())


def test_checkpoint_holds_no_tensor_of_the_teacher(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(PowerCut):
        Driver(replace(TRAINING, checkpoint_seconds=0.0), reporter=At(4, cut)).fit(
            METHODS["shuffled teacher"](), data, checkpoint_file=file
        )
    assert not [key for key in checkpoint.load(file)["method"] if "teacher" in key]


def test_another_schedule_does_not_resume(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(PowerCut):
        Driver(replace(TRAINING, checkpoint_seconds=0.0), reporter=At(4, cut)).fit(
            METHODS["kd"](), data, checkpoint_file=file
        )
    with pytest.raises(UserError, match="run of 15 batches, and this one has 20"):
        Driver(TRAINING).fit(METHODS["kd"](), data, epochs=4, checkpoint_file=file)


def test_an_update_touches_its_own_parameters_only(data):
    class Two(Method):
        def __init__(self):
            super().__init__()
            self.student, self.critic = nn.Linear(64, 10), nn.Linear(64, 10)

        def step(self, batch, progress):
            inputs = batch.inputs.flatten(1)
            both = nn.functional.cross_entropy(self.student(inputs) + self.critic(inputs), batch.labels)
            before = self.critic.weight.clone()
            yield Update({"ce": both})
            assert torch.equal(before, self.critic.weight)
            yield Update({"critic": -nn.functional.cross_entropy(self.critic(inputs), batch.labels)}, "critic")
            assert not torch.equal(before, self.critic.weight)

        def optimizers(self):
            from tutelage.core.method import OptimizerSpec

            return {
                "student": OptimizerSpec(params=list(self.student.parameters())),
                "critic": OptimizerSpec(params=list(self.critic.parameters()), lr_scale=0.5),
            }

        def forward(self, inputs):
            return {"student": self.student(inputs.flatten(1))}

    state = Driver(replace(TRAINING, epochs=1)).fit(Two(), data)
    assert {"train/ce", "train/critic/critic"} <= state.history.keys()


def test_an_optimizer_follows_a_schedule_of_its_own(data):
    seen = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    class Own(Supervised):
        def optimizers(self):
            (spec,) = super().optimizers().values()
            build = partial(Recording, lr=0.5)
            return {"student": replace(spec, build=build, schedule=lambda progress: 1 / (1 + progress.step))}

    state = Driver(replace(TRAINING, epochs=2)).fit(Own(network(1)), data)
    assert seen == [0.5 / (1 + step) for step in range(state.steps)]
