"""What a person sees while training runs."""

import io

import pytest
from rich.console import Console

from tutelage.system.console import Silent, Terminal, shown


@pytest.fixture
def output():
    return io.StringIO()


def terminal(output, *, live=False, **options):
    return Terminal(Console(file=output, force_terminal=live, width=100, highlight=False), **options)


def train(reporter):
    reporter.begin("kd, seed 0: distill", total=10, done=0)
    reporter.advance(5)
    reporter.epoch(1, 2, {"train/ce": 1.25, "validation_accuracy": 0.5, "lr": 0.1}, headline="validation 50.00 %")
    reporter.end(finished=True)


def test_away_from_a_terminal_each_training_is_one_plain_line(output):
    train(terminal(output))
    lines = output.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("done  kd, seed 0: distill  epoch 1/2  validation 50.00 %  ce 1.2500")
    assert "\x1b" not in output.getvalue()


def test_on_a_terminal_there_is_a_bar(output):
    reporter = terminal(output, live=True, plan=3)
    train(reporter)
    reporter.finish_one()
    reporter.close()
    assert "all cells" in output.getvalue()


def test_a_line_that_is_said_once_is_said_once(output):
    reporter = terminal(output)
    for _ in range(3):
        reporter.note("Float32.", once=True)
        reporter.note("again")
    assert output.getvalue().split() == ["Float32.", "again", "again", "again"]


def test_of_what_was_measured_the_losses_are_shown():
    metrics = {"train/kd": 0.5, "lr": 0.1, "validation_nll": 1.0, "validation_accuracy": 0.123}
    assert shown(metrics) == {"kd": "0.5000"}


def test_without_a_headline_the_losses_follow_the_epoch(output):
    reporter = terminal(output)
    reporter.begin("features, seed 0", total=10, done=0)
    reporter.epoch(3, 3, {"train/map": 0.25})
    reporter.end(finished=True)
    assert "features, seed 0  epoch 3/3  map 0.2500  " in output.getvalue()


def test_ending_what_never_began_is_harmless(output):
    terminal(output).end(finished=True)
    assert output.getvalue() == ""


def test_a_library_call_says_nothing(capsys):
    train(Silent())
    assert capsys.readouterr() == ("", "")


def test_a_stopped_run_is_not_called_done():
    output = io.StringIO()
    reporter = terminal(output)
    reporter.begin("kd, seed 0", total=10, done=0)
    reporter.end(finished=False)
    assert "stopped" in output.getvalue()
    assert "done" not in output.getvalue()


def test_the_line_holds_the_losses_of_the_first_network_alone():
    metrics = {"validation_accuracy": 0.5, "train/ce": 1.0, "train/student-2/ce": 2.0, "lr": 0.1}
    assert shown(metrics) == {"ce": "1.0000"}


def test_words_beside_the_bar_end_on_the_line():
    output = io.StringIO()
    reporter = terminal(output)
    reporter.status("nothing runs yet")
    reporter.begin("recording", total=10, done=0)
    reporter.status("1 image/s")
    reporter.status("2,000 images/s")
    reporter.end(finished=True)
    assert "2,000 images/s" in output.getvalue()
    assert "1 image/s" not in output.getvalue()
    Silent().status("unheard")
