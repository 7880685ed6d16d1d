import json
import signal

import pytest
from torch import nn

import tutelage
from tutelage.errors import UserError
from tutelage.searching.examining import Examiner
from tutelage.system.console import Silent
from tutelage.system.interrupt import Interrupted

SPACE = "resnet_by_stage,width=2,stem=2,stage1=1|2,stage2=1|2,stage3=1|2"
TEACHER = "resnet_by_stage,width=2,stem=2,stage1=4"
# What differs between two runs of one search.
PASSING = {"created", "seconds", "passes", "command"}


@pytest.fixture(scope="module")
def data():
    return tutelage.load_data("digits", subset=100)


def search(data, folder, space=SPACE, **settings):
    settings = {"teacher": TEACHER, "batch_size": 8, "progress": False, **settings}
    return tutelage.search(space, data=data, out=folder, **settings)


def lasting(content):
    """Return what does not differ between two runs of one search."""
    plain = {key: value for key, value in content.items() if key not in PASSING}
    for name in ("best", "candidates"):
        plain[name] = [{key: value for key, value in each.items() if key not in PASSING} for each in content[name]]
    return plain


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "search"
    return folder, search(data, folder)


@pytest.fixture(autouse=True)
def _no_pages(finished, monkeypatch):
    """Draw no pages but that of the search that all tests share: a picture takes longer than these searches."""
    monkeypatch.setattr("tutelage.api.searching.write_search_page", lambda content, target: target)


class Counting:
    """Examines as before, counts, and does something at one of the candidates."""

    def __init__(self, monkeypatch, at=0, act=lambda: None):
        self.count, original = 0, Examiner.examine

        def examine(examiner, network):
            self.count += 1
            if self.count == at:
                act()
            return original(examiner, network)

        monkeypatch.setattr(Examiner, "examine", examine)


def test_the_best_come_first(finished):
    folder, content = finished
    scores = [each["score"] for each in content["best"]]
    assert len(scores) == 8 == content["networks"] == len(content["candidates"])
    assert scores == sorted(scores, reverse=True)
    assert content["outcomes"] == {"scored": 8}
    assert -1 <= content["agreement"] <= 1
    assert all(each["multiply_adds"] > 0 for each in content["best"])
    assert 0 < content["passes"] < content["seconds"]
    assert json.loads((folder / "search.json").read_text()) == content
    assert {file.name for file in folder.iterdir()} == {"search.json", "search.html", "candidates.jsonl"}


def test_the_winner_trains_and_loads_like_any_other_network(finished, data, tmp_path):
    folder, content = finished
    student = tutelage.distill(
        "supervised", student=f"found:{folder}", data=data, epochs=1, out=tmp_path / "run", progress=False, device="cpu"
    )
    saved = json.loads((tmp_path / "run" / "network.json").read_text())
    assert saved["spec"] == content["best"][0]["network"]
    again = tutelage.load_network(str(tmp_path / "run"), num_classes=10, in_channels=1)
    assert all(one.equal(other) for one, other in zip(again.parameters(), student.parameters(), strict=True))


def test_a_finished_search_is_not_run_again_and_goes_further(finished, data, tmp_path, monkeypatch):
    counting = Counting(monkeypatch)
    first = search(data, tmp_path, candidates=3, population=2, children=2)
    assert counting.count == 3
    assert lasting(search(data, tmp_path, candidates=3, population=2, children=2)) == lasting(first)
    assert counting.count == 3
    more = search(data, tmp_path)
    assert counting.count == 8
    scores = {each["network"]: each["score"] for each in more["candidates"]}
    assert scores == {each["network"]: each["score"] for each in finished[1]["candidates"]}


def test_ctrl_c_keeps_what_is_scored_and_the_same_call_goes_on(finished, data, tmp_path, monkeypatch):
    counting = Counting(monkeypatch, at=4, act=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="Stopped. 4 networks are kept in .* Run the same command again"):
        search(data, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["candidates.jsonl"]
    with pytest.raises(UserError, match="no finished search"):
        tutelage.load_network(f"found:{tmp_path}", num_classes=10)
    assert lasting(search(data, tmp_path)) == lasting(finished[1])
    assert counting.count == 8


def test_a_search_that_was_killed_goes_on(finished, data, tmp_path, monkeypatch):
    def die():
        raise MemoryError

    counting = Counting(monkeypatch, at=6, act=die)
    with pytest.raises(MemoryError):
        search(data, tmp_path)
    # A process killed while it writes leaves half a line.
    with (tmp_path / "candidates.jsonl").open("a") as file:
        file.write('{"network": "resnet_')
    assert lasting(search(data, tmp_path)) == lasting(finished[1])
    assert counting.count == 9


def test_limits_leave_networks_out(finished, data, tmp_path):
    sizes = sorted(each["parameters"] for each in finished[1]["candidates"])
    content = search(data, tmp_path, limit=f"params={sizes[3]}")
    assert content["outcomes"] == {"scored": 4, "over the limits": 4}
    assert max(each["parameters"] for each in content["best"]) == sizes[3]
    assert "over the limit" in content["reasons"]["over the limits"]


def test_parameters_need_no_teacher(data, tmp_path):
    content = search(data, tmp_path, teacher=None, score="parameters", best=3)
    largest = sorted((each["parameters"] for each in content["candidates"]), reverse=True)
    assert [each["score"] for each in content["best"]] == largest[:3]
    assert content["agreement"] == pytest.approx(1)


def test_a_trained_teacher_keeps_its_weights_only_where_that_is_asked_for(data, tmp_path):
    teacher = tutelage.load_network(TEACHER, num_classes=10, in_channels=1)
    options = {"candidates": 1, "teacher": teacher}
    fresh = search(data, tmp_path / "fresh", **options)
    kept = search(data, tmp_path / "kept", score="diswot:trained_teacher=true", **options)
    assert fresh["best"][0]["network"] == kept["best"][0]["network"]
    assert fresh["best"][0]["score"] != kept["best"][0]["score"]
    nn.init.zeros_(teacher.model.classifier.bias)
    # Other weights are another teacher, but only to a score that reads them.
    assert search(data, tmp_path / "fresh", **options)
    with pytest.raises(UserError, match="another search: teacher was"):
        search(data, tmp_path / "kept", score="diswot:trained_teacher=true", **options)


def test_time_is_foretold(data, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(Silent, "note", lambda self, text, once=False: notes.append(str(text)))
    search(data, tmp_path)
    assert len(notes) == 1
    assert "s for a network, about 0 s for 3 more" in notes[0]


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (SPACE, {"limit": "params=100"}, r"8 were examined.*at most 100 parameters.*smallest, resnet"),
        ("resnet20,depth=9|10|11", {}, r"3 do not build, such as resnet20,depth=9: .*6n\+2"),
        (SPACE, {"teacher": "resnet_by_stage,width=4"}, "8 inputs and the teacher's has 16.*variant=paper"),
        (SPACE, {"teacher": None}, "compares networks with a teacher: name one"),
        (SPACE, {"teacher": "resnet21"}, "no network named 'resnet21'"),
        (SPACE, {"teacher": ["resnet8", "resnet8"]}, "one teacher"),
        (SPACE, {"teacher": tutelage.UniformTeacher(10)}, "one teacher"),
        (SPACE, {"score": "diswot:trained_teacher=true"}, "comes without"),
        (SPACE, {"score": "disswot"}, "Did you mean 'diswot'"),
        (SPACE, {"candidats": 3}, "Did you mean 'candidates'"),
        (SPACE, {"candidates": 0}, "candidates=0 must be 1 or more"),
        (SPACE, {"workers": -1}, "workers=-1 must be zero or above"),
        (SPACE, {"batch_size": 1}, "give 2 or more"),
        (SPACE, {"task": "unlabelled", "score": "diswot:relation=0"}, "it needs .*one class for each whole sample"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_told_and_leaves_nothing(data, tmp_path, space, settings, message):
    chosen = "digits" if "task" in settings else data
    with pytest.raises(UserError, match=message) as caught:
        search(chosen, tmp_path / "search", space, **settings)
    assert not (tmp_path / "search").exists()
    assert len(str(caught.value)) < 1000


def test_another_search_is_not_overwritten(finished, data):
    before = (finished[0] / "candidates.jsonl").read_text()
    with pytest.raises(UserError, match="holds another search: seed was 0 and is 1"):
        search(data, finished[0], seed=1)
    assert (finished[0] / "candidates.jsonl").read_text() == before
