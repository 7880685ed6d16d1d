"""Active mixup: what is asked and when, what is learnt from it, and how an interrupted run goes on."""

from dataclasses import replace

import pytest
import torch

from tutelage.core.teachers import BlackBoxTeacher, TableTeacher
from tutelage.data.augment import Augmentation
from tutelage.errors import UserError
from tutelage.methods.active_mixup import active_mixup
from tutelage.methods.parts.mixture_pool import pool_size
from tutelage.testing.toys import CLASSES, SAMPLES, TRAINING, ToyNetwork, toy_data
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run

SETTINGS = replace(TRAINING, epochs=1, keep="last", device="cpu")
DATA = replace(toy_data(), augmentation=Augmentation())


class Query:
    def __init__(self, fails_after=None):
        torch.manual_seed(3)
        self._network, self.asked, self.fails_after = ToyNetwork(8).eval(), [], fails_after

    def __call__(self, inputs):
        if self.fails_after is not None and sum(map(len, self.asked)) >= self.fails_after:
            raise ConnectionError
        self.asked.append(inputs)
        return self._network(inputs)


def make_student(part):
    torch.manual_seed(len(part))
    return ToyNetwork(4)


def run_it(folder, query, *, data=DATA, **options):
    run = Run(folder, SETTINGS, seed=0)
    network = active_mixup(run, make_student, BlackBoxTeacher(query, identity="box"), data, **options)
    return run, network


def weights(network):
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    query, folder = Query(), tmp_path_factory.mktemp("active")
    return query, folder, *run_it(folder, query, images=9, rounds="4+6")


def test_it_asks_about_the_images_and_then_about_the_mixtures_of_each_round(finished):
    query, _, run, _ = finished
    assert [len(asked) for asked in query.asked] == [9, 4, 6]
    assert [stage.name for stage in run.fitted] == ["round-0", "round-1", "round-2"]
    [curve] = run.notes["curves"]
    assert curve["over"] == "queries"
    assert [queries for queries, _ in curve["values"]] == [9, 13, 19]
    assert [score for _, score in curve["values"]] == [fitted.scores["last"]["test_accuracy"] for fitted in run.fitted]
    # The images are training images as they are, and nothing is asked twice.
    known = {image.numpy().tobytes() for image in DATA.train.images}
    first = (query.asked[0] * 255).round().byte()
    assert all(image.numpy().tobytes() in known for image in first)
    everything = torch.cat(query.asked)
    assert len(everything.flatten(1).unique(dim=0)) == 19


def test_a_student_learns_from_everything_that_was_answered(finished):
    query, folder, *_ = finished
    asked = torch.cat(query.asked[:2])
    student = make_student("round-1")

    class Kept(DryRun):
        def meet(self, name, method, data, *, epochs, stop):
            if name == "round-1":
                batch = next(iter(data.loader("train", train=False, batch_size=99).epoch(0)))
                self.found = batch, method.losses(batch)["teacher"]

    def stage(name, make, *, rehearse=None, **identity):
        return Run(folder, SETTINGS, seed=0).stage(name, make)

    from unittest.mock import patch

    run = Kept(SETTINGS)
    with patch.object(Run, "_claim", lambda *arguments: None):
        run.stage = stage
        active_mixup(run, make_student, BlackBoxTeacher(query, identity="box"), DATA, images=9, rounds="4")
    batch, loss = run.found
    assert torch.equal(batch.inputs, asked)
    assert batch.targets is None
    answers, own = query._network(asked).softmax(1), student.train()(asked).log_softmax(1)
    slow = -sum(answers[row, c] * own[row, c] for row in range(13) for c in range(CLASSES)) / 13
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_weights_and_asks_nothing_again(finished, tmp_path):
    _, _, _, expected = finished
    first, second, third = Query(fails_after=13), Query(), Query()
    with pytest.raises(ConnectionError):
        run_it(tmp_path, first, images=9, rounds="4+6")
    _, network = run_it(tmp_path, second, images=9, rounds="4+6")
    assert [len(asked) for asked in second.asked] == [6]
    assert torch.equal(weights(network), weights(expected))
    run_it(tmp_path, third, images=9, rounds="4+6")
    assert not third.asked


def test_random_mixtures_and_none(finished, tmp_path):
    active, *_ = finished
    query, plain = Query(), Query()
    run_it(tmp_path / "random", query, images=9, rounds="4+6", selection="random")
    assert [len(asked) for asked in query.asked] == [9, 4, 6]
    # The same images, so that only the selection differs.
    assert torch.equal(query.asked[0], active.asked[0])
    assert not torch.equal(query.asked[1], active.asked[1])
    run, _ = run_it(tmp_path / "none", plain, images=9, selection="none")
    assert [len(asked) for asked in plain.asked] == [9]
    assert len(run.notes["curves"][0]["values"]) == 1


def test_the_pool_is_used_up_and_then_it_ends(tmp_path):
    query = Query()
    run, _ = run_it(tmp_path, query, images=5, rounds="8+8+8", candidates=8)
    assert [len(asked) for asked in query.asked] == [5, 8, pool_size(5) - 8]
    assert len(run.fitted) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"images": 2}, f"images=2 must be 3 or more, and at most the {SAMPLES}"),
        ({"images": SAMPLES + 1}, "at most"),
        ({"rounds": "5+x"}, r"rounds=5\+x must be numbers of mixtures"),
        ({"rounds": "20+30", "candidates": 29}, "candidates=29 must be at least the mixtures of a round, 30"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(options, match, tmp_path):
    query = Query()
    with pytest.raises(UserError, match=match):
        run_it(tmp_path, query, **options)
    assert not query.asked


def test_answers_given_beforehand_are_refused(tmp_path):
    with pytest.raises(UserError, match="asks the teacher about mixtures of images, and these answers were given"):
        active_mixup(Run(tmp_path, SETTINGS), make_student, TableTeacher(torch.zeros(SAMPLES, CLASSES)), DATA)


def test_several_processes_are_refused_because_each_would_pay(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes would each ask: run it in one"):
        run_it(tmp_path, Query())
