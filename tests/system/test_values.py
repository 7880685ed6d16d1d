"""Values are held against what a signature takes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import pytest

from tutelage.errors import UserError
from tutelage.system.values import Count, Positive, Share, check, check_all

FIT = [
    (Count, [1, 10**9], [0, -3, 1.0, "x", True, None], "a whole number of 1 or more"),
    (Positive, [1, 0.1, 1e-9], [0, -0.1, float("nan"), float("inf"), "x", True], "a number above 0"),
    (Share, [0, 0.0, 0.99], [1, -0.1, "x"], "a number from 0 to below 1"),
    (int, [0, -1], [1.5, "1", False], "a whole number"),
    (bool, [True], [1, "true"], "true or false"),
    (str, ["x", ""], [1, None], "text"),
    (int | None, [None, 3], ["x", 1.5], "a whole number or none"),
    (Literal["a", "b"], ["a"], ["c", 1], "one of a, b"),
    (Sequence[Count], [(1, 2), [3]], [(0,), 3, "12", (1, "x")], "a list in brackets, each item a whole number of 1 or"),
    (tuple[int, float], [(1, 2), [1, 0.5]], [(1,), (1, 2, 3), (0.5, 1)], r"\(a whole number, a number\)"),
    (tuple[Literal["map"], int], [("map", 1)], [("x", 1)], r"\(one of map, a whole number\)"),
    (list[Any], [[], [1, "x"]], [3], "a list in brackets"),
]


@pytest.mark.parametrize(("kind", "good", "bad", "words"), FIT, ids=lambda value: str(value)[:20])
def test_kinds_and_ranges(kind, good, bad, words):
    for value in good:
        check("it", value, kind, of="The thing")
    for value in bad:
        with pytest.raises(UserError, match=f"The thing takes it as {words}.*, not "):
            check("it", value, kind, of="The thing")


@pytest.mark.parametrize("kind", [Any, object, Callable[[int], int], "anything"])
def test_what_says_nothing_plain_takes_everything(kind):
    for value in (3, "x", None, [1]):
        check("it", value, kind, of="The thing")


class Thing:
    def __init__(self, width: Count = 3, free=None):
        pass


def function(width: Count = 3, *, free=None):
    pass


def unreadable(width: "NoSuchType" = 3):  # noqa: F821
    pass


@pytest.mark.parametrize("of", [Thing, function, partial(function, width=4), partial(partial(function), free=1)])
def test_signatures_of_all_kinds_are_read(of):
    check_all({"width": 3, "free": "x", "absent": 3}, of, of="it")
    with pytest.raises(UserError, match="it takes width as a whole number of 1 or more, not -3"):
        check_all({"width": -3}, of, of="it")


def test_annotations_that_cannot_be_read_are_passed_over():
    check_all({"width": "x"}, unreadable, of="it")
    check_all({"width": "x"}, max, of="it")
