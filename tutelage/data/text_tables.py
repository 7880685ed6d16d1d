"""Tables of texts: finding their columns, and reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.data.texts import RawTexts
from tutelage.errors import UserError, notice, unknown

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

_MOST = 2


def is_text(feature: Any) -> bool:
    """Return whether the cells of a column are text."""
    return getattr(feature, "dtype", None) in ("string", "large_string")


def text_columns(features: Mapping[str, Any], named: str | None, *, label: str | None, spec: str) -> tuple[str, ...]:
    """Return the one or two columns of texts; empty if the table has none.

    Args:
        features: The columns and their types.
        named: The columns that the user named, joined by `+`; None to find them.
        label: The label column, whose words are no text.
        spec: The user's text for the data, for messages.

    Raises:
        UserError: If a named column does not exist or holds no text, or more than two could be meant.
    """
    found = [name for name, feature in features.items() if is_text(feature) and name != label]
    if named is None:
        if len(found) > _MOST:
            raise UserError(
                f"{spec} has the text columns {', '.join(found)}: name the one or two to read, as in "
                f"'{spec},text={found[0]}' or '{spec},text={found[0]}+{found[1]}'."
            )
        return tuple(found)
    columns = tuple(name.strip() for name in named.split("+"))
    for name in columns:
        if name not in features:
            raise unknown("text column", name, features)
        if not is_text(features[name]):
            raise UserError(f"The column {name!r} of {spec} holds no text: name a column of texts with ,text=NAME.")
    if len(columns) > _MOST or len(set(columns)) < len(columns):
        raise UserError(f"text={named} names {len(columns)} columns: a sample has one text, or two different ones.")
    return columns


def read_texts(
    splits: Mapping[str, datasets.Dataset],
    columns: Sequence[str],
    targets: Mapping[str, Tensor | None],
    *,
    limit: int | None,
    spec: str,
) -> dict[str, RawTexts]:
    """Return the texts of the splits that are asked for.

    Args:
        splits: The tables by split.
        columns: One or two text columns.
        targets: The targets of each split to read; None for a split without.
        limit: The most tokens of a sample; None for as many as the network takes.
        spec: The user's text for the data, for messages.
    """
    found = {}
    for name, labels in targets.items():
        # A cell of CSV that is empty is read as None.
        table = splits[name].select_columns(list(columns))[:]
        texts = [["" if text is None else text for text in table[column]] for column in columns]
        if empty := sum(not "".join(row).strip() for row in zip(*texts, strict=True)):
            notice(f"{empty} texts of the split {name!r} of {spec} are empty: check them, or remove their rows.")
        found[name] = RawTexts(texts, labels, limit=limit)
    return found
