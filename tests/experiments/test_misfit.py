"""Values that do not fit, in words."""

import pytest

from tutelage.experiments.misfit import Misfit, misfit, missing


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Parser key \"epochs\":\n  Expected a <class 'int'>. Got value: two",
            Misfit("epochs", "two", "a whole number"),
        ),
        (
            "Parser key \"variant\":\n  Expected a typing.Literal['paper', 'code']. Got value: 3",
            Misfit("variant", "3", "one of paper, code"),
        ),
        (
            'Parser key "subset":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
            "[<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n    - Expected a "
            "<class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: x",
            Misfit("subset", "x", "a whole number or none"),
        ),
        # Older versions have the two kinds in the order of their names.
        (
            'Parser key "subset":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
            "[<class 'NoneType'>, <class 'int'>]\n  Errors:\n    - Expected a <class 'NoneType'>\n    - Expected a "
            "<class 'int'>\n  Given value type: <class 'str'>\n  Given value: x",
            Misfit("subset", "x", "a whole number or none"),
        ),
        ("Unrecognized arguments: --x", None),
    ],
)
def test_messages_of_the_parser_are_read(message, expected):
    assert misfit(message) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the following arguments are required: student, data", ["student", "data"]),
        ("the following arguments are required: student", ["student"]),
        ("Option 'student' is required but not provided or its value is None.", ["student"]),
        ('Validation failed: Key "data" is required but not included in config object or its value is None.', ["data"]),
        ("Validation failed: something else.", []),
    ],
)
def test_what_is_missing_is_read_of_every_version(message, expected):
    assert missing(message) == expected
