"""What is compiled, and that a broken compiler costs one line."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import networks
from tutelage.core.teachers import FrozenTeacher
from tutelage.features.extractor import FeatureExtractor, is_trained
from tutelage.methods.kd import KD
from tutelage.system.console import Silent
from tutelage.training.compilation import compiled, forgiving
from tutelage.training.decisions import decide
from tutelage.training.settings import Training


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def broken():
    import torch._inductor.config as inductor

    torch.compiler.reset()
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",), "fx_graph_cache": False}):
        yield
    # What failed is remembered.
    torch.compiler.reset()


def test_students_are_told_from_teachers():
    method = KD(network(), FrozenTeacher(network()))
    assert networks(method, trained=True) == [method.student]
    assert networks(method, trained=False) == [method.teacher.extractor]
    assert is_trained(method.student)


@pytest.mark.parametrize("trained", [True, False])
def test_a_broken_compiler_costs_one_line_and_no_result(trained, broken, capfd):
    plain, told = FeatureExtractor(network().requires_grad_(trained)).train(trained), []
    inputs = torch.randn(2, 1, 4, 4)
    expected = plain(inputs).logits
    plain.compile()
    # Without gradients it is tried with constants first.
    with forgiving(told.append), torch.set_grad_enabled(trained):
        for _ in range(2):
            logits = plain(inputs).logits
    assert torch.equal(logits, expected)
    assert logits.requires_grad == trained
    assert len(told) == 1
    assert "--compile off" in told[0]
    assert "\n" not in told[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_network_that_breaks_says_so_itself():
    class Broken(nn.Module):
        def forward(self, inputs):
            raise RuntimeError("broken by its author")

    extractor, told = FeatureExtractor(Broken()), []
    extractor.compile(backend="eager")
    with forgiving(told.append), pytest.raises(RuntimeError, match="broken by its author"):
        extractor(torch.zeros(2, 3))


@pytest.mark.filterwarnings("ignore")  # What a compiler warns of is its own affair.
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("breaks", [True, False])
def test_more_than_eight_networks_are_compiled(trained, breaks):
    runs, told = [], []

    def backend(graph, examples):
        def run(*inputs):
            runs.append(len(runs))
            return graph(*inputs)

        return run

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body, self.head = nn.Linear(16, width), nn.Linear(width, 3)

        def forward(self, inputs):
            hidden = self.body(inputs.flatten(1))
            if breaks:
                torch._dynamo.graph_break()
            return self.head(hidden)

    torch.compiler.reset()
    inputs = torch.randn(4, 1, 4, 4)
    with forgiving(told.append):
        for width in range(1, 13):
            layers = [["body"], ["head"], []][width % 3]
            extractor = FeatureExtractor(Net(width).requires_grad_(trained), layers).train(trained)
            expected, before = extractor(inputs).logits, len(runs)
            extractor.compile(backend=backend)
            assert torch.equal(extractor(inputs).logits, expected)
            assert len(runs) == before + (2 if breaks else 1), width
    assert not told


def test_where_a_limit_is_reached_that_is_what_is_told():
    told = []
    with forgiving(told.append):
        logging.getLogger("torch._dynamo.convert_frame").warning(
            "torch._dynamo hit config.recompile_limit (64)\n  more"
        )
    assert len(told) == 1
    assert "No more is compiled (torch._dynamo hit config.recompile_limit (64))" in told[0]


def test_afterwards_loggers_and_limits_are_as_before():
    import torch._dynamo

    names = ("torch.utils.cpp_extension", "torch._inductor.utils")
    logging.getLogger(names[0]).setLevel(logging.INFO)
    before = [logging.getLogger(name).level for name in names], torch._dynamo.config.recompile_limit
    with forgiving(print):
        assert [logging.getLogger(name).level for name in names] == [logging.ERROR] * 2
    assert ([logging.getLogger(name).level for name in names], torch._dynamo.config.recompile_limit) == before
    logging.getLogger(names[0]).setLevel(logging.NOTSET)


class Batches:
    """A loader of which only the sizes are known."""

    def __init__(self, *sizes):
        self.found = sizes

    def sizes(self):
        return self.found


def ready(method, compile, loader):
    training = Training(device="cpu", compile=compile)
    return compiled(method, decide(training, method, torch.zeros(1, 1, 4, 4), samples=1), loader, Silent())


def test_what_was_compiled_for_another_training_is_undone():
    teacher = FrozenTeacher(network())
    first, second = KD(network(), teacher), KD(network(), teacher)
    with ready(first, "on", Batches(4)):
        assert all(one._compiled.whole == (4,) for one in (first.student, teacher.extractor))
    with ready(second, "off", Batches(4)):
        assert teacher.extractor._compiled is None
        assert second.student._compiled is None


def test_a_teacher_that_serves_two_trainings_is_compiled_once():
    teacher = FrozenTeacher(network())
    kept = []
    for size in (4, 4, 6):
        method = KD(network(), teacher)
        with ready(method, "on", Batches(size)):
            kept.append(teacher.extractor._compiled)
    assert kept[0] is kept[1]
    assert kept[1] is not kept[2]


def test_one_of_both_may_be_compiled():
    method = KD(network(), FrozenTeacher(network()))
    decision = decide(Training(device="cpu"), method, torch.zeros(1, 1, 4, 4), samples=1)
    with compiled(method, replace(decision, compile=True), Batches(), Silent()):
        assert method.student._compiled.whole == ()
        assert method.teacher.extractor._compiled is None
