"""The benchmark of cost: ratios to kd, and the size of recordings."""

import cost
import pytest


def test_costs_are_ratios_to_kd_in_the_same_rounds():
    def job(seconds, memory):
        turns = [{"seconds": second} for second in seconds]
        return {"turns": turns, "needs": {"total": memory}, "stages": ["hints", "distill"], "teachers": 1, "notes": []}

    found = cost._relative(job([0.2, 0.6, 0.9], 30), job([0.1, 0.2, 0.6], 20))
    assert (found["time_to_kd"], found["least"], found["most"]) == pytest.approx((2, 1.5, 3))
    assert found["memory_to_kd"] == 1.5
    two = found | {"stages": ["distill"], "teachers": 2}
    shown = {"at": found, "end": two, "no": {"error": "why|so"}}
    lines = cost.table({"machine": {"summary": "here"}, "methods": shown}).splitlines()
    assert lines[-3] == "| `at` | 2.00 | 1.50 to 3.00 | 1.50 | distill, after hints |"
    assert lines[-2] == "| `end` | 2.00 | 1.50 to 3.00 | 1.50 | distill; two teachers |"
    assert lines[-1] == "| `no` | n/a | – | – | why/so |"


def test_every_group_has_its_own_reference(monkeypatch, tiny):
    groups = []

    def rounds(jobs, **turns):
        groups.append(list(jobs))
        # The machine is slower each time, and so is kd.
        one = {"needs": {"total": 1}, "stages": ["distill"], "teachers": 1, "notes": []}
        return {name: one | {"turns": [{"seconds": len(groups) * (1 + (name != "kd"))}]} for name in jobs}

    monkeypatch.setattr(cost, "take_rounds", rounds)
    found = cost.methods(tiny, ["at", "kd", "crd", "sp"], 3, {"rounds": 1, "steps": 1, "lead": 1})
    assert groups == [["kd", "at", "crd"], ["kd", "sp"]]
    assert {name: row["time_to_kd"] for name, row in found.items()} == {"kd": 1, "at": 2, "crd": 2, "sp": 2}


def test_growth_is_told_for_a_step_and_for_an_image(monkeypatch, tiny):
    def rounds(jobs, **turns):
        one = {"turns": [{"seconds": 0.2}], "needs": {"total": 3_000_000}}
        return {name: {"error": "too large"} if setting.batch == 512 else one for name, (_, setting) in jobs.items()}

    monkeypatch.setattr(cost, "take_rounds", rounds)
    found = cost.growth(tiny, ["batch"], {"rounds": 1, "steps": 1, "lead": 1})
    lines = cost.table({"machine": {"summary": "here"}, "growth": found}).splitlines()
    assert lines[-5] == "| batch 32 | 200.0 | 6250 | 3.0 |"
    assert lines[-1] == "| batch 512 | too large | – | – |"


def test_recordings_grow_with_what_is_kept(monkeypatch):
    monkeypatch.setattr(cost, "GROWTH", {"classes": (10,)})
    monkeypatch.setattr(cost, "_ROWS", 64)
    rows = {row["keep"]: row for row in cost.recordings(8)}
    # Three numbers of a view; a class in two bytes; five of them with probabilities; ten logits.
    assert {keep: row["row_bytes"] for keep, row in rows.items()} == {"hard": 14, "top5": 42, "full": 52}
    assert rows["full"]["bytes_of_50000"] == 50_000 * 52
