"""Whose labels are wrong, how often, when they change, and that they are the same again."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.core.method import Progress
from tutelage.core.registry import Entry
from tutelage.data.batch import Batch
from tutelage.data.label_noise import training_labels
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.experiments.experiment import Experiment
from tutelage.methods.kd import KD
from tutelage.methods.messy_collaboration import LabelNoise, messy_collaboration
from tutelage.methods.parts.altered import Altered
from tutelage.methods.supervised import Supervised
from tutelage.models.blueprint import blueprint
from tutelage.testing.conformance import driver_equals_a_plain_loop, parts_of_a_batch_add_up, resumes_bit_identical
from tutelage.testing.toys import TRAINING, Recorder, toy_batch, toy_data, toy_experiment
from tutelage.training.checkpoint import student_state
from tutelage.training.driver import Driver
from tutelage.training.run import Run


class Looking(Recorder):
    """A run that notes the data of each stage as well."""

    def __init__(self, seed=0):
        super().__init__()
        self.seed, self.data = seed, {}

    def meet(self, name, method, data, **how):
        super().meet(name, method, data, **how)
        self.data[name] = data


def look(row, *, seed=0, experiment=None):
    run = Looking(seed)
    (experiment or toy_experiment()).execute(parse_choice(f"messy-collaboration:{row}"), run)
    return run


def labels(run, stage="distill"):
    return training_labels(run.data[stage])


CLEAN = training_labels(toy_data())


@pytest.mark.parametrize("redraw", ["once", "epoch", "batch"])
def test_without_noise_it_is_the_method_itself(redraw):
    run = look(f"student_rate=0,teacher_rate=0,redraw={redraw}")
    assert list(run.methods) == ["distill"]
    assert isinstance(run.methods["distill"], KD)
    assert run.data["distill"].fingerprint == toy_data().fingerprint
    assert torch.equal(labels(run), CLEAN)


def test_the_known_answer_without_noise(double, echo, parrot):
    inner = KD(echo, parrot(torch.tensor([[2.0, 0.0, -1.0]])), alpha=0.9, temperature=4.0)
    method = Altered(inner, LabelNoise(0.0, 3, flips="any", seed=0))
    batch = Batch(inputs=torch.tensor([[1.0, 0.5, 0.0]]), targets=torch.tensor([0]))
    (update,) = method.step(batch, Progress())
    assert method.total(update, Progress()).item() == pytest.approx(0.4130209558, abs=1e-9)


def test_loss_against_loops(double, slow, echo):
    logits, targets = torch.randn(40, 4) * 3, torch.randint(0, 4, (40,))
    method = Altered(Supervised(echo), LabelNoise(0.5, 4, flips="other", seed=7, samples=40))
    batch = Batch(inputs=logits, targets=targets, indices=torch.arange(40).flip(0))
    (update,) = method.step(batch, Progress(epoch=2))
    wrong = method.change(batch, Progress(epoch=2)).targets
    assert 8 < int((wrong != targets).sum()) < 32
    expected = slow.label_loss(logits.tolist(), wrong.tolist())
    assert update.losses["ce"].item() == pytest.approx(expected, rel=1e-12)
    assert expected != pytest.approx(slow.label_loss(logits.tolist(), targets.tolist()), rel=1e-3)
    assert torch.equal(batch.targets, targets)


def test_once_the_data_themselves_are_wrong_so_whoever_reads_them_reads_the_same():
    kd, at, crd = (look(f"student_rate=0.5,method={method}") for method in ("kd", "at", "(crd:negatives=8)"))
    wrong = labels(kd)
    assert 0.2 < (wrong != CLEAN).float().mean() < 0.7
    assert torch.equal(labels(at), wrong)
    assert torch.equal(labels(crd), wrong)
    assert torch.equal(crd.methods["distill"].rows.count, wrong.bincount(minlength=6)), "and negatives are drawn by it"
    assert isinstance(kd.methods["distill"], KD)


def test_validation_and_test_stay_clean():
    found = look("student_rate=1,flips=other").data["distill"]
    assert torch.equal(found.validation.targets, CLEAN)
    assert torch.equal(found.test.targets, CLEAN)
    assert not (training_labels(found) == CLEAN).any()


def test_the_seed_of_the_run_decides():
    assert torch.equal(labels(look("student_rate=0.5")), labels(look("student_rate=0.5")))
    assert not torch.equal(labels(look("student_rate=0.5")), labels(look("student_rate=0.5", seed=1)))


def test_the_teacher_is_trained_on_wrong_labels_of_its_own():
    run = look("teacher_rate=0.5,student_rate=0.5")
    assert list(run.methods) == ["messy-teacher", "distill"]
    teacher = run.methods["messy-teacher"]
    assert isinstance(teacher, Supervised)
    assert not torch.equal(labels(run, "messy-teacher"), CLEAN)
    assert not torch.equal(labels(run, "messy-teacher"), labels(run))
    # A dry run hands back a copy of what it met.
    answers = run.methods["distill"].teacher.network.eval()(toy_batch().inputs)
    assert torch.equal(answers, teacher.export().eval()(toy_batch().inputs))


@pytest.mark.parametrize(("redraw", "kind"), [("epoch", LabelNoise), ("batch", LabelNoise)])
def test_each_of_the_two_has_its_own_rate(redraw, kind):
    run = look(f"teacher_rate=0.3,student_rate=0,redraw={redraw}")
    assert isinstance(run.methods["messy-teacher"], Altered)
    assert run.methods["messy-teacher"].change.rate == 0.3
    assert not isinstance(run.methods["distill"], Altered)
    run = look(f"teacher_rate=0.3,student_rate=0.2,redraw={redraw}")
    changes = [run.methods[stage].change for stage in ("messy-teacher", "distill")]
    assert [change.rate for change in changes] == [0.3, 0.2]
    assert all(isinstance(change, kind) for change in changes)
    assert changes[0].seed != changes[1].seed


def test_every_stage_of_a_recipe_has_the_same_wrong_labels():
    run = look("method=tf-kd-self,student_rate=0.5")
    assert torch.equal(labels(run, "self-teacher"), labels(run, "distill"))


def test_no_teacher_is_made_where_none_is_wrong():
    lonely = replace(toy_experiment(), teachers=(), answers=None)
    run = look("method=supervised,student_rate=0.4", experiment=lonely)
    assert isinstance(run.methods["distill"], Supervised)
    with pytest.raises(UserError, match="pass --teacher"):
        look("method=kd,teacher_rate=0.1", experiment=lonely)


def epoch_noise(**changes):
    return LabelNoise(**({"rate": 0.5, "num_classes": 6, "flips": "any", "seed": 3, "samples": 48} | changes))


def test_of_an_epoch_a_label_depends_on_its_position_and_the_epoch_alone():
    whole = Batch(inputs=torch.zeros(48), targets=CLEAN, indices=torch.arange(48))
    first = epoch_noise()(whole, Progress(epoch=0)).targets
    second = epoch_noise()(whole, Progress(epoch=1)).targets
    assert not torch.equal(first, second)
    noise, order = epoch_noise(), torch.randperm(48)
    for part in order.chunk(5):
        found = noise(Batch(inputs=part, targets=CLEAN[part], indices=part), Progress(epoch=1, step=9)).targets
        assert torch.equal(found, second[part]), "whatever the batch, the process and what ran before"
    assert torch.equal(noise(whole, Progress(epoch=0)).targets, first)
    state = torch.get_rng_state()
    noise(whole, Progress(epoch=5))
    assert torch.equal(torch.get_rng_state(), state), "and the run's own chance is not drawn from"


@pytest.mark.parametrize("samples", [None, 60_000])
@pytest.mark.parametrize(("flips", "share"), [("any", 0.3 * 5 / 6), ("other", 0.3)])
def test_the_effective_rate_and_every_place_of_a_batch_alike(samples, flips, share):
    noise = epoch_noise(rate=0.3, flips=flips, samples=samples)
    wrong, seen = torch.zeros(50), torch.zeros(6)
    for indices in torch.arange(60_000).view(-1, 50):
        targets = indices % 6
        found = noise(Batch(inputs=torch.zeros(50, 3, 1, 1), targets=targets, indices=indices), Progress()).targets
        wrong += found != targets
        seen += found[found != targets].bincount(minlength=6)
    assert (wrong / 1200 - share).abs().max() < 5 * math.sqrt(share * (1 - share) / 1200)
    assert wrong.sum().item() / 60_000 == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 60_000))
    assert len(seen) == 6, "all classes, however few channels the images have"
    assert (seen - seen.mean()).abs().max() < 5 * math.sqrt(seen.mean())


def variant(**options):
    def build(run, distill, data, make_teacher):
        return messy_collaboration(run, distill, data, make_teacher, **({"student_rate": 0.5} | options))

    return Entry(name="messy", build=build, papers=())


@pytest.mark.parametrize("redraw", ["epoch", "batch"])
@pytest.mark.parametrize("check", [resumes_bit_identical, driver_equals_a_plain_loop])
def test_redrawn_labels_survive_an_interruption(check, redraw):
    check(variant(redraw=redraw))


def test_redrawn_labels_are_the_same_on_two_processes():
    parts_of_a_batch_add_up(variant(redraw="epoch"))
    with pytest.raises(AssertionError, match="between 1 and 2 processes"):
        parts_of_a_batch_add_up(variant(redraw="batch"))


@pytest.mark.parametrize("redraw", ["once", "epoch"])
def test_wrong_labels_change_what_is_learned(redraw, tmp_path):
    states = []
    for rate in (0.0, 0.9):
        text = f"messy-collaboration:method=supervised,student_rate={rate},redraw={redraw}"
        run = Run(tmp_path / str(rate), replace(TRAINING, epochs=1))
        states.append(toy_experiment().execute(parse_choice(text), run).state_dict())
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_another_rate_is_refused_in_the_same_folder(tmp_path):
    training = replace(TRAINING, epochs=1)
    toy_experiment().execute(parse_choice("messy-collaboration:method=supervised"), Run(tmp_path, training))
    other = parse_choice("messy-collaboration:method=supervised,student_rate=0.5")
    with pytest.raises(UserError, match="the results of other work"):
        toy_experiment().execute(other, Run(tmp_path, training))


def of_a_loader():
    pairs = TensorDataset(torch.rand(24, 3, 8, 8), torch.arange(24) % 3)
    data = as_data(DataLoader(pairs, batch_size=8), num_classes=3)
    return Experiment(data=data, students=(blueprint("tiny_cnn,width=4", data),))


@pytest.mark.parametrize("redraw", ["once", "epoch"])
def test_a_loader_is_refused_unless_every_batch_is_drawn(redraw):
    with pytest.raises(UserError, match="pass the dataset instead.*redraw=batch"):
        look(f"method=supervised,redraw={redraw}", experiment=of_a_loader())


def test_a_loader_with_labels_drawn_for_every_batch():
    experiment = of_a_loader()
    run = look("method=supervised,redraw=batch,student_rate=0.9", experiment=experiment)
    method = run.methods["distill"]
    before = student_state(method)["method.student.model.model.classifier.weight"].clone()
    Driver(TRAINING).fit(method, experiment.data)
    assert not torch.equal(student_state(method)["method.student.model.model.classifier.weight"], before)


@pytest.mark.parametrize("row", ["student_rate=-0.1", "student_rate=1.1", "teacher_rate=2"])
def test_rates_are_shares(row):
    with pytest.raises(UserError, match="must be between 0 and 1"):
        look(row)


def test_a_wrong_teacher_of_a_method_without_one_is_refused():
    with pytest.raises(UserError, match="supervised does not learn from a trained teacher"):
        look("method=supervised,teacher_rate=0.1")


def test_it_may_need_a_teacher():
    entry = catalogue.get("messy-collaboration")
    assert (entry.needs_teacher, entry.teacher) == (True, "as its method")
    assert "teacher" in Choice(entry, {}).fixtures
    assert "teacher" not in Choice(entry, {"method": "supervised"}).fixtures


@pytest.mark.parametrize("samples", [None, 48])
def test_samples_without_a_label_get_none(samples):
    labels = torch.full((48,), -1)
    labels[::2] = 2
    noise = LabelNoise(1.0, 6, flips="other", seed=3, samples=samples)
    found = noise(Batch(inputs=torch.zeros(48, 1), targets=labels, indices=torch.arange(48)), Progress())
    assert (found.labels[1::2] == -1).all()
    assert (found.labels[::2] != 2).all()
    assert (found.labels[::2] >= 0).all()
