"""Reading the user's text for data: a place, and columns."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tutelage.data.glue import GLUE_PREFIX, on_hub
from tutelage.errors import UserError, notice, unknown
from tutelage.system.grammar import read

DIGITS = "digits"
# Short names, and their names on the hub.
HUB: Mapping[str, str] = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
}
NAMES = (DIGITS, *HUB)
_COLUMNS = ("label", "image", "text")
_OPTIONS = (*_COLUMNS, "tokens", "blocks", "ignore", "classes", "scale")
_PREFIX = "hf:"


@dataclass(frozen=True)
class Spec:
    """The data that the user asked for.

    Attributes:
        text: The user's text.
        name: The data's name in reports.
        path: The local file or folder, or None.
        hub: The name on the Hugging Face hub, with `:CONFIGURATION` if it has several; or None.
        label: The label column, or None to find it.
        image: The image column, or None to find it.
        ignore: The numbers of masks that are no class, such as `255` or `0+255`, or None to find them; of depth maps,
            those that are no depth.
        classes: The file of the masks' class names, or None to look beside the data.
        scale: What a 1 in depth maps is in metres, such as `0.001` or `1/256`, or None for what is usual.
        text_column: The one or two text columns, joined by `+`, or None to find them.
        tokens: The most tokens of a text, or None for as many as the network takes.
        blocks: The length in tokens of the blocks into which texts are cut, or None to keep each by itself.
    """

    text: str
    name: str
    path: Path | None = None
    hub: str | None = None
    label: str | None = None
    image: str | None = None
    ignore: str | None = None
    classes: str | None = None
    scale: str | None = None
    text_column: str | None = None
    tokens: int | None = None
    blocks: int | None = None

    @property
    def folder(self) -> str:
        """The name of the local file or folder, or else that on the hub; empty if there is neither."""
        return self.path.resolve().name if self.path is not None else self.hub or ""


def parse_spec(text: str) -> Spec:
    """Read a place with columns after commas, as in `data/cifar100,label=coarse_label,image=img`.

    Raises:
        UserError: If an option is wrong, or there is no such place.
    """
    written = read(text, kind="data", is_place=True, value="COLUMN")
    place, given = written.name, written.options
    for key, value in given.items():
        if key not in _OPTIONS:
            raise unknown("data option", key, _OPTIONS)
        if not value:
            what = "column: write {}=COLUMN" if key in _COLUMNS else "value: write {}=VALUE"
            raise UserError(f"The data option {key!r} has no {what.format(key)}.")
    options: dict[str, Any] = {key: given.get(key) for key in _OPTIONS}
    options |= {"text_column": options.pop("text")}
    options |= {name: _tokens(name, given.get(name)) for name in ("tokens", "blocks")}
    if not place:
        raise UserError(f"The data have no name: give a folder, or one of {', '.join(NAMES)}.")
    if place in NAMES and Path(place).is_dir():
        notice(f"{place} means the dataset of that name. For the folder of that name here, write ./{place}.")
    if place == DIGITS:
        if given:
            raise UserError(f"digits have no columns: leave out {', '.join(given)}.")
        return Spec(text, DIGITS)
    if place in HUB or place.startswith(_PREFIX):
        hub = HUB.get(place, place.removeprefix(_PREFIX))
        return Spec(text, _name(hub.rpartition(":")[2]), hub=hub, **options)
    path = Path(place).expanduser()
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises for texts that are too long for a path.
        return Spec(text, _name(path.resolve().name), path=path, **options)
    if place.startswith(GLUE_PREFIX):
        return Spec(text, _name(place), hub=on_hub(place), **options)
    owner, slash, _ = place.partition("/")
    # If its first folder exists, it is a misspelt path rather than a name on the hub.
    if slash and re.fullmatch(r"[\w.-]+/[\w.-]+", place) and owner not in (".", "..") and not Path(owner).exists():
        return Spec(text, _name(place), hub=place, **options)
    raise _no_such_place(place, path)


def _tokens(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}={text} is no number of tokens: write a whole number above zero, such as {name}=128.")
    return int(text)


def _name(place: str) -> str:
    return place.rpartition("/")[2].removesuffix(".parquet").replace("_", "-").lower()


def _no_such_place(place: str, path: Path) -> UserError:
    folder = path.parent
    siblings = {str(folder / child.name): child.name for child in folder.iterdir()} if folder.is_dir() else {}
    near = [found for found, name in siblings.items() if name in get_close_matches(path.name, siblings.values(), n=3)]
    near = get_close_matches(place, NAMES, n=1) + near
    if near:
        hint = f"Did you mean {' or '.join(map(repr, near))}?"
    elif not folder.is_dir():
        hint = f"There is no folder {str(folder)!r} either: check the path."
    else:
        hint = f"Give a folder of images by class, a folder of Parquet, owner/name on the hub, or {', '.join(NAMES)}."
    return UserError(f"There are no data at {place!r}. {hint}")
