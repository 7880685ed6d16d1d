"""A teacher behind a function: only its answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from tutelage.core.teachers.answer_store import AnswerStore
from tutelage.core.teachers.priced import PricedTeacher, device_of, keys_of, rows_at
from tutelage.data.batch import Batch
from tutelage.errors import UserError


class BlackBoxTeacher(PricedTeacher):
    """A teacher behind a query. It gives only logits, and it counts each sample that it is asked about.

    The checks before a run do not ask it, and neither does `tutelage doctor`.

    Args:
        query: Function from inputs to logits `[batch, class]`.
        identity: Name of the model behind the query, such as its name and version. Boxes with one identity answer
            alike. Without it every new box counts as another teacher, so that no later call takes up what it taught. A
            query that is a module needs none: its weights identify it.
        store: A file in which each answer is kept, so that no run asks about a sample again. It needs an identity.

    Raises:
        UserError: If the identity is empty, or answers should be stored without one.
    """

    def __init__(
        self, query: Callable[[Any], Tensor], *, identity: str | None = None, store: str | Path | None = None
    ) -> None:
        if identity is not None and not identity.strip():
            raise UserError("The identity of a black box is empty: name what is behind the query.")
        if store is not None and identity is None:
            raise UserError("Stored answers belong to one model: name it, BlackBoxTeacher(..., identity='...').")
        super().__init__(None if store is None else AnswerStore(Path(store)))
        self.query, self._given = query, identity

    def known_by(self) -> str | None:
        """Return the user's identity for it; without one, the default of every teacher."""
        return super().known_by() if self._given is None else f"black box {self._given}"

    def answer(self, batch: Batch) -> Tensor:
        """Return the box's logits for the batch, or stored ones.

        Raises:
            UserError: If it does not answer with a tensor that has a row for each sample, or the budget is spent.
        """
        if self._store is None:
            return self._ask(batch.inputs, len(batch))
        keys = keys_of(batch.inputs, len(batch), salt=f"black box {self._given}")
        rows = self.look_up(
            keys, lambda places: self._ask(rows_at(batch.inputs, places), len(places)), at_once=len(batch)
        )
        return rows.to(device_of(batch.inputs))

    def _ask(self, inputs: Any, samples: int) -> Tensor:
        self.count(samples)
        logits = self.query(inputs)
        if not isinstance(logits, Tensor) or logits.ndim < 2 or len(logits) != samples:
            got = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"A black box was asked about {samples} samples and returned {got}: its query must return logits "
                f"[{samples}, class]."
            )
        if self._store is not None and logits.ndim > 2:
            raise UserError(f"Answers of the shape {list(logits.shape)} cannot be stored, only [batch, class].")
        return logits.detach()
