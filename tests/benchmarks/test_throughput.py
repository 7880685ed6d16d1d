"""The benchmark of throughput: ratios, tables, and what it does from the command line."""

import json
import multiprocessing

import pytest
import throughput
from contenders import CONTENDERS
from contenders.tables import ratio, ratios, table

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


@pytest.fixture
def words(tiny, tmp_path):
    asked = {"data": tiny.data, "subset": tiny.subset, "teacher": tiny.teacher, "student": tiny.student}
    asked |= {"batch": tiny.batch, "threads": 1, "only": "textbook", "out": tmp_path / "found.json"}
    return [str(word) for name, value in asked.items() for word in (f"--{name}", value)]


def test_ratios_are_taken_within_each_round():
    contenders = CONTENT["contenders"]
    faster = ratio(contenders, "torchdistill", "live")
    assert faster == pytest.approx({"median": 4, "least": 4, "most": 9})
    limit = ratio(contenders, "live", "bare", "teacher")
    assert limit == pytest.approx({"median": 1, "least": 1, "most": 0.2 / 0.15})
    assert ratio(contenders, "live", "timm") is None
    assert ratio(contenders, "recorded", "bare") is None


def test_the_table_shows_what_was_measured():
    text = table(CONTENT | {"ratios": ratios(CONTENT["contenders"])})
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert rows["Tutelage, live"].endswith("| 640 | 100.0 | 100.0 to 200.0 | 500 | 3 s | 4.00 | – | 0.50 |")
    assert "| 500 + 20 |" in rows["torchdistill, as its samples"]
    assert "it broke / badly" in rows["timm's task, plain"]
    assert rows["Speed of live to torchdistill as its samples"].endswith("| 4.00 | 4.00 to 9.00 | at least 5 |")
    assert rows["Time of live to the bare step plus the teacher alone"].endswith(
        "| 1.00 | 1.00 to 1.33 | at most 1.05 |"
    )
    assert rows["Time of recorded to the bare step"].endswith("| – | – | at most 1.05 |")


def test_accuracy_is_shown_with_its_spread_over_the_seeds():
    runs = [{"seed": s, "accuracy": 0.5 + s / 10, "nll": 1.0, "seconds": 20.0} for s in range(2)]
    found = {
        "live": {"title": "Tutelage, live", "runs": runs},
        "recorded": {"title": "Tutelage, recorded", "runs": [{"seed": 0, "error": "it broke"}, runs[1]]},
        "timm": {"title": "timm", "runs": [{"seed": 0, "error": "no|way\nat all"}]},
    }
    text = table({"machine": CONTENT["machine"], "setting": {"epochs": 10}, "accuracy": found})
    assert "after 10 epochs" in text
    assert "| Tutelage, live | 55.00 ± 7.07 | 1.000 ± 0.000 | 20 ± 0 | 2 of 2 |" in text
    assert "| Tutelage, recorded | 60.00 | 1.000 | 20 | 1 of 2 |" in text
    assert "| timm | no/way | – | – | 0 of 1 |" in text


def test_a_round_from_the_command_line(words, tmp_path, capfd):
    words += ["--rounds", "2", "--steps", "2", "--lead", "1", "--workers", "1"]
    throughput.main(words)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["command"] == " ".join(["python benchmarks/throughput.py", *words])
    assert found["machine"]["threads"] == found["contenders"]["textbook"]["threads"] == 1
    assert len(found["contenders"]["textbook"]["seconds"]) == 2
    assert found["contenders"]["textbook"]["workers_memory"] > 0
    assert table(found) in capfd.readouterr().out
    assert not multiprocessing.active_children()


def test_accuracy_from_the_command_line(words, tmp_path, capfd):
    throughput.main([*words, "--accuracy", "1", "--workers", "0"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["accuracy"]["textbook"]["runs"][0]) == {"seed", "accuracy", "nll", "ece", "seconds"}
    # What was asked for, rather than what was trained for the occasion.
    assert found["setting"]["teacher"] == "tiny_cnn,width=6"
    assert found["setting"]["epochs"] == 1
    told = capfd.readouterr()
    assert "comes untrained" in told.err
    assert table(found) in told.out
    assert not multiprocessing.active_children()
