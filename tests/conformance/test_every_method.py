"""Every registered method meets every check, or says in its registration why it cannot."""

import pytest

from tutelage.core.registry import Entry
from tutelage.experiments import catalogue
from tutelage.recording.reading import Recording
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.conformance import CHECKS, options_are_its_own
from tutelage.testing.toys import LAYERS, met, toy_experiment, toy_recording


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", catalogue.names())
def test_conformance(method, check):
    entry = catalogue.get(method)
    if check in entry.exceptions:
        with pytest.raises(AssertionError):
            CHECKS[check](entry)
    else:
        CHECKS[check](entry)


@pytest.mark.parametrize("method", catalogue.names())
def test_exceptions_name_checks(method):
    assert set(catalogue.get(method).exceptions) <= set(CHECKS)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda student, *, momentum=0.5: None, "momentum"),
        (lambda run, student, *, seed=1, temperature=4.0, augment="flip": None, "augment, seed"),
    ],
)
def test_options_that_are_settings_too_are_found(build, found):
    with pytest.raises(AssertionError, match=f"its {found} would be taken"):
        options_are_its_own(Entry(name="mine", build=build, papers=()))


# Whoever is here learns from a recording. What a new method refuses it says itself, and need not be here.
ANSWERS_ARE_ENOUGH = [
    "dkd",
    "ferkd",
    "fkd",
    "kd",
    "kd-shuffled-teacher",
    "messy-collaboration",
    "soft-randomization",
]
LAYERS_ARE_ENOUGH = ["at", "crd", "fitnet", "semckd", "sp", "vid"]


@pytest.mark.parametrize("method", ANSWERS_ARE_ENOUGH)
def test_recorded_answers_are_enough(method):
    met(catalogue.get(method), toy_experiment(teacher=RecordedTeacher(toy_recording("top2"))))


@pytest.mark.parametrize("method", LAYERS_ARE_ENOUGH)
def test_recorded_layers_are_enough(method):
    met(catalogue.get(method), toy_experiment(teacher=RecordedTeacher(toy_recording("full", layers=LAYERS))))


@pytest.mark.parametrize(("method", "keep"), [("kd", "full"), ("kd", "top2"), ("kd", "hard"), ("at", "full")])
def test_answers_of_another_sample_are_found(method, keep, monkeypatch):
    check = CHECKS["accepts-other-teachers"]
    check(catalogue.get(method))
    read = Recording.read

    def misread(self, indices, views):
        others = (indices + 1) % self.header.samples if self.header.keep == keep else indices
        return read(self, indices, views)[0], read(self, others, views)[1]

    monkeypatch.setattr(Recording, "read", misread)
    with pytest.raises(AssertionError, match=rf"replayed \({keep}\)"):
        check(catalogue.get(method))


def test_fixtures_are_no_options():
    options_are_its_own(Entry(name="mine", build=lambda student, teacher, batch_size, *, alpha=0.5: None, papers=()))
