"""What a comparison is put together from."""

import pytest
import torch

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Together
from tutelage.errors import UserError
from tutelage.experiments.assembly import baseline_of, experiment_of, seeds_of, split_settings
from tutelage.experiments.choice import parse_choice
from tutelage.models.blueprint import several
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data
from tutelage.training.dry_run import DryRun


def test_networks_are_named_alone_or_several():
    network = ToyNetwork()
    assert several(network) == [network]
    assert several("resnet20") == ["resnet20"]
    assert several(("resnet20", network)) == ("resnet20", network)
    found = experiment_of([network, "tiny_cnn"], ["tiny_cnn", "tiny_cnn,width=4"], toy_data())
    assert [student.name for student in found.students] == ["ToyNetwork", "tiny_cnn"]
    assert [teacher.name for teacher in found.teachers] == ["tiny_cnn", "tiny_cnn,width=4"]
    assert found.teacher is found.teachers[0]
    with pytest.raises(UserError, match="No student was given"):
        experiment_of([], None, toy_data())


def test_several_teachers_that_answer_batches_are_an_ensemble():
    pair = [FrozenTeacher(ToyNetwork()), FrozenTeacher(ToyNetwork())]
    found = experiment_of("tiny_cnn", pair, toy_data()).answers
    assert isinstance(found, EnsembleTeacher)
    assert list(found.teachers) == pair
    with pytest.raises(UserError, match="all of them as networks, or all as"):
        experiment_of("tiny_cnn", [pair[0], ToyNetwork()], toy_data())


@pytest.mark.parametrize("answering", [True, False])
def test_several_teachers_answer_together_as_is_asked_for(answering):
    pair = [ToyNetwork(), ToyNetwork()]
    sources = [FrozenTeacher(one) for one in pair] if answering else pair
    found = experiment_of("tiny_cnn", sources, toy_data(), together=Together("weighted", (3.0, 1.0)))
    answers = found.answers if answering else found.train_teacher(DryRun(TRAINING))
    output = answers(toy_batch())
    torch.testing.assert_close(output.logits, (3 * output.members[0] + output.members[1]) / 4)
    with pytest.raises(UserError, match="2 teachers and 3 teacher_weights"):
        experiment_of("tiny_cnn", sources, toy_data(), together=Together("weighted", (3.0, 1.0, 1.0)))


def test_settings_are_the_trainings_or_the_methods():
    training, options = split_settings({"epochs": 3, "alpha": 0.2}, ["kd"])
    assert training.epochs == 3
    assert options == {"alpha": 0.2}
    with pytest.raises(UserError, match="'alpha'"):
        split_settings({"alpha": 0.2}, ["supervised"])


def test_seeds_are_a_number_or_a_list():
    assert seeds_of(2) == [0, 1]
    assert seeds_of([5, 7]) == [5, 7]
    with pytest.raises(UserError, match="at least one seed"):
        seeds_of([])


def test_the_baseline_is_the_plain_student_where_it_is_a_row():
    kd, plain = parse_choice("kd"), parse_choice("supervised")
    assert baseline_of([kd, plain], None) == "supervised"
    assert baseline_of([kd], None) == "kd"
    assert baseline_of([kd, plain], "kd") == "kd"
    with pytest.raises(UserError, match="no row named"):
        baseline_of([kd], "tf-kd-self")
