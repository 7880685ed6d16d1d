"""The benchmark of throughput: what it computes from what it measures, and that all contenders train the same."""

import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tutelage

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
if BENCHMARKS not in sys.path:
    sys.path.append(BENCHMARKS)

import cost  # noqa: E402
import profile_step  # noqa: E402
import switches  # noqa: E402
import throughput  # noqa: E402
from contenders import CONTENDERS  # noqa: E402
from contenders.pace import Over, Pace, Turns  # noqa: E402
from contenders.setting import Setting  # noqa: E402
from contenders.tables import ratio, ratios, table  # noqa: E402

TINY = Setting(data="random", teacher="tiny_cnn,width=6", student="tiny_cnn,width=4", batch=8, subset=40, workers=0)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Leave the generators of other tests as they are, and compile nothing: that takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording") / "top5"
    data = TINY.load()
    tutelage.record(TINY.networks(data)[0], data=data, out=folder, views=2, keep="full", batch_size=8, progress=False)
    return str(folder)


class Few(Pace):
    """Ends a training after some steps."""

    def __init__(self, steps):
        super().__init__(0.05, 1000)
        self.steps = steps

    @property
    def every(self):
        return 1

    def step(self, optimizer=None, count=1):
        super().step(optimizer, count)
        if self.done >= self.steps:
            raise Over


def contender(name, **changes):
    if (why := CONTENDERS[name].missing) is not None:
        pytest.skip(why)
    return CONTENDERS[name].train(), Setting(**(vars(TINY) | changes))


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "teacher"])
def test_every_contender_trains_its_student(name, recording):
    train, setting = contender(name, epochs=1, recording=recording)
    pace = Pace(setting.lr, 5)
    before = setting.networks(setting.load())[1].state_dict()
    after = train(setting, pace).state_dict()
    assert before.keys() == after.keys()
    weights = [key for key in before if before[key].ndim > 1]
    assert weights
    assert all(not torch.equal(before[key], after[key].cpu()) for key in weights)
    # Tutelage reports every so many batches, and five are too few.
    assert pace.done in ({0, 5} if name in ("live", "recorded") else {5})


def test_the_teacher_alone_is_asked_within_a_training():
    train, setting = contender("teacher")
    pace = Few(3)
    with pytest.raises(Over):
        train(setting, pace)
    assert pace.done == 3


def test_tutelage_reports_each_step_where_turns_ask_for_it(recording):
    for name in ("live", "recorded"):
        train, setting = contender(name, recording=recording)
        pace = Few(7)
        with pytest.raises(Over):
            train(setting, pace)
        assert pace.done == 7


def test_everybody_takes_the_same_step():
    """Loss, gradient, momentum and weight decay agree, after two steps, so that momentum counts."""
    from contenders import ours, plain, toolkits

    from tutelage.batch import Batch
    from tutelage.methods import KD
    from tutelage.teachers import FrozenTeacher

    data = TINY.load()
    batch = next(iter(TINY.lent_batches(data).epoch(0)))

    def by_hand(teacher, student):
        optimizer = TINY.optimizer(student, fused=False)
        for _ in range(2):
            optimizer.zero_grad()
            plain.kd(student(batch.inputs), teacher(batch.inputs), batch.targets, TINY).backward()
            optimizer.step()

    def by_torchdistill(teacher, student):
        box = toolkits.box_of(TINY, teacher, student, plain.Pictures(data), fused=True)
        box.pre_epoch_process(epoch=0)
        for _ in range(2):
            box.post_forward_process(loss=box.forward_process(batch.inputs, batch.targets, {}))

    def by_timm(teacher, student):
        task = toolkits.task_of(TINY, teacher, student, student, data).train()
        optimizer = toolkits.timm_optimizer(TINY, student, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            task(batch.inputs, batch.targets)["loss"].backward()
            optimizer.step()

    def by_tutelage(teacher, student):
        options = ours.kd_of(TINY).options
        method = KD(student, FrozenTeacher(teacher), **options).train()
        optimizer = ours.training_of(TINY, every=1).build_optimizer(method.optimizers()["student"])
        for _ in range(2):
            optimizer.zero_grad()
            losses = method.losses(Batch(inputs=batch.inputs, targets=batch.targets))
            sum(method.weights[name] * loss for name, loss in losses.items()).backward()
            optimizer.step()

    steps = {"torchdistill": by_torchdistill, "timm": by_timm, "live": by_tutelage}
    expected = None
    for step in [by_hand, *(step for name, step in steps.items() if CONTENDERS[name].missing is None)]:
        teacher, student = TINY.networks(data)
        step(teacher, student)
        weights = torch.cat([parameter.detach().flatten() for parameter in student.parameters()])
        expected = weights if expected is None else expected
        assert torch.allclose(weights, expected, atol=1e-6), step.__name__


@pytest.mark.parametrize("source", ["random", "digits"])
def test_transforms_and_networks_normalise_alike(source):
    from contenders import plain
    from torchvision import transforms

    from tutelage.data.images import as_inputs

    setting = Setting(**(vars(TINY) | {"data": source}))
    data = setting.load()
    _, student = setting.networks(data)
    student.eval()
    pictures = plain.pictures(data, student)
    # Without chance, which is the first two.
    pictures.transform = transforms.Compose(pictures.transform.transforms[2:])
    images = torch.stack([pictures[index][0] for index in range(8)])
    assert torch.allclose(student.model(images), student(as_inputs(data.train.images[:8])), atol=1e-5)
    assert [pictures[index][1] for index in range(8)] == data.train.targets[:8].tolist()


def test_networks_that_normalise_differently_are_refused():
    setting = Setting(**(vars(TINY) | {"teacher": "tiny_cnn,normalize=imagenet"}))
    with pytest.raises(tutelage.UserError, match="tiny_cnn,width=4,normalize=0.485"):
        setting.networks(setting.load())


def test_turns_time_the_steps_after_the_lead(monkeypatch):
    clock, told = [100.0], []
    monkeypatch.setattr("contenders.pace.time.perf_counter", lambda: clock[0])
    waits = iter([None, None])

    def wait():
        clock[0] += 1000  # While others train.
        if next(waits, "none left") is not None:
            raise Over

    turns = Turns(0.1, 1000, tell=told.append, wait=wait, lead=2, steps=6)
    assert turns.every == 2
    with pytest.raises(Over):
        while True:
            # What is slow for a moment in the middle of a turn is another's doing.
            clock[0] += 5 if turns.done < 4 or turns.done == 8 else 0.5
            turns.step(count=2)
    assert turns.done == 4 + 2 * (2 + 6)
    assert told[0]["prepared"] == 10
    assert [what["seconds"] for what in told[1:]] == pytest.approx([0.25, 0.25])
    assert all(what["memory"] > 0 for what in told[1:])
    with pytest.raises(ValueError, match="multiple"):
        Turns(0.1, 10, tell=told.append, wait=wait, lead=4, steps=6)


def test_the_learning_rate_is_that_of_the_driver():
    from contenders import ours

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    pace = Pace(0.05, 40)
    training = ours.training_of(TINY, every=1)
    for step in range(1, 41):
        pace.step(optimizer)
        factor = training.lr_factor(step, steps_per_epoch=10, total_steps=40)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * factor, abs=1e-12)


CONTENT = {
    "machine": {"summary": "a machine"},
    "contenders": {
        name: {
            "title": CONTENDERS[name].title,
            "switches": "some",
            "seconds": seconds,
            "ms_per_step": 1000 * sorted(seconds)[1],
            "images_per_second": 64 / sorted(seconds)[1],
            "peak_memory": 500_000_000,
            "workers_memory": 20_000_000 if name == "torchdistill" else 0,
            "seconds_of_preparation": 3.2,
        }
        for name, seconds in {
            "torchdistill": [0.8, 0.9, 0.4],
            "live": [0.2, 0.1, 0.1],
            "bare": [0.1, 0.05, 0.05],
            "teacher": [0.05, 0.05, 0.05],
        }.items()
    }
    | {"timm": {"title": "timm's task, plain", "switches": "some", "error": "it broke | badly"}},
}


def test_ratios_are_taken_within_each_round():
    contenders = CONTENT["contenders"]
    faster = ratio(contenders, "live", ["torchdistill"], of_time=False)
    assert faster == pytest.approx({"median": 4, "least": 4, "most": 9})
    limit = ratio(contenders, "live", ["bare", "teacher"], of_time=True)
    assert limit == pytest.approx({"median": 1, "least": 1, "most": 0.2 / 0.15})
    assert ratio(contenders, "live", ["timm"], of_time=True) is None
    assert ratio(contenders, "recorded", ["bare"], of_time=True) is None


def test_the_tables_show_what_was_measured():
    content = CONTENT | {"ratios": ratios(CONTENT["contenders"])}
    json.dumps(content)
    lines = table(content).splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert rows["Tutelage, live"].endswith("| 640 | 100.0 | 100.0 to 200.0 | 500 | 3 s | 4.00 | – | 0.50 |")
    assert "| 500 + 20 |" in rows["torchdistill, as its samples"]
    assert "it broke / badly" in rows["timm's task, plain"]
    assert rows["Speed of live to torchdistill as its samples"].endswith("| 4.00 | 4.00 to 9.00 | at least 5 |")
    assert rows["Time of recorded to the bare step"].endswith("| – | – | at most 1.05 |")
    runs = [{"seed": s, "accuracy": 0.5 + s / 10, "nll": 1.0, "seconds": 20.0} for s in range(2)]
    accuracy = {"live": {"title": "Tutelage, live", "runs": runs}, "timm": {"title": "timm", "runs": [{"error": "no"}]}}
    text = table({"machine": CONTENT["machine"], "accuracy": accuracy})
    assert "| Tutelage, live | 55.00 ± 7.07 | 1.000 ± 0.000 | 20 ± 0 |" in text
    assert "| timm | no | – | – |" in text


def test_what_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr("contenders.find_spec", lambda name: None)
    assert "tutelage[bench]" in CONTENDERS["torchdistill"].missing
    assert CONTENDERS["textbook"].missing is None


def test_a_round_from_the_command_line(tmp_path, capfd):
    words = ["--data", "random", "--subset", "40", "--teacher", TINY.teacher, "--student", TINY.student, "--batch", "8"]
    words += ["--only", "textbook", "--rounds", "2", "--steps", "2", "--lead", "1", "--workers", "1"]
    throughput.main([*words, "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["contenders"]["textbook"]["seconds"]) == 2
    assert found["contenders"]["textbook"]["workers_memory"] > 0
    assert table(found) in capfd.readouterr().out
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("name", "stages", "teachers"), [("tf-kd-self", 2, 1), ("end", 1, 2), ("re-kd", 2, 1)])
def test_of_any_method_the_last_stage_is_trained(name, stages, teachers):
    from contenders import ours

    pace = Few(2)
    with pytest.raises(Over):
        ours.method_by_name(name, TINY, pace)
    assert pace.done == 2
    assert len(pace.facts["stages"]) == stages
    assert pace.facts["stages"][-1] == "distill"
    assert pace.facts["teachers"] == teachers
    needs = pace.facts["needs"]
    assert needs["total"] == sum(size for part, size in needs.items() if part != "total")
    assert "fused optimizer" in pace.facts["notes"][0]


def test_costs_are_ratios_to_kd_in_the_same_rounds():
    def job(seconds, memory):
        turns = [{"seconds": second} for second in seconds]
        return {"turns": turns, "needs": {"total": memory}, "stages": ["a", "distill"], "teachers": 1, "notes": []}

    found = cost._relative(job([0.2, 0.6, 0.9], 30), job([0.1, 0.2, 0.6], 20))
    assert (found["time_to_kd"], found["least"], found["most"]) == pytest.approx((2, 1.5, 3))
    assert found["memory_to_kd"] == 1.5
    lines = cost.table(
        {"machine": CONTENT["machine"], "methods": {"at": found, "no": {"error": "why|so"}}}
    ).splitlines()
    assert lines[-2] == "| `at` | 2.00 | 1.50 to 3.00 | 1.50 | distill, of 2 |"
    assert lines[-1] == "| `no` | n/a | – | – | why/so |"
    assert cost._groups(["a", "b", "c"], 2) == [["a", "b"], ["c"]]


def test_recordings_grow_with_what_is_kept(monkeypatch):
    monkeypatch.setattr(cost, "GROWTH", {"classes": (10,)})
    monkeypatch.setattr(cost, "_ROWS", 64)
    rows = {row["keep"]: row for row in cost.recordings(8)}
    # Three numbers of a view; a class in two bytes; five of them with probabilities; ten logits.
    assert {keep: row["row_bytes"] for keep, row in rows.items()} == {"hard": 14, "top5": 42, "full": 52}
    assert rows["full"]["bytes_of_50000"] == 50_000 * 52
    assert all(row["ms_per_batch"] > 0 for row in rows.values())


def test_sizes_of_random_images():
    data = Setting(**(vars(TINY) | {"data": "random,classes=7,size=12"})).load()
    assert (data.num_classes, data.image_size, data.count("train")) == (7, (12, 12), 40)


def test_parts_of_a_step_add_up(recording):
    setting = Setting(**(vars(TINY) | {"recording": recording}))
    for kind in ("live", "recorded"):
        found = profile_step.watch(setting, kind, warm_up=1, steps=3)
        parts = found["parts"]
        assert set(parts) == {*profile_step.PARTS, "driver"}
        assert all(part["ms"] > 0 for part in parts.values())
        assert sum(part["ms"] for part in parts.values()) == pytest.approx(found["ms_per_step"])
        assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
        text = profile_step.table({"machine": CONTENT["machine"], "profiles": {kind: found}})
        assert f"| {kind}: part | ms a step | Share |" in text
    assert parts["teacher"]["ms"] < parts["student"]["ms"]


def test_a_switch_is_held_against_all_of_them_within_each_round(monkeypatch):
    seen = {}

    def rounds(jobs, **turns):
        seen.update(jobs)
        times = {name: [0.1, 0.2] if name == switches.ALL else [0.2, 0.3] for name in jobs}
        return {
            name: {"turns": [{"seconds": each, "memory": 2_000_000} for each in times[name]], "notes": []}
            for name in jobs
        }

    monkeypatch.setattr(switches, "take_rounds", rounds)
    found = switches.measure(TINY, {"rounds": 2, "steps": 1, "lead": 1})
    assert found["without bf16"]["time_to_all"] == pytest.approx(1.75)
    assert seen["without bf16"] == ("live", replace(seen[switches.ALL][1], precision="32-true"))
    assert {setting.compile for _, setting in seen.values()} == {"on", "off"}
    text = switches.table({"machine": {"summary": "here"}, "switches": found})
    assert "| without bf16 | 250.0 | 1.75 | 1.50 to 2.00 | 2 |" in text


def test_the_page_shows_what_was_measured():
    docs = Path(__file__).parents[1] / "docs"
    content = json.loads((docs / "results" / "throughput.json").read_text())
    assert table(content) in (docs / "performance.md").read_text()
