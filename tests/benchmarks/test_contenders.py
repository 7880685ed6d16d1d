"""Those who are compared: all train the same, and take their turns."""

from dataclasses import replace

import pytest
import torch
from contenders import CONTENDERS, ours, plain, toolkits
from contenders.command import parser_of, setting_of
from contenders.occasion import with_recording
from contenders.pace import Over, Pace, Turns
from contenders.setting import Setting
from torchvision import transforms

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.data.images import as_inputs
from tutelage.errors import UserError
from tutelage.methods import KD


class Few(Pace):
    """Ends a training after some steps."""

    def __init__(self, steps):
        super().__init__(0.05, 1000)
        self.steps = steps

    @property
    def every(self):
        return 1

    def step(self, optimizer=None, count=1):
        super().step(optimizer, count)
        if self.done >= self.steps:
            raise Over


def function_of(name):
    if (why := CONTENDERS[name].missing) is not None:
        pytest.skip(why)
    return CONTENDERS[name].train()


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "teacher"])
def test_every_contender_trains_its_student(name, tiny, recording):
    train, setting = function_of(name), replace(tiny, epochs=1, recording=recording)
    pace = Pace(setting.lr, 5)
    before = setting.networks(setting.load())[1].state_dict()
    after = train(setting, pace).state_dict()
    assert before.keys() == after.keys()
    weights = [key for key in before if before[key].ndim > 1]
    assert weights
    assert all(not torch.equal(before[key], after[key].cpu()) for key in weights)
    # Tutelage reports every so many batches, and five are too few.
    assert pace.done in ({0, 5} if name in ("live", "recorded") else {5})


def test_the_teacher_alone_is_asked_within_a_training(tiny):
    pace = Few(3)
    with pytest.raises(Over):
        function_of("teacher")(tiny, pace)
    assert pace.done == 3


@pytest.mark.parametrize("name", ["live", "recorded"])
def test_tutelage_reports_each_step_where_turns_ask_for_it(name, tiny, recording):
    pace = Few(7)
    with pytest.raises(Over):
        function_of(name)(replace(tiny, recording=recording), pace)
    assert pace.done == 7


def test_everybody_takes_the_same_step(tiny):
    """Loss, gradient, momentum and weight decay agree, after two steps, so that momentum counts."""
    data = tiny.load()
    batch = next(iter(tiny.lent_batches(data).epoch(0)))

    def by_hand(teacher, student):
        optimizer = tiny.optimizer(student, fused=False)
        for _ in range(2):
            optimizer.zero_grad()
            plain.kd(student(batch.inputs), teacher(batch.inputs), batch.targets, tiny).backward()
            optimizer.step()

    def by_torchdistill(teacher, student):
        box = toolkits.box_of(tiny, teacher, student, plain.Pictures(data), fused=True)
        box.pre_epoch_process(epoch=0)
        for _ in range(2):
            box.post_forward_process(loss=box.forward_process(batch.inputs, batch.targets, {}))

    def by_timm(teacher, student):
        task = toolkits.task_of(tiny, teacher, student, student, data).train()
        optimizer = toolkits.timm_optimizer(tiny, student, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            task(batch.inputs, batch.targets)["loss"].backward()
            optimizer.step()

    def by_tutelage(teacher, student):
        options = ours.kd_of(tiny).options
        method = KD(student, FrozenTeacher(teacher), **options).train()
        optimizer = ours.training_of(tiny, every=1).build_optimizer(method.optimizers()["student"])
        for _ in range(2):
            optimizer.zero_grad()
            losses = method.losses(Batch(inputs=batch.inputs, targets=batch.targets))
            sum(method.weights[name] * loss for name, loss in losses.items()).backward()
            optimizer.step()

    steps = {"torchdistill": by_torchdistill, "timm": by_timm, "live": by_tutelage}
    expected = None
    for step in [by_hand, *(step for name, step in steps.items() if CONTENDERS[name].missing is None)]:
        teacher, student = tiny.networks(data)
        step(teacher, student)
        weights = torch.cat([parameter.detach().flatten() for parameter in student.parameters()])
        expected = weights if expected is None else expected
        assert torch.allclose(weights, expected, atol=1e-6), step.__name__


@pytest.mark.parametrize("source", ["random", "digits"])
def test_transforms_and_networks_normalise_alike(source, tiny):
    setting = replace(tiny, data=source)
    data = setting.load()
    _, student = setting.networks(data)
    student.eval()
    pictures = plain.pictures(data, student)
    # Without chance, which is the first two.
    pictures.transform = transforms.Compose(pictures.transform.transforms[2:])
    images = torch.stack([pictures[index][0] for index in range(8)])
    assert torch.allclose(student.model(images), student(as_inputs(data.train.images[:8])), atol=1e-5)
    assert [pictures[index][1] for index in range(8)] == data.train.targets[:8].tolist()


def test_networks_that_normalise_differently_are_refused(tiny):
    setting = replace(tiny, teacher="tiny_cnn,normalize=imagenet")
    with pytest.raises(UserError, match="tiny_cnn,width=4,normalize=0.485"):
        setting.networks(setting.load())


def test_sizes_of_random_images(tiny):
    data = replace(tiny, data="random,classes=7,size=12").load()
    assert (data.num_classes, data.image_size, data.count("train")) == (7, (12, 12), 40)


def test_a_recording_that_is_there_is_taken(tiny, tmp_path):
    asked = replace(tiny, recording="mine")
    assert with_recording(asked, tmp_path / "other") == asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "stages", "teachers"), [("tf-kd-self", 2, 1), ("end", 1, 2), ("re-kd", 2, 1)])
def test_of_any_method_the_last_stage_is_trained(name, stages, teachers, tiny):
    pace = Few(2)
    with pytest.raises(Over):
        ours.method_by_name(name, tiny, pace)
    assert pace.done == 2
    assert len(pace.facts["stages"]) == stages
    assert pace.facts["stages"][-1] == "distill"
    assert pace.facts["teachers"] == teachers
    needs = pace.facts["needs"]
    assert needs["total"] == sum(size for part, size in needs.items() if part != "total")
    assert "fused optimizer" in pace.facts["notes"][0]


def test_turns_time_the_steps_after_the_lead(monkeypatch):
    clock, told = [100.0], []
    monkeypatch.setattr("contenders.pace.time.perf_counter", lambda: clock[0])
    waits = iter([None, None])

    def wait():
        clock[0] += 1000  # While others train.
        if next(waits, "none left") is not None:
            raise Over

    turns = Turns(0.1, 1000, tell=told.append, wait=wait, lead=2, steps=6)
    assert turns.every == 2
    with pytest.raises(Over):
        while True:
            # What is slow for a moment in the middle of a turn is another's doing.
            clock[0] += 5 if turns.done < 4 or turns.done == 8 else 0.5
            turns.step(count=2)
    assert turns.done == 4 + 2 * (2 + 6)
    assert told[0]["prepared"] == 10
    assert [what["seconds"] for what in told[1:]] == pytest.approx([0.25, 0.25])
    assert all(what["memory"] > 0 for what in told[1:])
    with pytest.raises(ValueError, match="multiple"):
        Turns(0.1, 10, tell=told.append, wait=wait, lead=4, steps=6)


def test_the_learning_rate_is_that_of_the_driver(tiny):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    pace = Pace(0.05, 40)
    training = ours.training_of(tiny, every=1)
    for step in range(1, 41):
        pace.step(optimizer)
        factor = training.lr_factor(step, steps_per_epoch=10, total_steps=40)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * factor, abs=1e-12)


def test_what_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr("contenders.find_spec", lambda name: None)
    assert "tutelage[bench]" in CONTENDERS["torchdistill"].missing
    assert CONTENDERS["textbook"].missing is None


def test_a_setting_is_read_from_flags(capsys):
    words = ["--data", "random,classes=7", "--subset", "40", "--lr", "1e-3", "--compile", "on", "--recording", "7"]
    expected = Setting(data="random,classes=7", subset=40, lr=1e-3, compile="on", recording="7")
    assert setting_of(parser_of("What it does.").parse_args(words)) == expected
    assert setting_of(parser_of("Less.", without=["fused", "recording"]).parse_args([])) == Setting()
    with pytest.raises(SystemExit):
        parser_of("It refuses.").parse_args(["--compile", "perhaps"])
    assert "compile" in capsys.readouterr().err
    text = parser_of("First.\n\n    python as it stands").format_help()
    assert "\n    python as it stands\n" in text
    assert "Length of the schedule" in text
