"""The benchmark of a step's parts: each moment counts for one of them."""

from dataclasses import replace
from types import SimpleNamespace

import profile_step
import pytest


def event(name, start, end, own=0):
    """An event as the profiler has it, in microseconds."""
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end), self_cpu_time_total=own)


def test_what_lies_within_another_part_counts_once():
    events = [
        event("part: data", 1000, 2000),
        event("part: loss", 2000, 9000),
        event("part: teacher", 2000, 5000),
        event("part: student", 3000, 4000),  # The teacher's network, which is an extractor, too.
        event("part: student", 5000, 8000),
        event("part: backward", 9000, 15_000),
        event("part: optimizer", 16_000, 18_000),
        event("conv", 3000, 4000, own=800),
        event("conv", 5000, 7000, own=1200),
        event("copy", 18_000, 21_000, own=3000),
    ]
    found = profile_step.parts_of(events, 2)
    expected = {"data": 1, "teacher": 3, "student": 3, "loss": 1, "backward": 6, "optimizer": 2, "driver": 4}
    assert {name: 2 * part["ms"] for name, part in found["parts"].items()} == pytest.approx(expected)
    assert found["ms_per_step"] == 10
    assert found["parts"]["driver"]["share"] == pytest.approx(0.2)
    assert [(one["name"], one["ms"]) for one in found["operators"]] == [("copy", 1.5), ("conv", 1.0)]


@pytest.mark.parametrize("kind", ["live", "recorded"])
def test_every_part_of_a_training_is_seen(kind, tiny, recording):
    found = profile_step.watch(replace(tiny, recording=recording), kind, warm_up=1, steps=3)
    parts = found["parts"]
    assert set(parts) == {*profile_step.PARTS, "driver"}
    # Of the driver, what is left: less than nothing if a moment counted twice.
    assert all(part["ms"] > 0 for part in parts.values())
    text = profile_step.table({"machine": {"summary": "here"}, "profiles": {kind: found}})
    assert f"| {kind}: part | ms a step | Share |" in text
    if kind == "recorded":
        assert parts["teacher"]["ms"] < parts["student"]["ms"]
