"""Which split a folder or a table means by its name: `train`, `val`, `test_set`, `seg_train`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tutelage.errors import UserError, notice

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# As on the Hugging Face hub, where `eval` is a test split.
_WORDS: Mapping[str, str] = (
    dict.fromkeys(("train", "training"), TRAIN)
    | dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION)
    | dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST)
)
_UNCLEAR = ("eval", "evaluation")
# What people write beside such a word, and which means nothing: training_set, TestImages, val2017.
_PLAIN = frozenset({"set", "data", "dataset", "split", "image", "images", "img", "imgs", "dir", "folder"})
_GLUED = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})({'|'.join(sorted(_PLAIN, reverse=True))})")
_NEAR = 0.75


@dataclass(frozen=True)
class SplitName:
    """What a name says of a split.

    Attributes:
        name: As it is written.
        split: `train`, `validation` or `test`.
        rest: The words beside that one: `("seg",)` of `seg_train`; none of `train` and `training_set`.
    """

    name: str
    split: str
    rest: tuple[str, ...]

    @property
    def is_usual(self) -> bool:
        """Whether the name is the word of a split and no more, so that nothing need be said."""
        return self.name.lower() in _WORDS and self.name.lower() not in _UNCLEAR


def read_name(name: str) -> SplitName | None:
    """Return what a name says of a split; None if it says nothing, or of two.

    Args:
        name: Of a folder or a table.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [part for word in re.findall(r"[^\W\d_]+", spaced) for part in _unglued(word)]
    found = [word for word in words if word in _WORDS]
    if len(found) != 1:
        return None
    rest = tuple(word for word in words if word not in _WORDS and word not in _PLAIN)
    return SplitName(name, _WORDS[found[0]], rest)


def read_names(names: Iterable[str], what: str) -> dict[str, str]:
    """Return the names that mean splits, by split; names that are not usual are told.

    Words beside that of the split must be the same in all: `seg_train` and `seg_test`. A name with such words means
    nothing on its own.

    Args:
        names: Of folders or tables.
        what: Whose they are, for messages.

    Raises:
        UserError: If two names mean the same split.
    """
    read = [found for found in map(read_name, names) if found is not None]
    plain = [found for found in read if not found.rest]
    chosen = plain or (read if len({found.rest for found in read}) == 1 and len(read) > 1 else [])
    by_split: dict[str, SplitName] = {}
    for found in chosen:
        if found.split in by_split:
            raise UserError(
                f"{what} has {by_split[found.split].name} and {found.name}, which both mean the {found.split} split: "
                "rename one, or move it away."
            )
        by_split[found.split] = found
    if TRAIN in by_split and (told := [found for found in by_split.values() if not found.is_usual]):
        notice(f"{what}: " + ", ".join(f"{found.name} is read as the {found.split} split" for found in told) + ".")
    return {split: found.name for split, found in by_split.items()}


def misspelt(names: Iterable[str]) -> Sequence[str]:
    """Return the names that are nearly the word of a split, such as `trian`."""
    return [name for name in names if name.lower() not in _WORDS and _is_near(name.lower())]


def _is_near(name: str) -> bool:
    swapped = any(sorted(name) == sorted(word) for word in _WORDS)
    return swapped or bool(get_close_matches(name, _WORDS, n=1, cutoff=_NEAR))


def _unglued(word: str) -> Sequence[str]:
    glued = _GLUED.fullmatch(word)
    return [word] if glued is None else glued.groups()
