"""A teacher of another tokenizer: it answers to its own encoding of the same texts, and nothing inside is compared."""

import pytest
import torch

import tutelage
from tutelage.core.teachers.network import FrozenTeacher
from tutelage.core.teachers.own_tokens import OwnTokensTeacher
from tutelage.data.batch import Batch
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.models.tokenizers import encoded_for
from tutelage.system import digests

OTHERS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bad", "good", "film", "a"]


@pytest.fixture
def pair(bert):
    return (
        f"transformers:{bert('student', layers=1)}",
        f"transformers:{bert('teacher', layers=1, words=OTHERS, seed=1)}",
    )


@pytest.fixture
def encoded(pair, reviews):
    student, teacher = pair
    return encoded_for(load_data(str(reviews())), [student], [teacher])


def test_each_network_gets_its_own_tokens_of_the_same_texts(encoded, pair, reviews):
    assert encoded.is_taught_apart
    alone = encoded_for(load_data(str(reviews("again"))), [pair[1]])
    batches = list(encoded.loader("train", train=True, batch_size=5, seed=3).epoch(0))
    assert sum(len(batch) for batch in batches) == 24
    for batch in batches:
        own, targets = encoded.train.read_batch(batch.indices)
        taught, same = alone.train.read_batch(batch.indices)
        assert all((batch.inputs[name] == own[name]).all() for name in own)
        assert all((batch.teacher_inputs[name] == taught[name]).all() for name in taught)
        assert (batch.targets == targets).all()
        assert (targets == same).all()
    # The same words have other numbers.
    assert batches[0].inputs["input_ids"].shape[0] == batches[0].teacher_inputs["input_ids"].shape[0]
    part = encoded.train.select([4, 1]).with_targets(None).to("cpu")
    wanted, _ = alone.train.read_batch(torch.tensor([4, 1]))
    assert (part.taught.read_batch(torch.tensor([0, 1]))[0]["input_ids"] == wanted["input_ids"]).all()


def test_the_fingerprint_tells_the_teachers_tokens_too(encoded, pair, reviews):
    alone = encoded_for(load_data(str(reviews("again"))), [pair[0]])
    assert len({encoded.fingerprint, alone.fingerprint, encoded.as_taught().fingerprint}) == 3
    assert alone.as_taught() is alone


def test_the_student_learns_what_the_teacher_says_of_its_own_tokens(pair, reviews, tmp_path):
    student, teacher = pair
    data = load_data(str(reviews()))
    experiment = experiment_of(student, teacher, data)
    network = experiment.teachers[0].build(0, "teacher").eval()
    found = experiment.train_teacher(tutelage.Run(tmp_path, tutelage.Training(epochs=1, device="cpu")))
    assert isinstance(found, OwnTokensTeacher)
    batch = next(iter(experiment.data.loader("train", train=False, batch_size=6).epoch(0)))
    with torch.no_grad():
        torch.testing.assert_close(found(batch).logits, network(**batch.teacher_inputs).logits)
    assert found.identity() == digests.of_tensors(network.state_dict())
    settings = {"epochs": 1, "batch_size": 8, "progress": False, "device": "cpu", "lr": 0.01}
    trained = tutelage.distill("kd", student=student, teacher=teacher, data=data, **settings)
    assert sum(parameter.numel() for parameter in trained.parameters()) > 0
    with pytest.raises(UserError, match="splits the texts into other tokens than the student"):
        tutelage.distill("fitnet", student=student, teacher=teacher, data=data, **settings)


def test_inputs_that_a_method_makes_itself_are_refused(pair, encoded):
    network = experiment_of(*pair, encoded).students[0].build(0, "student")
    with pytest.raises(UserError, match="asks it about inputs that it made itself"):
        OwnTokensTeacher(FrozenTeacher(network))(Batch(inputs=encoded.example(2)))
