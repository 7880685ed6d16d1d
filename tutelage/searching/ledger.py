"""What a search has found so far, on disk: one line for each candidate, written as soon as it is examined.

A search that goes on asks for the same candidates again, and finds them here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.searching.examining import Result

NAME = "candidates.jsonl"


class Ledger:
    """The results of a search by the specs of the candidates.

    Args:
        folder: The folder of the search. It is made when the first result is written.
        facts: What the results depend on, as JSON holds it.

    Raises:
        UserError: If the folder holds a search of other facts, or a file that is none of a search.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._file = folder / NAME
        self._facts = dict(facts)
        self._found: dict[str, Result] = {}
        if self._file.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, network: str) -> Result | None:
        """Return the result of a candidate; None if it was not examined yet."""
        return self._found.get(network)

    def add(self, result: Result) -> None:
        """Keep a result, on disk too."""
        self._found[result.network] = result
        lines = [asdict(result)] if self._file.exists() else [self._facts, asdict(result)]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            raise UserError(
                f"{self._file} could not be written: {error.strerror or error}. Free some space or choose another "
                "folder with --out; what was scored before is kept."
            ) from error

    def _read(self) -> None:
        content = self._file.read_bytes()
        # A process that was killed may have left half a line, which goes: the next one begins where it began.
        whole = content[: content.rfind(b"\n") + 1]
        try:
            facts, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
            found = [Result(**line) for line in lines]
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._file} is damaged ({error}): delete it, and the search starts afresh.") from error
        if facts is not None:
            self._check(facts)
        if len(whole) < len(content):
            with self._file.open("r+b") as file:
                file.truncate(len(whole))
        if facts is None:
            self._file.unlink()
        self._found = {result.network: result for result in found}

    def _check(self, facts: Any) -> None:
        if not isinstance(facts, dict):
            raise UserError(f"{self._file} is not of a search: choose another folder with --out.")
        differing = [key for key in {**self._facts, **facts} if facts.get(key) != self._facts.get(key)]
        if differing:
            each = [f"{key} was {facts.get(key)!r} and is {self._facts.get(key)!r}" for key in differing]
            raise UserError(
                f"{self._file.parent} holds another search: {'; '.join(each)}. Choose another folder with --out, or "
                "delete this one. (More --candidates go on with the same search.)"
            )
