"""What the switches on `auto` become."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.images import ResidentImages
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.recording.asking import Alone
from tutelage.testing.toys import toy_transformer
from tutelage.training.decisions import decide, keeping
from tutelage.training.settings import Training

TRAINING = Training(device="cpu")
IMAGES = torch.zeros(1, 3, 16, 16)


def method(width=4):
    return Supervised(
        nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    )


def test_the_decision_depends_on_sizes_alone():
    first = decide(TRAINING, method(), IMAGES, samples=1000)
    assert decide(TRAINING, method(), torch.rand(4, 3, 16, 16), samples=1000) == first


@pytest.mark.parametrize("capable", [True, False])
def test_bf16_where_it_is_native_and_networks_are_not_tiny(capable, monkeypatch):
    monkeypatch.setattr("tutelage.training.decisions.has_native_bf16", lambda device: capable)
    assert decide(TRAINING, method(4), IMAGES, samples=1).precision == "32-true"
    large = decide(TRAINING, method(1024), IMAGES, samples=1)
    assert large.precision == ("bf16-mixed" if capable else "32-true")


def test_a_torch_that_cannot_be_asked_for_bf16_computes_in_float32_and_says_so(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    found = decide(TRAINING, method(1024), IMAGES, samples=1)
    assert found.precision == "32-true"
    assert found.reasons[0] == f"float32 (torch {torch.__version__} cannot say whether bf16 is native here)"


def test_compilation_where_it_pays_back():
    assert not decide(TRAINING, method(), IMAGES, samples=10**4).compile
    assert decide(TRAINING, method(), IMAGES, samples=10**12).compile


def teacher(width):
    return FrozenTeacher(method(width).student.model)


def test_students_and_teachers_are_counted_apart():
    found = decide(TRAINING, KD(method(1).student.model, teacher(2000)), IMAGES, samples=10**7, epochs=30)
    assert (found.compile, found.compile_teachers) == (False, True)
    assert re.search(r"teacher compiled \(pays back after \d+ of 30 epochs\), student not", str(found))
    found = decide(TRAINING, KD(method(2000).student.model, teacher(1)), IMAGES, samples=10**7, epochs=30)
    assert (found.compile, found.compile_teachers) == (True, False)
    assert "student compiled" in str(found)


def test_the_epochs_until_compilation_has_paid_back_are_told():
    def after(samples):
        text = str(decide(TRAINING, method(500), IMAGES, samples=samples, epochs=100))
        return int(re.search(r"compiled \(pays back after (\d+) of 100 epochs\)", text)[1])

    # A run of twice the samples has paid back after half the share of its epochs.
    assert after(2 * 10**8) == pytest.approx(after(10**8) / 2, abs=1)
    both = decide(TRAINING, KD(method(500).student.model, teacher(2000)), IMAGES, samples=10**9, epochs=30)
    assert re.search(r"the student's pays back after \d+ of 30 epochs, the teacher's pays", str(both))


def test_constants_of_compiled_code_are_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5))
    network(IMAGES)
    frozen, plain = FrozenTeacher(network), teacher(2)
    for one, compile, told in ((frozen, "on", True), (frozen, "off", False), (plain, "on", False)):
        text = str(decide(replace(TRAINING, compile=compile), KD(method().student.model, one), IMAGES, samples=1))
        assert ("the teacher's weights are constants of its code" in text) == told


def test_where_the_data_lie_is_told():
    images = ResidentImages(torch.zeros(2048, 1, 16, 16, dtype=torch.uint8), torch.zeros(2048))
    text = str(decide(TRAINING, method(), IMAGES, samples=1, dataset=images))
    assert "2,048 images in memory (0.5 MiB)" in text


def test_a_wish_is_granted(monkeypatch):
    monkeypatch.setattr("tutelage.training.decisions.unsound_convolutions", lambda method: [])
    asked = replace(TRAINING, precision="bf16-mixed", compile="on", channels_last="off", fused="off", threads=3)
    decision = decide(asked, method(), IMAGES, samples=1)
    assert (decision.precision, decision.compile, decision.channels_last) == ("bf16-mixed", True, False)
    assert (decision.compile_teachers, decision.fused, decision.threads) == (True, False, 3)
    assert str(decision).count("asked for") == 4


class Clipping(Supervised):
    def optimizers(self):
        return {name: replace(spec, clip_norm=1.0) for name, spec in super().optimizers().items()}


def on_cuda(training, one, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return decide(replace(training, device="cuda"), one, IMAGES, samples=1)


def test_scaled_gradients_are_clipped_by_an_optimizer_that_is_not_fused(monkeypatch):
    half, clipped = replace(TRAINING, precision="16-mixed"), Clipping(method().student.model)
    for training, one in ((replace(half, clip_norm=1.0), method()), (half, clipped)):
        found = on_cuda(training, one, monkeypatch)
        assert not found.fused
        assert "not fused (gradients are clipped, and scaled for 16-mixed)" in str(found)
        with pytest.raises(UserError, match="--precision bf16-mixed"):
            on_cuda(replace(training, fused="on"), one, monkeypatch)
        assert not on_cuda(replace(training, fused="off"), one, monkeypatch).fused
        # A processor takes it for bf16, in which nothing is scaled.
        assert decide(replace(training, fused="on"), one, IMAGES, samples=1).fused
        assert on_cuda(replace(training, precision="bf16-mixed", fused="on"), one, monkeypatch).fused
    assert on_cuda(replace(half, fused="on"), method(), monkeypatch).fused


def test_of_a_teacher_alone_nothing_is_said_of_students_and_optimizers():
    def told(one, samples=1):
        return decide(TRAINING, Alone(one), IMAGES, samples=samples, epochs=8).reasons[2:]

    assert told(teacher(4))[0] == "not compiled (the run is too short for it to pay back)"
    compiled, *others = told(teacher(4), samples=10**12)
    assert compiled == "compiled (pays back after 1 of 8 epochs)"
    assert not any("optimizer" in reason for reason in others)
    # What answers without a network.
    assert told(UniformTeacher(10), samples=10**12)[0] == "nothing to compile"


def test_fp16_is_bf16_on_a_processor_whoever_asks(monkeypatch):
    half = replace(TRAINING, precision="16-mixed")
    monkeypatch.setattr("tutelage.training.decisions.unsound_convolutions", lambda method: [])
    found = decide(half, method(), IMAGES, samples=1)
    assert found.precision == "bf16-mixed"
    assert found.reasons[0] == "bf16-mixed (asked for: 16-mixed, which is bf16 on a processor)"
    begun = decide(TRAINING, method(), IMAGES, samples=1, begun_in="16-mixed")
    assert (begun.precision, begun.goes_on) == ("bf16-mixed", True)
    assert begun.reasons[0] == "bf16-mixed (as it was begun) rather than 32-true"
    monkeypatch.setattr("tutelage.training.decisions.unsound_convolutions", lambda method: ["layer1"])
    assert "bf16-mixed (asked for, though this machine" in decide(half, method(), IMAGES, samples=1).reasons[0]
    assert on_cuda(half, method(), monkeypatch).precision == "16-mixed"


def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(monkeypatch):
    monkeypatch.setattr("tutelage.training.decisions.has_native_bf16", lambda device: False)
    plain = decide(TRAINING, method(), IMAGES, samples=1)
    assert (plain.precision, plain.goes_on) == ("32-true", False)
    assert decide(TRAINING, method(), IMAGES, samples=1, begun_in="32-true") == plain
    found = decide(TRAINING, method(), IMAGES, samples=1, begun_in="bf16-mixed")
    assert (found.precision, found.goes_on) == ("bf16-mixed", True)
    assert found.reasons[0] == "bf16-mixed (as it was begun) rather than 32-true"
    asked = decide(replace(TRAINING, precision="32-true"), method(), IMAGES, samples=1, begun_in="bf16-mixed")
    assert (asked.precision, asked.goes_on) == ("32-true", False)


def test_a_precision_that_this_machine_has_wrong_is_told_when_a_run_goes_on_in_it(monkeypatch):
    monkeypatch.setattr("tutelage.training.decisions.unsound_convolutions", lambda method: ["layer1"])
    found = decide(TRAINING, method(), IMAGES, samples=1, begun_in="bf16-mixed")
    assert "f16-mixed (as it was begun, though this machine computes the convolution layer1 wrongly" in str(found)


def test_only_images_are_stored_channels_last():
    flat = Supervised(nn.Linear(8, 3))
    assert not decide(TRAINING, flat, torch.zeros(1, 8), samples=1).channels_last
    assert decide(TRAINING, method(), IMAGES, samples=1).channels_last


def test_the_method_is_left_in_its_mode():
    one = method().train()
    decide(TRAINING, one, IMAGES, samples=1)
    assert all(module.training for module in one.modules())


def test_the_cost_of_a_sample_is_that_of_one_however_many_are_shown():
    def after(example):
        return str(decide(TRAINING, method(500), example, samples=10**9, epochs=1000))

    assert after(IMAGES) == after(IMAGES.expand(4, -1, -1, -1))


def test_a_teacher_that_runs_as_far_as_it_is_read_is_told():
    short = FrozenTeacher(method(8).student.model)
    short.extractor = FeatureExtractor(short.network, ["0"], example=IMAGES.expand(2, -1, -1, -1), logits=False)
    assert "a teacher ends behind 0" in str(decide(TRAINING, KD(method().student.model, short), IMAGES, samples=1))


def test_freed_memory_is_kept_on_a_processor_whose_c_library_can(monkeypatch):
    monkeypatch.setattr("tutelage.training.decisions.can_keep_memory", lambda: True)
    assert keeping("auto", "cpu") == (True, ("freed memory kept for the next step",))
    assert keeping("auto", "cuda") == (False, ())
    assert keeping("off", "cpu") == (False, ("keeping memory off (asked for)",))
    monkeypatch.setattr("tutelage.training.decisions.can_keep_memory", lambda: False)
    assert keeping("auto", "cpu") == (False, ())
    with pytest.raises(UserError, match="leave out --keep-memory"):
        keeping("on", "cpu")


def test_networks_whose_attention_is_read_are_not_compiled_and_that_is_told():
    network = toy_transformer(depth=1)
    reader = FrozenTeacher(network, ["blocks.0:attention"], example=torch.zeros(2, 3, 32, 32))
    found = decide(TRAINING, Alone(reader), torch.zeros(1, 3, 32, 32), samples=10**12)
    assert not found.compile_teachers
    assert "attention of teacher is computed once more where it is read, and uncompiled" in found.reasons
    assert decide(TRAINING, Alone(FrozenTeacher(network)), torch.zeros(1, 3, 32, 32), samples=10**12).compile_teachers
