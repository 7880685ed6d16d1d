import copy
from dataclasses import replace
from types import MethodType

import pytest
import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.experiments import catalogue
from tutelage.features.compiled import Compiled, _apart, batch_size, can_freeze
from tutelage.features.extractor import FeatureExtractor
from tutelage.testing.toys import TRAINING, toy_data
from tutelage.testing.trials import fresh_methods
from tutelage.training.driver import Driver

IMAGES = (4, 3, 8, 8)


class Small(nn.Module):
    """A convolution, a batch norm, a ReLU in place, a classifier: all that there is to fold."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 5)
        # Neither parameter nor buffer.
        self.scale = torch.ones(1)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, inputs):
        return self.head(self.relu(self.norm(self.conv(inputs))).mean((2, 3))) * self.scale.to(inputs.dtype)


def still(network):
    return network.eval().requires_grad_(False)


class Counting:
    """Stands in for a compiler: counts what was asked of it, and runs things as they are."""

    def __init__(self, monkeypatch):
        self.compiled, self.freezing = 0, []
        monkeypatch.setattr(torch, "compile", self.compile)

    def compile(self, function, *, fullgraph=False):
        import torch._inductor.config as inductor

        def run(inputs):
            # Several graphs would share code with other networks.
            assert fullgraph or not inductor.freezing
            self.compiled += 1
            self.freezing.append(inductor.freezing)
            assert not inductor.freezing_discard_parameters
            return function(inputs)

        return run


# What may be constant.


def test_only_what_nobody_trains_is_constant():
    assert can_freeze(still(Small()))
    assert not can_freeze(Small().eval())
    assert not can_freeze(Small().requires_grad_(False).train())
    assert not can_freeze(still(nn.Sequential(nn.Linear(2, 2))))
    assert not can_freeze(still(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))))
    assert not can_freeze(still(Small()).to("meta"))


def test_a_teacher_answers_from_constants_and_its_tensors_stay(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    teacher = FrozenTeacher(Small(), ["norm"], example=images)
    before = copy.deepcopy(teacher.state_dict())
    expected = teacher(Batch(inputs=images))
    teacher.extractor.compile()
    found = teacher(Batch(inputs=images))
    assert compiler.freezing == [True]
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_student_is_compiled_with_nothing_constant(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    student = FeatureExtractor(Small())
    student.compile()
    student(images)
    assert compiler.freezing == [False]


# Which calls the compiled code answers.


def test_with_gradients_or_in_another_mode_the_network_answers_as_it_is(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    extractor = FeatureExtractor(still(Small()))
    extractor.eval().compile()
    asked = images.clone().requires_grad_()
    extractor(asked).logits.sum().backward()
    assert asked.grad is not None
    assert compiler.compiled == 0
    with torch.no_grad():
        extractor(images)
        assert compiler.compiled == 1
        extractor.train()
        extractor(images)
    assert compiler.compiled == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.head.bias.add_(1),
        lambda network: network.load_state_dict(Small().state_dict()),
        lambda network: network.norm.running_mean.zero_(),
        lambda network: setattr(network.head, "bias", nn.Parameter(torch.ones(5), requires_grad=False)),
        lambda network: network.double().float(),
        lambda network: network.scale.mul_(2),
        lambda network: setattr(network, "scale", torch.full((1,), 3.0)),
    ],
)
def test_weights_that_change_are_constants_no_longer(monkeypatch, change):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    with torch.no_grad():
        extractor(images)
        extractor(images)
        assert compiler.freezing == [True, True]
        change(extractor.model)
        assert torch.equal(extractor(images).logits, extractor.model(images))
        assert compiler.freezing == [True, True, False]
        extractor.compile()
        extractor(images)
    assert compiler.freezing == [True, True, False, True]


def test_memory_that_a_constant_had_is_given_to_no_other_tensor(monkeypatch):
    Counting(monkeypatch)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    before = extractor.model.conv.weight.data_ptr()
    with torch.no_grad():
        extractor(torch.randn(IMAGES))
    for _ in range(20):
        extractor.model.conv.weight = nn.Parameter(torch.zeros(8, 3, 3, 3), requires_grad=False)
        assert extractor.model.conv.weight.data_ptr() != before


def test_a_write_that_leaves_no_trace_is_seen_when_it_is_compiled_again(monkeypatch):
    Counting(monkeypatch)
    extractor, images = FeatureExtractor(still(Small())).eval(), torch.randn(IMAGES)
    extractor.compile()
    with torch.no_grad():
        extractor(images)
    kept = extractor._compiled
    extractor.compile()
    assert extractor._compiled is kept
    extractor.model.head.bias.data.add_(1)
    extractor.compile()
    assert extractor._compiled is not kept


def test_what_is_compiled_is_kept_while_it_serves(monkeypatch):
    compiler, extractor = Counting(monkeypatch), FeatureExtractor(still(Small())).eval()
    extractor.compile(whole=(4,))
    kept = extractor._compiled
    # Moved before the first answer: nothing is constant yet.
    extractor.to(memory_format=torch.channels_last)
    extractor.compile(whole=(4,))
    assert extractor._compiled is kept
    with torch.no_grad():
        extractor(torch.randn(IMAGES))
    assert compiler.freezing == [True]
    for change in (
        lambda: extractor.compile(whole=(2,)),
        lambda: extractor.double().compile(whole=(2,)),
        lambda: extractor.train().compile(whole=(2,)),
        lambda: extractor.eval().compile(whole=(2,)),
        lambda: extractor.requires_grad_(True).compile(whole=(2,)),
        lambda: extractor.compile(whole=(2,)),
    ):
        with torch.no_grad():
            extractor(torch.randn(2, 3, 8, 8, dtype=extractor.model.conv.weight.dtype))
        change()
        assert extractor._compiled is not kept
        kept = extractor._compiled
    extractor.uncompile()
    extractor(torch.randn(IMAGES, dtype=torch.float64))
    assert extractor._compiled is None


def test_a_network_that_keeps_what_it_saw_is_compiled_without_constants(monkeypatch):
    class Remembering(Small):
        def forward(self, inputs):
            self.seen = super().forward(inputs)
            return self.seen

    compiler, extractor = Counting(monkeypatch), FeatureExtractor(still(Remembering())).eval()
    extractor.compile()
    with torch.no_grad():
        for _ in range(3):
            extractor(torch.randn(IMAGES))
    assert compiler.freezing == [True, False, False]


def test_what_cannot_be_compiled_with_constants_is_compiled_without(monkeypatch):
    made, extractor, images = [], FeatureExtractor(still(Small())).eval(), torch.randn(IMAGES)

    def compile(function, *, fullgraph=False):
        def run(inputs):
            if fullgraph:
                raise RuntimeError("several graphs")
            return function(inputs)

        made.append(fullgraph)
        return run

    monkeypatch.setattr(torch, "compile", compile)
    extractor.compile()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(extractor(images).logits, extractor.model(images))
    assert made == [True, False]


def test_it_may_be_moved_between_compiling_and_the_first_answer(monkeypatch):
    compiler = Counting(monkeypatch)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    extractor.to(memory_format=torch.channels_last).to(torch.float64)
    with torch.no_grad():
        extractor(torch.randn(IMAGES, dtype=torch.float64))
    assert compiler.compiled == 1


@pytest.mark.parametrize("trained", [True, False])
def test_the_last_batch_of_an_epoch_is_not_compiled_for(monkeypatch, trained):
    compiler, student = Counting(monkeypatch), FeatureExtractor(Small() if trained else still(Small()))
    student.train(trained).compile()
    with torch.no_grad():
        for _ in range(3):
            for size in (4, 4, 4, 4, 4, 3):
                student(torch.randn(size, 3, 8, 8))
    assert compiler.compiled == 15


def test_sizes_that_take_turns_are_compiled(monkeypatch):
    compiler, student = Counting(monkeypatch), FeatureExtractor(Small())
    student.compile()
    for _ in range(4):
        for size in (4, 2):
            student(torch.randn(size, 3, 8, 8))
    assert compiler.compiled == 8


@pytest.mark.parametrize("trained", [True, False])
def test_where_sizes_are_known_only_whole_batches_are_compiled_for_whichever_comes_first(monkeypatch, trained):
    compiler, network = Counting(monkeypatch), FeatureExtractor(Small() if trained else still(Small()))
    network.train(trained).compile(whole=(8, 4))
    counts = []
    with torch.no_grad():
        # Of pairs, or of two views at once, there are twice as many, or half.
        for size in (3, 8, 4, 16, 3, 2, 12, 3, 3, 3):
            network(torch.randn(size, 3, 8, 8))
            counts.append(compiler.compiled)
    assert counts == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]


def test_the_size_of_a_batch():
    assert batch_size(torch.zeros(3, 2)) == 3
    assert batch_size({"mask": None, "ids": torch.zeros(4, 2)}) == 4
    assert batch_size(["text"]) == 0


# The compiler itself.


def test_each_has_code_of_its_own():
    class Thing:
        def run(self, inputs):
            return self, inputs

    thing = Thing()
    one, other = _apart(thing.run), _apart(thing.run)
    assert isinstance(one, MethodType)
    assert one(3) == (thing, 3)
    assert one.__func__.__code__ is not other.__func__.__code__


def test_a_copy_is_not_compiled(monkeypatch):
    compiler = Counting(monkeypatch)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    with torch.no_grad():
        copy.deepcopy(extractor)(torch.randn(IMAGES))
    assert compiler.compiled == 0
    assert isinstance(extractor._compiled, Compiled)


@pytest.fixture
def graphs():
    """What the compiler was left with: the names of the operations in each graph."""
    import torch._inductor.config as inductor

    found = []

    def note(graph):
        found.append({str(node.target) for node in graph.nodes if node.op == "call_function"})

    torch.compiler.reset()
    with inductor.patch(fx_graph_cache=False, post_grad_custom_post_pass=note):
        yield found


def divides(names):
    """Return whether batch norm is still computed."""
    return any("batch_norm" in name or "sqrt" in name for name in names)


@pytest.mark.filterwarnings("ignore")  # What a compiler warns of is its own affair.
def test_batch_norm_is_folded_where_nothing_is_trained(graphs):
    images, extractor = torch.randn(IMAGES), FeatureExtractor(still(Small())).eval()
    extractor.compile()
    with torch.no_grad():
        expected, found = extractor.model(images), extractor(images).logits
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert len(graphs) == 1
        assert not divides(graphs[0])
        # Weights that change in place are answered from, with nothing folded.
        extractor.model.load_state_dict(Small().state_dict())
        changed, found = extractor.model(images), extractor(images).logits
    assert not torch.allclose(changed, expected, rtol=1e-2, atol=1e-2)
    assert torch.allclose(found, changed, rtol=1e-5, atol=1e-5)
    assert len(graphs) == 2
    assert divides(graphs[1])


@pytest.mark.filterwarnings("ignore")
def test_where_graphs_break_new_weights_are_answered_from(graphs):
    class Breaking(Small):
        def forward(self, inputs):
            maps = self.relu(self.norm(self.conv(inputs)))
            torch._dynamo.graph_break()
            return self.head(maps.mean((2, 3)))

    images, extractor = torch.randn(IMAGES), FeatureExtractor(still(Breaking())).eval()
    extractor.compile()
    for _ in range(2):
        with torch.no_grad():
            assert torch.allclose(extractor(images).logits, extractor.model(images), rtol=1e-5, atol=1e-5)
        extractor.model.load_state_dict(Breaking().state_dict())
        extractor.compile()
    assert len(graphs) > 1
    assert any(divides(names) for names in graphs)


@pytest.mark.filterwarnings("ignore")
def test_compiled_constants_answer_as_the_network_does_each_its_own():
    images = torch.randn(IMAGES)
    for seed in range(2):
        torch.manual_seed(seed)
        teacher = FrozenTeacher(Small(), ["norm", "relu", "conv:in"], example=images)
        before, expected = copy.deepcopy(teacher.state_dict()), teacher(Batch(inputs=images))
        teacher.extractor.compile()
        found = teacher(Batch(inputs=images))
        assert teacher.extractor._compiled.freezes
        agree(found, expected, 1e-5)
        assert (found.features["norm"] < 0).any()
        with torch.autocast("cpu", torch.bfloat16):
            rounded, wanted = teacher(Batch(inputs=images)), teacher(Batch(inputs=images[:3]))
        agree(rounded, wanted, 0.05)
        assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
        student = nn.functional.linear(found.features["relu"].mean((2, 3)), teacher.network.head.weight.clone())
        assert not student.requires_grad


def agree(found, expected, tolerance):
    """Compare logits and features of the samples that were expected."""
    samples = len(expected.logits)
    pairs = [("logits", found.logits, expected.logits)]
    pairs += [(name, found.features[name], feature) for name, feature in expected.features.items()]
    for name, one, other in pairs:
        assert torch.allclose(one[:samples].float(), other.float(), rtol=tolerance, atol=tolerance), name


# One that uses the teacher's classifier beside its compiled network; compiling all of them takes half an hour.
IN_EVERY_RUN = ("srrl",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in catalogue.names()],
)
def test_a_method_loses_the_same_compiled(name):
    import torch._inductor.config as inductor

    entry = catalogue.get(name)
    for stage in fresh_methods(entry):
        histories = []
        for switch in ("off", "on"):
            torch.compiler.reset()
            method, training = fresh_methods(entry)[stage], replace(TRAINING, epochs=1, compile=switch)
            # Otherwise compiled dropout draws other masks of the same seed.
            with inductor.patch(fallback_random=True):
                histories.append(Driver(training).fit(method, toy_data()).history)
            compiled = [one._compiled for one in method.modules() if isinstance(one, FeatureExtractor)]
            assert all((one is not None) == (switch == "on") for one in compiled)
        plain, fast = histories
        assert plain.keys() == fast.keys()
        for key, values in plain.items():
            assert fast[key] == pytest.approx(values, rel=2e-3, abs=1e-4), f"{stage}: {key}"
