"""Names of splits: which split a folder or table means by `train`, `val`, `test_set`, `seg_train`."""

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
# Words without meaning that people write beside the split: training_set, TestImages.
_PLAIN = frozenset({"set", "data", "dataset", "split", "image", "images", "img", "imgs", "dir", "folder"})
_GLUED = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})({'|'.join(sorted(_PLAIN, reverse=True))})")
_NEAR = 0.75
# Of MNLI: texts of the kinds that training has, and of others.
_USUAL, _OTHER = "matched", "mismatched"
TWINS = (f"{VALIDATION}-{_OTHER}", f"{TEST}-{_OTHER}")
"""Further splits, which are only reported on."""


@dataclass(frozen=True)
class SplitName:
    """A name that means a split.

    Attributes:
        name: The name, as written.
        split: `train`, `validation` or `test`.
        rest: Its other words: `("seg",)` for `seg_train`; empty for `train` and `training_set`.
    """

    name: str
    split: str
    rest: tuple[str, ...]

    @property
    def is_usual(self) -> bool:
        """Whether the name is a plain and clear word for a split, so that no notice is needed."""
        return self.name.lower() in _WORDS and self.name.lower() not in _UNCLEAR


def read_name(name: str) -> SplitName | None:
    """Return the split that a name means; None if it means no split, or two.

    Args:
        name: The name of a folder or a table.
    """
    # TestImages is two words.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [part for word in re.findall(r"[^\W\d_]+", spaced) for part in _unglued(word)]
    found = [word for word in words if word in _WORDS]
    if len(found) != 1:
        return None
    rest = tuple(word for word in words if word not in _WORDS and word not in _PLAIN)
    return SplitName(name, _WORDS[found[0]], rest)


def read_names(names: Iterable[str], what: str) -> dict[str, str]:
    """Return the names that mean splits, by split. A notice lists unusual names and how they are read.

    The other words must be the same in all names, as in `seg_train` and `seg_test`. A single name with other words is
    not read as a split.

    Args:
        names: Names of folders or tables.
        what: The folder or dataset that holds them, for messages.

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


def twin_of(name: str) -> str | None:
    """Return `matched` or `mismatched` for the name of a split that comes in both kinds, such as MNLI's; else None.

    Args:
        name: The name of a table or a file, such as `validation_matched`.
    """
    found = read_name(name)
    kinds = [] if found is None or found.split == TRAIN else [rest for rest in found.rest if rest in (_USUAL, _OTHER)]
    return kinds[0] if len(kinds) == 1 else None


def with_twins(names: Iterable[str]) -> dict[str, str]:
    """Return names of tables by what they are read as: of two kinds of a split, the matched one is the split itself.

    Args:
        names: The names, such as `train`, `validation_matched`, `validation_mismatched`.

    Returns:
        The same names by `train`, `validation`, `validation-mismatched`; a name that has no twin is its own.
    """
    given = list(names)
    kinds = {name: (read.split, twin_of(name)) for name in given if (read := read_name(name)) is not None}
    found = {}
    for name in given:
        split, kind = kinds.get(name, ("", None))
        both = {(split, _USUAL), (split, _OTHER)} <= set(kinds.values()) and (split, None) not in kinds.values()
        found[name if kind is None or not both else split if kind == _USUAL else f"{split}-{kind}"] = name
    return found


def misspelt(names: Iterable[str]) -> Sequence[str]:
    """Return the names that are close to a split's word without being one, such as `trian`."""
    return [name for name in names if name.lower() not in _WORDS and _is_near(name.lower())]


def _is_near(name: str) -> bool:
    swapped = any(sorted(name) == sorted(word) for word in _WORDS)
    return swapped or bool(get_close_matches(name, _WORDS, n=1, cutoff=_NEAR))


def _unglued(word: str) -> Sequence[str]:
    glued = _GLUED.fullmatch(word)
    return [word] if glued is None else glued.groups()
