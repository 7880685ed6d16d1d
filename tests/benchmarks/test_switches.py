"""The benchmark of switches: each against all of them."""

from dataclasses import replace

import pytest
import switches


def test_a_switch_is_held_against_all_of_them_within_each_round(monkeypatch, tiny):
    seen = {}

    def rounds(jobs, **turns):
        seen.update(jobs)
        times = {name: [0.1, 0.2] if name == switches.ALL else [0.2, 0.3] for name in jobs}
        return {
            name: {"turns": [{"seconds": each, "memory": 2_000_000} for each in times[name]], "notes": []}
            for name in jobs
        }

    monkeypatch.setattr(switches, "take_rounds", rounds)
    found = switches.measure(tiny, {"rounds": 2, "steps": 1, "lead": 1})
    assert found["without bf16"]["time_to_all"] == pytest.approx(1.75)
    assert seen["without bf16"] == ("live", replace(seen[switches.ALL][1], precision="32-true"))
    assert {setting.compile for _, setting in seen.values()} == {"on", "off"}
    text = switches.table({"machine": {"summary": "here"}, "switches": found})
    assert "| without bf16 | 250.0 | 1.75 | 1.50 to 2.00 | 2 |" in text
