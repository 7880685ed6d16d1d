"""The driver under other precisions and memory formats, and what it leaves on disk."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.sources import load_data
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.models.loading import load_network
from tutelage.system.console import Silent
from tutelage.training import checkpoint
from tutelage.training.decisions import decide
from tutelage.training.driver import Driver
from tutelage.training.run import Run
from tutelage.training.settings import Training

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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("channels_last", ["on", "off"])
def test_precision_and_memory_format_can_be_set(precision, channels_last, data):
    seen = []

    class Watching(Supervised):
        def losses(self, batch):
            seen.append((self.student(batch.inputs).logits.dtype, batch.inputs))
            return super().losses(batch)

    Driver(replace(TRAINING, epochs=1, precision=precision, channels_last=channels_last)).fit(
        Watching(network(1)), data
    )
    assert seen[0][0] == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


def test_fast_switches_cost_no_accuracy():
    digits = load_data("digits")
    found = []
    for precision, channels_last in (("32-true", "off"), ("bf16-mixed", "on")):
        training = Training(epochs=6, batch_size=64, precision=precision, channels_last=channels_last)
        state = Driver(training).fit(Supervised(network(1, width=8)), digits)
        found.append(state.history["validation_accuracy"][-1])
    assert min(found) > 0.8
    # One standard error of 120 samples at 88 % is 3 points.
    assert abs(found[0] - found[1]) < 0.06


class CutOff(Silent):
    """Ends a training after some batch."""

    def __init__(self, step):
        self.left = step

    def advance(self, steps):
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


def test_the_scale_of_losses_in_fp16_is_resumed(data, tmp_path, monkeypatch):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    scalers = []

    def in_fp16(training, decision):
        # Fabric gives a processor none of its own; this one grows so fast that every step has another scale.
        scalers.append(torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1))
        return Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scalers[-1]))

    monkeypatch.setattr("tutelage.training.driver._fabric", in_fp16)
    training, file = replace(TRAINING, fused="off", checkpoint_seconds=0.0), tmp_path / "checkpoint.pt"
    straight, stopped, resumed = (Supervised(network(1)) for _ in range(3))
    Driver(training).fit(straight, data)
    with pytest.raises(KeyboardInterrupt):
        Driver(training, reporter=CutOff(8)).fit(stopped, data, checkpoint_file=file)
    Driver(training).fit(resumed, data, checkpoint_file=file)
    whole, _, later = (scaler.get_scale() for scaler in scalers)
    assert whole == later == 2.0 ** (1 + STEPS)
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text, *, once=False):
        self.notes.append(text)


@pytest.fixture
def no_compiler():
    import torch._inductor.config as inductor

    torch.compiler.reset()
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",), "fx_graph_cache": False}):
        yield
    # What failed is remembered.
    torch.compiler.reset()


def test_where_there_is_no_compiler_training_goes_on_with_a_line_and_the_same_weights(data, no_compiler):
    found, notes = [], Notes()
    for compiled in ("off", "on"):
        method = KD(network(1), teacher())
        Driver(replace(TRAINING, epochs=1, compile=compiled), reporter=notes).fit(method, data)
        found.append(method.student.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))
    # What is decided is said once a training, and then what did not come of it.
    assert ["compilation off" in notes.notes[0], "compilation on" in notes.notes[1]] == [True, True]
    assert len(notes.notes) == 3
    assert "Not compiled after all" in notes.notes[2]


def test_every_decision_is_told_once(data):
    notes = Notes()
    Driver(replace(TRAINING, epochs=1), reporter=notes).fit(KD(network(1), teacher()), data)
    (text,) = notes.notes
    for part in ("32-true (asked for)", "hannels-last", "not compiled", "fused optimizer", "1 thread", "in memory"):
        assert part in text


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_the_optimizer_can_be_fused_or_not(fused):
    spec = Supervised(network(1)).optimizers()["student"]
    for name in ("sgd", "adamw"):
        optimizer = replace(TRAINING, fused=fused, optimizer=name).build_optimizer(spec)
        assert bool(optimizer.param_groups[0]["fused"]) == (fused == "auto")


def test_the_optimizer_gets_what_was_decided(data, monkeypatch):
    seen = []

    class Watching(torch.optim.Adam):
        def step(self, closure=None):
            seen.append(bool(self.param_groups[0]["fused"]))
            return super().step(closure)

    class Own(Supervised):
        def optimizers(self):
            (spec,) = super().optimizers().values()
            return {"student": replace(spec, build=lambda params: Watching(params, lr=0.1, fused=True))}

    def decided(*args, **others):
        return replace(decide(*args, **others), fused=False)

    Driver(replace(TRAINING, epochs=1)).fit(Own(network(1)), data)
    monkeypatch.setattr("tutelage.training.driver.decide", decided)
    Driver(replace(TRAINING, epochs=1)).fit(Own(network(1)), data)
    assert seen == [True] * 5 + [False] * 5


def test_a_teacher_of_several_trainings_is_compiled_once_and_not_where_that_is_turned_off(data, monkeypatch):
    made, asked = [], teacher()

    def compile(function, **others):
        made.append(others)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    for switch, count in (("on", 2), ("on", 3), ("off", 3), ("on", 5)):
        method = KD(network(1), asked)
        Driver(replace(TRAINING, epochs=1, compile=switch)).fit(method, data)
        assert len(made) == count
        assert [one._compiled is not None for one in (method.student, asked.extractor)] == [switch == "on"] * 2
        if switch == "on":
            assert asked.extractor._compiled.whole == (32,)
            assert asked.extractor._compiled.freezes


class Cut(BaseException):
    pass


class Cutting(Notes):
    def advance(self, steps):
        raise Cut


def test_a_run_goes_on_in_its_precision_and_says_so_where_another_would_be_chosen(data, tmp_path, monkeypatch):
    file, training = tmp_path / "checkpoint.pt", replace(TRAINING, precision="auto", epochs=1, checkpoint_seconds=0.0)
    seen, notes = [], Notes()

    class Watching(Supervised):
        def losses(self, batch):
            seen.append(self.student(batch.inputs).logits.dtype)
            return super().losses(batch)

    monkeypatch.setattr("tutelage.training.decisions.SMALL_FLOPS", 0.0)
    monkeypatch.setattr("tutelage.training.decisions.has_native_bf16", lambda device: True)
    monkeypatch.setattr("tutelage.training.decisions.unsound_convolutions", lambda method: [])
    with pytest.raises(Cut):
        Driver(replace(training, log_every=3), reporter=Cutting()).fit(Watching(network(1)), data, checkpoint_file=file)
    content = checkpoint.load(file)
    assert content.pop("precision") == "bf16-mixed"
    monkeypatch.setattr("tutelage.training.decisions.has_native_bf16", lambda device: False)
    Driver(training, reporter=notes).fit(Watching(network(1)), data, checkpoint_file=file)
    assert seen == [torch.bfloat16] * len(seen)
    assert "Going on from epoch 1, batch 2. Bf16-mixed (as it was begun) rather than 32-true" in notes.notes[0]
    # One that was written before precisions were kept goes on in what is chosen here.
    checkpoint.save(file, content)
    seen.clear()
    Driver(training, reporter=notes).fit(Watching(network(1)), data, checkpoint_file=file)
    assert seen[:3] == [torch.float32] * 3
    assert str(notes.notes[1]).endswith("batch 2.")


def test_saved_student_is_bare_and_no_larger_than_its_weights(data, tmp_path):
    torch.manual_seed(1)
    student = load_network("resnet8", num_classes=10, in_channels=1)
    Run(tmp_path, replace(TRAINING, epochs=1)).fit("distill", KD(student, teacher()), data)
    file = tmp_path / "distill" / "student.safetensors"
    bare = load_network("resnet8", num_classes=10, in_channels=1).model
    bare.load_state_dict(load_file(file), strict=True)
    size = sum(tensor.numel() * tensor.element_size() for tensor in bare.state_dict().values())
    assert file.stat().st_size < 1.05 * size
