"""What a person sees while training runs."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from tutelage.system.console import Silent, Terminal, duration, screen, shown


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


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("tutelage.system.console.monotonic", lambda: now[0])
    return now


def test_away_from_a_terminal_each_epoch_is_one_plain_line_with_the_time_left(output, clock):
    reporter = terminal(output)
    reporter.begin("kd, seed 0: distill", total=30, done=0)
    for epoch in (1, 2, 3):
        reporter.advance(10)
        clock[0] += 40
        reporter.epoch(epoch, 3, {"train/ce": 1.25}, headline="validation 50.00 %")
    reporter.end(finished=True)
    lines = output.getvalue().splitlines()
    assert lines[:2] == [
        "kd, seed 0: distill  epoch 1/3  validation 50.00 %  ce 1.2500  40 s, 80 s left",
        "kd, seed 0: distill  epoch 2/3  validation 50.00 %  ce 1.2500  80 s, 40 s left",
    ]
    assert lines[2].startswith("done  kd, seed 0: distill  epoch 3/3  validation 50.00 %  ce 1.2500")
    assert len(lines) == 3
    assert "\x1b" not in output.getvalue()


def test_a_long_epoch_has_a_line_every_five_minutes(output, clock):
    reporter = terminal(output)
    reporter.begin("kd", total=1000, done=0)
    for _ in range(30):
        clock[0] += 60
        reporter.advance(10)
    lines = output.getvalue().splitlines()
    assert lines[:2] == ["kd  5 min, 95 min left", "kd  10 min, 90 min left"]
    assert len(lines) == 6


def test_a_resumed_training_knows_its_pace_from_what_it_did_itself(output, clock):
    reporter = terminal(output)
    reporter.begin("kd", total=100, done=90)
    reporter.advance(5)
    clock[0] += 7200
    reporter.epoch(19, 20, {})
    assert output.getvalue() == "kd  epoch 19/20  2.0 h, 2.0 h left\n"


def test_the_time_left_is_known_though_the_batches_were_not_counted_yet(output, clock):
    reporter = terminal(output)
    reporter.begin("kd", total=100, done=0)
    clock[0] += 10
    reporter.epoch(1, 4, {})
    assert output.getvalue() == "kd  epoch 1/4  10 s, 30 s left\n"


def test_on_a_terminal_the_bar_shows_it(output, clock):
    reporter = terminal(output, live=True)
    reporter.begin("kd", total=100, done=0)
    reporter.advance(5)
    reporter.epoch(1, 20, {})
    reporter.close()
    assert "left" not in output.getvalue()


@pytest.mark.parametrize("live", [False, True])
def test_what_is_said_stands_there_as_it_is(output, live):
    reporter = terminal(output, live=live)
    reporter.note("runs/a [new] :cat:")
    reporter.begin("kd [bold]x[/], seed 0", total=2, done=0)
    reporter.status("photos [v2]")
    reporter.end(finished=True)
    reporter.close()
    for text in ("runs/a [new] :cat:", "kd [bold]x[/], seed 0", "photos [v2]"):
        assert text in output.getvalue()


def test_the_screen_prints_names_as_they_are(capsys):
    table = Table("[dim]name[/dim]")
    table.add_row("photos [v2] :cat:")
    screen().print("runs/a [new] :cat:", table)
    screen(stderr=True).print("runs/b [bold]")
    printed = capsys.readouterr()
    for text in ("runs/a [new] :cat:", "photos [v2] :cat:", "[dim]name[/dim]"):
        assert text in printed.out
    assert printed.err == "runs/b [bold]\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (110, "2 min"), (5999, "100 min"), (7200, "2.0 h")]
)
def test_times_for_people(seconds, text):
    assert duration(seconds) == text


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
