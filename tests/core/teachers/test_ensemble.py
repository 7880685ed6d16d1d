"""Several teachers as one."""

import math

import pytest
import torch

from tutelage.core.pairing import pair
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Teacher, Together
from tutelage.data.batch import Batch, Output
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.features import Features
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import ToyNetwork, toy_batch, toy_data


class Says(Teacher):
    """Says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits, features={"a": self.logits})


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


def test_ensemble_is_the_log_of_the_mean_probability():
    logits = torch.randn(3, 5, 4, dtype=torch.float64) * 3
    output = EnsembleTeacher([Says(member) for member in logits])(batch_of(5))
    for b in range(5):
        rows = [[math.exp(z) for z in logits[m, b].tolist()] for m in range(3)]
        mean = [sum(row[k] / sum(row) for row in rows) / 3 for k in range(4)]
        assert output.logits[b].exp().tolist() == pytest.approx(mean, rel=1e-12)
    assert torch.equal(output.members, logits)


def test_ensemble_of_one_is_its_log_probability():
    logits = torch.randn(5, 4)
    found = EnsembleTeacher([Says(logits)])(batch_of(5)).logits
    assert torch.allclose(found, logits.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ensemble_of_confident_teachers_stays_finite(dtype):
    first, second = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype), torch.tensor([[0.0, 1e4, -1e4]], dtype=dtype)
    output = EnsembleTeacher([Says(first), Says(second)])(batch_of(1))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()
    assert output.logits[0, :2].tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-5)
    assert output.logits[0, 2] < -1e4


def test_an_ensemble_needs_members_that_agree_on_the_classes():
    with pytest.raises(UserError, match="at least one teacher"):
        EnsembleTeacher([])
    with pytest.raises(UserError, match=r"agree on the classes.*\(5, 3\), \(5, 4\)"):
        EnsembleTeacher([Says(torch.zeros(5, 3)), Says(torch.zeros(5, 4))])(batch_of(5))


def networks(*widths):
    torch.manual_seed(0)
    return [ToyNetwork(width) for width in widths]


def both(*widths, **options):
    return EnsembleTeacher([FrozenTeacher(network) for network in networks(*widths)], **options)


@pytest.mark.parametrize("together", [Together("weighted", (2.0, 1.0)), Together("surest"), Together("label")])
def test_other_ways_to_answer_together(together):
    teacher, batch = both(10, 8, together=together), toy_batch()
    output = teacher(batch)
    assert output.members.shape == (2, 12, 6)
    expected = together.combined(output.members, batch.criterion, batch.targets)
    assert torch.equal(output.logits, expected)
    network = teacher.as_network()
    if together.how == "label":
        # Nobody knows the label of an image that is to be classified.
        assert network is None
    else:
        torch.testing.assert_close(network(batch.inputs), expected)


def test_teachers_that_answer_otherwise_are_other_teachers():
    ways = [None, Together("weighted"), Together("weighted", (2.0, 1.0)), Together("surest"), Together("label")]
    names = [both(10, 8, together=way).identity() for way in ways]
    assert len(set(names)) == len(ways)
    assert both(10, 8).known_by() is None


def test_layers_of_each_network_are_read_by_its_number():
    teacher, batch = both(10, 8), toy_batch()
    one, other = (teacher.teachers[number].network for number in (0, 1))
    reader = teacher.reading(["2.layer1", "1.layer2"], example=teacher.look(batch.inputs), logits=False)
    assert set(reader.reads()) == set(reader.shapes) == {"1.layer2", "2.layer1"}
    features = reader(batch).features
    assert torch.equal(features["2.layer1"], other.layer1(batch.inputs))
    assert torch.equal(features["1.layer2"], one.layer2(one.layer1(batch.inputs)))
    assert features["2.layer1"].shape == reader.shapes["2.layer1"]
    with pytest.raises(UserError, match="only layers are read"):
        reader(batch).logits.sum()
    only = teacher.reading(["2.layer1"], example=batch.inputs)
    assert only(batch).members.shape == (2, 12, 6)
    # Both read in the same networks.
    only.release()
    reader.release()
    assert not any(module._forward_hooks for module in teacher.modules())
    taps = teacher.taps(["2.layer2", "1.layer1"], batch.inputs)
    assert {name: tap.channels for name, tap in taps.items()} == {"2.layer2": 16, "1.layer1": 10}


@pytest.mark.parametrize("layer", ["layer1", "3.layer1", "0.layer1", "x.layer1"])
def test_layers_without_the_number_of_a_network_are_refused(layer):
    with pytest.raises(NoLayersError, match="named by its network's number"):
        both(10, 8).reading([layer])
    with pytest.raises(NoLayersError, match="there are several"):
        both(10, 8).inner_network()


def test_methods_that_compare_layers_learn_from_each_network_with_an_adapter_for_each():
    teacher, batch = both(10, 8), toy_batch()
    found = pair(ToyNetwork(), teacher, "auto", batch.inputs, take="last", logits=False)
    shown = ["layer2 (12x3x4) : 1.layer2 (20x3x4)", "layer2 (12x3x4) : 2.layer2 (16x3x4)"]
    assert [str(one) for one in found.pairs] == shown
    method = Features(ToyNetwork(), both(10, 8), batch.inputs)
    assert len(method.adapters) == 2
    losses = method.train().losses(batch)
    parts = []
    for number, network in enumerate(networks(10, 8)):
        alone = Features(method.student.release(), FrozenTeacher(network), batch.inputs)
        alone.adapters[0].load_state_dict(method.adapters[number].state_dict())
        parts.append(alone.train().losses(batch))
    for name in ("pooled", "places"):
        torch.testing.assert_close(losses[name], parts[0][name] + parts[1][name])


def test_what_members_are_chosen_by_must_be_in_the_data():
    both(10, 8, together=Together("surest")).check_answers(toy_data())
    with pytest.raises(UserError, match="teachers=label chooses by"):
        both(10, 8, together=Together("label")).check_answers(KINDS["unlabelled"].data())
