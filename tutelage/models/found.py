"""Networks that a search has found, by name: `found:FOLDER` is the best one, `found:FOLDER,rank=2` the second best."""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.errors import UserError

PREFIX = "found:"
RESULT = "search.json"


def found_network(folder: str, rank: object = None) -> tuple[str, Path]:
    """Return the spec of a network that a search has found, and the file that names it.

    Args:
        folder: The folder of the search.
        rank: Its place among the best, counted from 1; None for the best.

    Raises:
        UserError: If no finished search is there, or it has no network of this rank.
    """
    file = Path(folder).expanduser() / RESULT
    if not file.is_file():
        raise UserError(
            f"There is no finished search in {folder!r}: {RESULT} is missing. Name the folder that `tutelage search` "
            "wrote (--out); if it was interrupted, run the same command again, and it goes on."
        )
    try:
        best = [str(each["network"]) for each in json.loads(file.read_text(encoding="utf-8"))["best"]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is damaged ({error}). Run the search again: what was scored is kept, so this takes seconds."
        ) from error
    place = 1 if rank is None else rank
    if type(place) is not int or not 1 <= place <= len(best):
        raise UserError(f"rank={rank}: the search in {folder!r} kept the best {len(best)}, so give 1 to {len(best)}.")
    return best[place - 1], file
