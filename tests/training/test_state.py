from tutelage.data.task import task_named
from tutelage.training.state import Stop

CLASSIFICATION = task_named("classification")


def test_training_stops_at_the_sum_of_its_losses():
    history = {"train/one": [3.0, 1.0], "train/two": [2.0, 0.5], "lr": [0.1, 0.1], "validation_accuracy": [0.1, 0.2]}
    assert Stop(at_loss=1.5).reached(2, history, CLASSIFICATION)
    assert not Stop(at_loss=1.4).reached(2, history, CLASSIFICATION)
    assert Stop(at_loss=1.4, after=2).reached(2, history, CLASSIFICATION)
    assert not Stop(at_loss=1.5).reached(1, {}, CLASSIFICATION)


def test_the_identity_of_earlier_versions_stays():
    assert Stop(after=3).identity() == {"after": 3, "at_accuracy": None}
    assert Stop(at_loss=0.5).identity() == {"after": None, "at_accuracy": None, "at_loss": 0.5}
