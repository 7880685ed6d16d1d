"""Answers that cost something, on disk: each is kept once, and survives whatever happens to the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, logits BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# Some versions of SQLite take no more values in one statement.
_AT_ONCE = 500
# Seconds that a process waits for another one that writes.
_PATIENCE = 120.0


@dataclass
class AnswerStore:
    """A file of answers by key, which any number of processes share. SQLite writes all of a change or nothing.

    Attributes:
        file: The file; it is made when it is first needed.
    """

    file: Path
    _opened: sqlite3.Connection | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # A connection belongs to one process.
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        with self._file() as file:
            return int(file.execute("SELECT count(*) FROM answers").fetchone()[0])

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Return the answers that are there, by key: logits `[class]`, float32."""
        found: dict[bytes, Tensor] = {}
        with self._file() as file:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT key, logits FROM answers WHERE key IN ({marks})", some)
                # Copied, because the bytes of a row cannot be written to.
                found |= {key: torch.from_numpy(np.frombuffer(row, "<f4").copy()) for key, row in rows}
        return found

    def keep(self, answers: Mapping[bytes, Tensor]) -> None:
        """Store answers by key. What is there already stays."""
        rows = [(key, logits.float().cpu().numpy().astype("<f4").tobytes()) for key, logits in answers.items()]
        with self._change() as file:
            file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    @property
    def spent(self) -> int:
        """The number of samples that were sent, over all processes and times."""
        return int(self.fact("spent") or 0)

    def spend(self, samples: int, most: int | None = None) -> None:
        """Count samples as sent, before they are.

        Args:
            samples: How many.
            most: The budget; None for no limit.

        Raises:
            UserError: If that would exceed the budget. Nothing is counted then.
        """
        # Read and written as one, so that two processes cannot both take the last of the budget.
        with self._change() as file:
            row = file.execute("SELECT value FROM facts WHERE name = 'spent'").fetchone()
            spent = int(row[0]) if row else 0
            check_budget(samples, spent, most)
            file.execute("INSERT OR REPLACE INTO facts VALUES ('spent', ?)", (str(spent + samples),))

    def refund(self, samples: int) -> None:
        """Take back samples that were counted and, for certain, not answered."""
        self.spend(-samples)

    def fact(self, name: str) -> str | None:
        """Return a named fact; None if there is none."""
        with self._file() as file:
            row = file.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        """Store a named fact."""
        with self._change() as file:
            file.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._file() as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                yield file
            except BaseException:
                file.execute("ROLLBACK")
                raise
            file.execute("COMMIT")

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._opened is None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                # Without implicit transactions: `_change` says where one begins and ends.
                self._opened = sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None)
                self._opened.executescript(_TABLES)
            yield self._opened
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"The stored answers in {self.file} cannot be used: {error}. Free some space, choose another place "
                "(store=FOLDER), or move a damaged file away: what it held would be asked about again."
            ) from error


def check_budget(samples: int, spent: int, most: int | None) -> None:
    """Refuse to ask about more samples than the budget allows.

    Raises:
        UserError: If it would be exceeded.
    """
    if most is not None and samples > 0 and spent + samples > most:
        raise UserError(
            f"The budget of {most} queries does not suffice: {spent} are spent, and {samples} more are needed now. "
            "Give more (--queries, queries= in Python); what is stored is not asked about again."
        )
