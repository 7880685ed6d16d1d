"""A teacher behind a query: only its answers are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError


class BlackBoxTeacher(Teacher):
    """A teacher behind a query. It gives only logits, and it counts each sample that it is asked about.

    The checks before a run do not ask it. `tutelage doctor` says how many samples it asks about.

    Args:
        query: Function from inputs to logits `[batch, class]`.
        identity: Name of the model behind the query, such as its name and version. Boxes with one identity answer
            alike. Without it every new box counts as another teacher, so that no later call takes up what it taught. A
            query that is a module needs none: its weights identify it.

    Raises:
        UserError: If the identity is empty.
    """

    has_price = True

    def __init__(self, query: Callable[[Any], Tensor], *, identity: str | None = None) -> None:
        super().__init__()
        if identity is not None and not identity.strip():
            raise UserError("The identity of a black box is empty: name what is behind the query.")
        # Underscored, because public settings enter fingerprints, and a counter would change them.
        self.query, self._queries, self._given = query, 0, identity

    @property
    def queries(self) -> int:
        """Number of samples that it was asked about."""
        return self._queries

    def known_by(self) -> str | None:
        """Return the user's identity for it; without one, the default of every teacher."""
        return super().known_by() if self._given is None else f"black box {self._given}"

    def forward(self, batch: Batch) -> Output:
        """Ask the box about the batch.

        Raises:
            UserError: If it does not answer with a tensor that has a row for each sample.
        """
        # Counted before the query, because a call that fails may cost as well.
        self._queries += len(batch)
        logits = self.query(batch.inputs)
        if not isinstance(logits, Tensor) or logits.ndim < 2 or len(logits) != len(batch):
            got = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"A black box was asked about {len(batch)} samples and returned {got}: its query must return logits "
                f"[{len(batch)}, class]."
            )
        return Output(logits=logits.detach())
