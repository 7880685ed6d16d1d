"""Every registered method meets every check, or says in its registration why it cannot."""

import pytest

from tutelage import registry
from tutelage.recording.reading import Recording
from tutelage.registry import Entry
from tutelage.testing import CHECKS, options_are_its_own


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", registry.names())
def test_conformance(method, check):
    entry = registry.get(method)
    if check in entry.exceptions:
        with pytest.raises(AssertionError):
            CHECKS[check](entry)
    else:
        CHECKS[check](entry)


@pytest.mark.parametrize("method", registry.names())
def test_exceptions_name_checks(method):
    assert set(registry.get(method).exceptions) <= set(CHECKS)


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


@pytest.mark.parametrize("method", ["kd", "at"])
def test_answers_of_another_sample_are_found(method, monkeypatch):
    check = CHECKS["accepts-other-teachers"]
    check(registry.get(method))
    read = Recording.read

    def misread(self, indices, views):
        return read(self, indices, views)[0], read(self, (indices + 1) % self.header.samples, views)[1]

    monkeypatch.setattr(Recording, "read", misread)
    with pytest.raises(AssertionError, match="replayed"):
        check(registry.get(method))


def test_fixtures_are_no_options():
    options_are_its_own(Entry(name="mine", build=lambda student, teacher, batch_size, *, alpha=0.5: None, papers=()))
