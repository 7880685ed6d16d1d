import csv
import sys
from types import ModuleType

import pytest

import tutelage
from tutelage.errors import UserError
from tutelage.system.console import Silent
from tutelage.training import loggers
from tutelage.training.loggers import Log, Logged, logged

QUICK = {"student": "tiny_cnn,width=3", "data": "digits", "epochs": 3, "progress": False, "device": "cpu"}


class Listener(Silent):
    """Notes what reaches the reporter that shows the progress."""

    def __init__(self):
        self.heard = []

    def epoch(self, number, epochs, metrics, *, headline=""):
        self.heard.append((number, epochs, dict(metrics), headline))

    def end(self, *, finished):
        self.heard.append(finished)


class Noted:
    """A logger that notes its calls, and fails at some step."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def log_metrics(self, metrics, step):
        if step == self.fails_at:
            raise RuntimeError("the machine went down")
        self.calls.append((step, metrics))

    def save(self):
        pass

    def finalize(self, status):
        self.calls.append(status)


def from_csv(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            (int(row.pop("step")), {name: float(value) for name, value in row.items()}) for row in csv.DictReader(file)
        ]


def from_tensorboard(folder):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder))
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            found.setdefault(event.step, []).append((tag, event.value))
    assert all(len(pairs) == len(dict(pairs)) for pairs in found.values()), "a step is there twice"
    return [(step, dict(pairs)) for step, pairs in sorted(found.items())]


READ = {"csv": from_csv, "tensorboard": from_tensorboard}


@pytest.fixture(params=READ)
def kind(request):
    if request.param == "tensorboard":
        pytest.importorskip("tensorboard")
    return request.param


def train(reporter, steps, title="kd, seed 0: distill"):
    reporter.begin(title, total=30, done=0)
    for number, loss in steps:
        reporter.epoch(number, 3, {"train/ce": loss, "lr": 0.5}, headline="validation 50 %")


def test_every_epoch_is_logged_under_the_name_of_its_training(kind, tmp_path):
    shown = Listener()
    reporter = logged(shown, kind, tmp_path)
    train(reporter, [(1, 4.0), (2, 2.0)])
    # It is there before the training ends.
    assert READ[kind](tmp_path / "logs" / "kd-seed-0-distill") == [
        (1, {"train/ce": 4.0, "lr": 0.5}),
        (2, {"train/ce": 2.0, "lr": 0.5}),
    ]
    reporter.end(finished=True)
    train(reporter, [(1, 8.0)], title="kd, seed 1: distill")
    reporter.end(finished=True)
    assert READ[kind](tmp_path / "logs" / "kd-seed-1-distill") == [(1, {"train/ce": 8.0, "lr": 0.5})]
    assert len(READ[kind](tmp_path / "logs" / "kd-seed-0-distill")) == 2
    assert shown.heard[0] == (1, 3, {"train/ce": 4.0, "lr": 0.5}, "validation 50 %")
    assert shown.heard[-1] is True


def test_a_resumed_training_has_no_step_twice(kind, tmp_path):
    # Killed after three epochs, and continued from a checkpoint within the second one.
    train(logged(Silent(), kind, tmp_path), [(1, 4.0), (2, 2.0), (3, 1.0)])
    again = logged(Silent(), kind, tmp_path)
    train(again, [(2, 2.5), (3, 1.5)])
    again.end(finished=True)
    found = READ[kind](tmp_path / "logs" / "kd-seed-0-distill")
    assert [(step, metrics["train/ce"]) for step, metrics in found] == [(1, 4.0), (2, 2.5), (3, 1.5)]


def test_a_run_that_died_and_is_started_again_has_each_step_once(kind, tmp_path):
    with pytest.raises(RuntimeError, match="went down"):
        tutelage.distill("supervised", out=tmp_path, logger=[kind, lambda name: Noted(fails_at=2)], **QUICK)
    folder = tmp_path / "logs" / "supervised-seed-0-distill"
    assert [step for step, _ in READ[kind](folder)] == [1, 2]
    tutelage.distill("supervised", out=tmp_path, logger=kind, **QUICK)
    found = READ[kind](folder)
    assert [step for step, _ in found] == [1, 2, 3]
    assert {"train/ce", "lr", "validation_accuracy"} <= set(found[-1][1])
    # Finished trainings are not run, and so not logged again.
    tutelage.distill("supervised", out=tmp_path, logger=kind, **QUICK)
    assert READ[kind](folder) == found


def test_each_row_and_seed_has_a_log_of_its_own(tmp_path):
    rows = ["supervised", "label-smoothing:smoothing=0.2"]
    tutelage.compare(rows, seeds=2, out=tmp_path, logger="csv", **(QUICK | {"epochs": 1}))
    names = {folder.name for folder in (tmp_path / "logs").iterdir()}
    assert names == {
        f"{row}-seed-{s}-distill" for row in ("supervised", "label-smoothing-smoothing=0.2") for s in (0, 1)
    }


def test_the_command_line_takes_several(monkeypatch, tmp_path):
    from tutelage.cli.main import main

    noted = Noted()
    monkeypatch.setitem(loggers.KINDS, "noted", loggers.Kind(lambda log: noted))
    words = "distill supervised --student tiny_cnn,width=3 --data digits --epochs 1 --device cpu --logger csv noted"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    assert [step for step, _ in from_csv(tmp_path / "logs" / "supervised-seed-0-distill")] == [1]
    assert noted.calls[0][0] == 1
    assert noted.calls[-1] == "success"


def test_a_training_that_stopped_is_logged_as_failed(tmp_path):
    noted = Noted()
    reporter = Logged(Silent(), [lambda name: noted], tmp_path)
    train(reporter, [(1, 1.0)])
    reporter.end(finished=False)
    assert noted.calls == [(1, {"train/ce": 1.0, "lr": 0.5}), "failed"]


def test_a_function_is_given_the_name_of_the_training(tmp_path):
    names = []
    reporter = logged(Silent(), lambda name: names.append(name) or Noted(), tmp_path)
    train(reporter, [(1, 1.0), (2, 1.0)], title="teacher")
    reporter.end(finished=True)
    assert names == ["teacher"]


def test_only_the_first_process_logs(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    reporter = logged(Silent(), lambda name: pytest.fail("opened"), tmp_path)
    train(reporter, [(1, 1.0)])
    reporter.end(finished=True)


def test_without_loggers_the_reporter_is_the_same(tmp_path):
    shown = Silent()
    assert logged(shown, (), tmp_path) is shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", r"There is no logger named 'tensorbord'. Did you mean 'tensorboard'"),
        ("tensorboard", r"tensorboard needs tensorboard or tensorboardX: pip install 'tutelage\[tensorboard\]'"),
        ("wandb", "wandb needs lightning and wandb: pip install lightning wandb"),
        ("mlflow", "mlflow needs lightning and mlflow: pip install lightning mlflow"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_trained(name, message, monkeypatch, tmp_path):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=message):
        tutelage.distill("supervised", out=tmp_path, logger=name, **QUICK)
    assert not list(tmp_path.iterdir())


def test_logs_need_a_folder():
    with pytest.raises(UserError, match="name a folder for it, out="):
        tutelage.distill("supervised", logger="csv", **QUICK)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_services_are_told_the_name_of_the_training(name, monkeypatch, tmp_path):
    made = []

    class Service(Noted):
        def __init__(self, **options):
            super().__init__()
            self.options, self.experiment = options, self
            made.append(self)

        def finish(self):
            self.calls.append("finished")

    module = ModuleType("lightning.pytorch.loggers")
    module.WandbLogger = module.MLFlowLogger = Service
    for package in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, "lightning.pytorch.loggers", module)
    monkeypatch.setattr(loggers, "find_spec", lambda package: object())
    for _ in range(2):
        reporter = logged(Silent(), name, tmp_path)
        train(reporter, [(1, 1.0)])
        reporter.end(finished=True)
    first, second = made
    assert first.calls == [(1, {"train/ce": 1.0, "lr": 0.5}), "success", "finished"]
    if name == "wandb":
        assert first.options["name"] == "kd, seed 0: distill"
        assert first.options["id"] == second.options["id"]
        assert first.options["resume"] == "allow"
    else:
        assert first.options == {"experiment_name": "tutelage", "run_name": "kd, seed 0: distill"}


def test_names_of_folders_do_not_collide(tmp_path):
    titles = [
        "at:layers=a+b, seed 0: distill",
        "at:layers=[a/b], seed 0: distill",
        "at:layers=(a/b), seed 0: distill",
        "",
    ]
    slugs = [Log(title, tmp_path, 1).slug for title in titles]
    assert slugs[0] == "at-layers=a+b-seed-0-distill"
    assert len(set(slugs)) == len(titles)
    assert all(set("/:*?<>|, ").isdisjoint(slug) for slug in slugs)
