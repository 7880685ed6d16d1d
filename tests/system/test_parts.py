"""Shares of work are read from a text."""

import pytest

from tutelage.errors import UserError
from tutelage.system.parts import Part


@pytest.mark.parametrize(("text", "expected"), [(None, Part(1, 1)), ("1/1", Part(1, 1)), ("3/4", Part(3, 4))])
def test_parts_are_read(text, expected):
    assert Part.parse(text) == expected


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/2", ""])
def test_what_is_no_part_is_told(text):
    with pytest.raises(UserError, match="does not fit: write 1/4, 2/4"):
        Part.parse(text)
