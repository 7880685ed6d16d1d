"""Language modelling: losses and metrics against slow loops, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.data.batch import Batch
from tutelage.data.corpora import next_tokens
from tutelage.errors import UserError
from tutelage.losses import kd_loss
from tutelage.tasks.language import LANGUAGE, LanguageMeter, counted_tokens
from tutelage.testing.kinds import KINDS

TARGETS = torch.tensor([[1, 2, -1], [4, -1, -1]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def batch(**changes):
    inputs = {"input_ids": torch.zeros(2, 3, dtype=torch.int64), "attention_mask": MASK}
    return Batch(**{"inputs": inputs, "targets": TARGETS, "criterion": LANGUAGE.criterion, **changes})


def logits():
    # Of one token more than the student's, as of a teacher that rounds up its vocabulary.
    return torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True), torch.randn(2, 6, 3, dtype=torch.float64)


def test_the_loss_is_the_mean_over_all_tokens_that_count():
    student, _ = logits()
    rows = [student[0, :, 0].tolist(), student[0, :, 1].tolist(), student[1, :, 0].tolist()]
    slow = [-math.log(math.exp(row[y]) / sum(map(math.exp, row))) for row, y in zip(rows, (1, 2, 4))]
    found = batch().loss(student)
    assert found.item() == pytest.approx(sum(slow) / 3, rel=1e-12)
    (expected,) = torch.autograd.grad(F.cross_entropy(student, TARGETS, ignore_index=-1), student)
    torch.testing.assert_close(torch.autograd.grad(found, student)[0], expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_two_answers_are_compared_where_tokens_count_alone(temperature):
    student, teacher = logits()
    found = batch().criterion.divergence(student, teacher, temperature)
    rows, theirs = (one.movedim(1, 2)[TARGETS != -1] for one in (student, teacher[:, :5]))
    expected = kd_loss(rows, theirs, temperature)
    torch.testing.assert_close(found, expected)
    mean = batch().criterion.divergence(student, teacher, temperature, t_squared=False, reduction="mean")
    torch.testing.assert_close(mean, expected / temperature**2 / 5)


def test_where_nothing_counts_losses_are_zero_with_a_gradient():
    student, teacher = logits()
    empty = batch(targets=torch.full((2, 3), -1))
    for loss in (empty.loss(student), empty.criterion.divergence(student, teacher)):
        assert loss.item() == 0.0
        assert (torch.autograd.grad(loss, student)[0] == 0).all()


def test_a_copy_of_a_batch_has_places_of_its_own():
    whole = batch()
    assert counted_tokens(whole)[1] == 3
    from dataclasses import replace

    half = replace(whole, inputs={name: value[:1] for name, value in whole.inputs.items()}, targets=TARGETS[:1])
    assert counted_tokens(half)[1] == 2
    assert half.criterion.counted.tolist() == [[True, True, False]]
    assert counted_tokens(batch(places=torch.tensor(7.0)))[1] == 7
    without = batch(targets=None)
    assert counted_tokens(without)[0].tolist() == [[True, True, False], [True, False, False]]


def test_metrics_equal_a_slow_loop_over_all_batches():
    answers = torch.randn(6, 7, 4)
    targets = torch.randint(-1, 7, (6, 4))
    nats, right, count = 0.0, 0, 0
    for text in range(6):
        for place in range(4):
            y = int(targets[text, place])
            if y >= 0:
                row = answers[text, :, place].tolist()
                nats += math.log(sum(map(math.exp, row))) - row[y]
                right += row.index(max(row)) == y
                count += 1
    whole, first, second = LanguageMeter(), LanguageMeter(), LanguageMeter()
    whole.update(answers, targets)
    first.update(answers[:1], targets[:1])
    second.update(answers[1:], targets[1:])
    first.merge(second)
    for meter in (whole, first):
        found = meter.compute()
        assert found["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
        assert found["token_accuracy"] == right / count
    assert LanguageMeter().compute() == {}


def test_agreement_is_counted_where_tokens_count_and_where_there_is_a_teacher():
    answers, targets = torch.randn(2, 5, 3), torch.tensor([[1, 2, -1], [4, -1, -1]])
    # A teacher with a row beyond the vocabulary, which is always the largest.
    taught = F.pad(answers.clone(), (0, 0, 0, 1), value=99.0)
    taught[0, :5, 1] = -answers[0, :, 1]
    taught[0, :5, 2] = -answers[0, :, 2]
    first, second = LanguageMeter(), LanguageMeter()
    for meter, part in ((first, slice(0, 1)), (second, slice(1, 2))):
        meter.update(answers[part], targets[part])
        meter.update_taught(answers[part], taught[part], targets[part])
    first.merge(second)
    assert first.compute()["agreement"] == pytest.approx(2 / 3)


def test_a_network_that_has_broken_down_has_no_overflow():
    meter = LanguageMeter()
    meter.update(torch.tensor([[[1e4], [-1e4]]]), torch.tensor([[1]]))
    assert meter.compute()["perplexity"] == math.inf


def test_less_perplexity_is_better():
    assert LANGUAGE.metrics["perplexity"].better(3.0, 4.0)
    assert LANGUAGE.metrics["perplexity"].text(31.4159) == "31.42"


@pytest.mark.parametrize("ignored", [-100, -1])
def test_labels_as_transformers_takes_them(ignored):
    labels = torch.tensor([[5, 6, 7], [5, ignored, 7], [5, 6, ignored]])
    found = LANGUAGE.read_targets(labels, where="mine")
    assert found.tolist() == [[6, 7, -1], [-1, 7, -1], [6, -1, -1]]
    assert LANGUAGE.count_outputs(found) == 8


@pytest.mark.parametrize(
    ("labels", "words"), [([1, 2], "have the shape"), ([[0.5]], "have the shape"), ([[1, -7]], "hold -7")]
)
def test_other_labels_are_refused(labels, words):
    with pytest.raises(UserError, match=words):
        LANGUAGE.read_targets(torch.tensor(labels), where="mine")


def test_next_tokens():
    tokens = torch.tensor([[5, 6, 7, 0]])
    assert next_tokens(tokens, torch.tensor([[1, 1, 1, 0]]).bool()).tolist() == [[6, 7, -1, -1]]


def test_networks_that_do_not_answer_at_each_token_are_refused():
    LANGUAGE.check_answer((2, 20, 7), 2, 20, who="student", data="mine")
    LANGUAGE.check_answer((2, 64, 7), 2, 20, who="student", data="mine")
    for shape, words in (((2, 20), "a score of each token"), ((2, 19, 7), "vocabulary of mine has 20")):
        with pytest.raises(UserError, match=words):
            LANGUAGE.check_answer(shape, 2, 20, who="student", data="mine")


def test_the_toys_targets_are_the_tokens_that_come_next():
    toy = KINDS["language"].batch()
    words, mask = toy.inputs["input_ids"], toy.inputs["attention_mask"]
    assert set(toy.inputs) == {"input_ids", "attention_mask"}
    for text in range(len(words)):
        length = int(mask[text].sum())
        assert toy.targets[text, : length - 1].tolist() == words[text, 1:length].tolist()
        assert (toy.targets[text, length - 1 :] == -1).all()


def test_processes_divide_by_the_mean_number_of_their_tokens(monkeypatch):
    """Their gradients are averaged, so each token weighs the same, whoever has the longer texts."""
    data = KINDS["language"].data()
    whole = next(iter(data.loader("train", train=True, batch_size=48, seed=3).epoch(0)))
    shared = []

    def mean(count):
        shared.append(count)
        return counted_tokens(whole)[1] / 3

    monkeypatch.setattr("tutelage.system.processes.mean", mean)
    loaders = [data.loader("train", train=True, batch_size=48, seed=3, rank=rank, world_size=3) for rank in range(3)]
    parts = [next(iter(loader.epoch(0))) for loader in loaders]
    assert len({int(count) for count in shared}) > 1
    assert sum(shared) == counted_tokens(whole)[1]
    bias = torch.zeros(20, requires_grad=True)
    losses = [part.loss(bias[None, :, None].expand(len(part), 20, part.targets.shape[1])) for part in (whole, *parts)]
    expected, *found = (torch.autograd.grad(loss, bias)[0] for loss in losses)
    torch.testing.assert_close(sum(found) / 3, expected)
