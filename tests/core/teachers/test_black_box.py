"""A teacher behind a query: what it is asked, what it is, and what it costs to look at a run before it starts."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher, NoisyTeacher
from tutelage.data.batch import Batch
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.doctor.page import examine
from tutelage.methods.kd import KD
from tutelage.system.console import Silent
from tutelage.testing.toys import CLASSES, ToyNetwork
from tutelage.training.run import Run
from tutelage.training.settings import Training

SAMPLES, EPOCHS = 64, 2
QUICK = {"epochs": EPOCHS, "batch_size": 16, "precision": "32-true", "progress": False, "device": "cpu"}
TRAINING = Training(epochs=EPOCHS, batch_size=16, precision="32-true", device="cpu")


class Query:
    """Answers by a network, which it hides, and counts the images that it is asked about."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self._network, self.asked = ToyNetwork(8).eval(), 0

    def __call__(self, inputs):
        self.asked += len(inputs)
        return self._network(inputs)


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(SAMPLES, 3, 12, 16, generator=generator), torch.arange(SAMPLES) % CLASSES)


def distill(teacher, pairs, **options):
    torch.manual_seed(1)
    return tutelage.distill(
        "kd", student=ToyNetwork(4), teacher=teacher, data=pairs, validation=pairs, **QUICK, **options
    )


def weights(network):
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_black_box_counts_what_it_is_asked():
    box = BlackBoxTeacher(lambda inputs: inputs * 2)
    assert box.queries == 0
    inputs = torch.randn(5, 4)
    assert torch.equal(box(Batch(inputs=inputs)).logits, inputs * 2)
    assert box(Batch(inputs=torch.randn(3, 4))).features == {}
    assert box.queries == 8


@pytest.mark.parametrize("said", [torch.zeros(5), torch.zeros(4, 3), [1.0], None])
def test_an_answer_that_is_none_is_refused_with_its_form(said):
    with pytest.raises(UserError, match=r"asked about 5 samples .* must return logits\s+\[5, class\]"):
        BlackBoxTeacher(lambda inputs: said)(Batch(inputs=torch.randn(5, 4)))


def test_it_teaches_and_is_asked_about_each_sample_once_an_epoch(pairs):
    query = Query()
    box = BlackBoxTeacher(query)
    network = distill(box, pairs)
    assert query.asked == box.queries == EPOCHS * SAMPLES
    assert weights(network).isfinite().all()


@pytest.mark.parametrize("identity", [None, "v1"])
def test_two_boxes_are_two_teachers(identity, pairs, tmp_path):
    one, other = Query(0), Query(1)
    first = distill(BlackBoxTeacher(one, identity=identity), pairs, out=tmp_path)
    second = distill(BlackBoxTeacher(other, identity=identity and "v2"), pairs, out=tmp_path)
    assert (one.asked, other.asked) == (EPOCHS * SAMPLES, EPOCHS * SAMPLES)
    assert not torch.equal(weights(first), weights(second))


def test_a_box_of_the_same_identity_is_not_asked_again(pairs, tmp_path):
    first = distill(BlackBoxTeacher(Query(), identity="v1"), pairs, out=tmp_path)
    again = Query()
    second = distill(BlackBoxTeacher(again, identity="v1"), pairs, out=tmp_path)
    assert again.asked == 0
    assert torch.equal(weights(first), weights(second))


def test_the_same_box_is_itself_again(pairs, tmp_path):
    query = Query()
    box = BlackBoxTeacher(query)
    for _ in range(2):
        distill(box, pairs, out=tmp_path)
    assert query.asked == EPOCHS * SAMPLES


def test_a_run_holds_the_work_of_one_box(pairs, tmp_path):
    data = resolve_data(pairs, validation=pairs)

    def fit(box):
        torch.manual_seed(1)
        return Run(tmp_path, TRAINING).fit("distill", KD(ToyNetwork(4), box), data)

    fit(BlackBoxTeacher(Query(), identity="v1"))
    assert json.loads((tmp_path / "distill/fingerprint.json").read_text())["teachers"] == {"teacher": "black box v1"}
    fit(BlackBoxTeacher(Query(), identity="v1"))
    with pytest.raises(UserError, match="teachers.teacher: black box v1 then, black box v2 now"):
        fit(BlackBoxTeacher(Query(), identity="v2"))
    with pytest.raises(UserError, match="holds the results of other work"):
        fit(BlackBoxTeacher(Query()))


def test_a_module_behind_the_query_is_known_by_its_weights():
    boxes = [BlackBoxTeacher(nn.Linear(4, 3)) for _ in range(2)]
    assert boxes[0].known_by() is None
    assert boxes[0].identity() != boxes[1].identity()
    assert BlackBoxTeacher(boxes[0].query).identity() == boxes[0].identity()
    with pytest.raises(UserError, match="identity of a black box is empty"):
        BlackBoxTeacher(Query(), identity=" ")


class Told(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text, *, once=False):
        self.notes.append(text)


def comparison(teacher, pairs, folder, rows=("kd", "supervised")):
    return Comparison(
        choices=[parse_choice(row) for row in rows],
        experiment=experiment_of(ToyNetwork(4), teacher, resolve_data(pairs, validation=pairs)),
        training=TRAINING,
        teacher_training=TRAINING,
        seeds=[0],
        folder=folder,
        baseline=rows[0],
    )


def test_that_nobody_knows_it_again_is_told(pairs, tmp_path):
    for identity, told in ((None, True), ("v1", False)):
        reporter = Told()
        teacher = NoisyTeacher(BlackBoxTeacher(Query(), identity=identity), std=0.1)
        comparison(teacher, pairs, tmp_path).run(reporter)
        assert any("no later call will reuse its results" in note for note in reporter.notes) == told


def test_several_processes_need_an_identity(pairs, monkeypatch):
    data = resolve_data(pairs, validation=pairs)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert BlackBoxTeacher(Query(), identity="v1").settle(data) == (data, ())
    with pytest.raises(UserError, match="give it an identity"):
        BlackBoxTeacher(Query()).settle(data)


@pytest.mark.parametrize("wrap", [lambda box: box, lambda box: NoisyTeacher(box, std=0.1)])
def test_checking_a_comparison_asks_nothing(wrap, pairs, tmp_path):
    query = Query()
    rows = ("kd", "kd:temperature=2", "ferkd", "fkd", "unix", "mlld", "end")
    comparison(wrap(BlackBoxTeacher(query)), pairs, tmp_path, rows).check()
    assert query.asked == 0


def test_a_method_that_reads_layers_is_refused_before_anything_is_asked(pairs, tmp_path):
    query = Query()
    with pytest.raises(
        UserError, match="at: This method reads layers of the teacher, and a BlackBoxTeacher gives only"
    ):
        comparison(BlackBoxTeacher(query), pairs, tmp_path, ("kd", "at")).run()
    assert query.asked == 0


def page(teacher, pairs):
    console = Console(file=io.StringIO(), width=200, highlight=False)
    experiment = experiment_of(ToyNetwork(4), teacher, resolve_data(pairs, validation=pairs))
    console.print(examine(parse_choice("kd"), experiment, TRAINING))
    return " ".join(console.file.getvalue().split())


def test_the_doctor_asks_nothing(pairs):
    query = Query()
    text = page(EnsembleTeacher([BlackBoxTeacher(query), FrozenTeacher(ToyNetwork(8))]), pairs)
    assert "its answers have a price, so it was not asked" in text
    assert "kd" in text
    assert query.asked == 0


def test_stored_answers_are_those_of_one_model_and_are_not_asked_for_again(tmp_path):
    query, store = Query(), tmp_path / "answers.sqlite"
    images = torch.rand(5, 3, 12, 16)
    box = BlackBoxTeacher(query, identity="v1", store=store)
    logits = box(Batch(inputs=images)).logits
    assert torch.equal(BlackBoxTeacher(query, identity="v1", store=store)(Batch(inputs=images)).logits, logits)
    assert query.asked == box.spent == 5
    BlackBoxTeacher(query, identity="v2", store=store)(Batch(inputs=images[:2]))
    assert query.asked == 7
    with pytest.raises(UserError, match="Stored answers belong to one model"):
        BlackBoxTeacher(query, store=store)
    store.write_bytes(b"no database, but something else")
    with pytest.raises(UserError, match="cannot be used: .*move a damaged file away"):
        BlackBoxTeacher(query, identity="v1", store=store)(Batch(inputs=images))


def test_a_budget_without_a_store_counts_what_the_box_was_asked(pairs):
    query = Query()
    with pytest.raises(UserError, match="budget of 20 queries does not suffice: 16 are spent, and 16 more"):
        distill(BlackBoxTeacher(query), pairs, queries=20)
    assert query.asked == 16


def test_other_classes_are_told_when_it_first_answers(pairs):
    box = BlackBoxTeacher(lambda inputs: torch.zeros(len(inputs), 3))
    with pytest.raises(UserError, match=f"has {CLASSES} classes.*--teacher-classes FILE.*only its layers"):
        distill(box, pairs)
    assert box.queries == 16
