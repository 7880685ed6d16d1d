"""Tests of `tutelage.system.signatures`."""

import inspect

from tutelage.system.signatures import same_arguments


def _all(first: int, /, *, second: str = "two") -> list[str]:
    return [str(first), second]


@same_arguments(_all)
def _last(*args: object, **arguments: object) -> str:
    """Return the last."""
    return _all(*args, **arguments)[-1]


def test_the_arguments_are_those_of_the_source_and_the_rest_is_the_functions_own() -> None:
    shown = inspect.signature(_last)
    assert list(shown.parameters.values()) == list(inspect.signature(_all).parameters.values())
    assert shown.return_annotation in (str, "str")
    assert _last.__name__ == "_last"
    assert _last.__doc__ == "Return the last."


def test_arguments_reach_the_source() -> None:
    assert _last(1, second="three") == "three"
    assert _last(1) == "two"
