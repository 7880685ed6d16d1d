"""What is compiled, and that a broken compiler costs one line."""

import pytest
import torch
from torch import nn

from tutelage.compilation import forgiving, is_trained, networks
from tutelage.features import FeatureExtractor
from tutelage.methods.kd import KD
from tutelage.teachers import FrozenTeacher


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


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
    with forgiving(told.append):
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
