"""Teachers whose answers cost something: what they are asked is counted, limited, and stored."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core.teachers.answer_store import AnswerStore, check_budget
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output


class PricedTeacher(Teacher):
    """A teacher each of whose answers costs something. The checks before a run do not ask it.

    With a store, each answer is written to disk as it comes, and no sample is asked about twice.

    Args:
        store: Where its answers are kept; None keeps none.
    """

    has_price = True

    def __init__(self, store: AnswerStore | None = None) -> None:
        super().__init__()
        # Underscored, because public settings enter fingerprints, and a counter would change them.
        self._store, self._queries = store, 0
        self._most: int | None = None

    @property
    def queries(self) -> int:
        """Number of samples that this object has asked about."""
        return self._queries

    @property
    def spent(self) -> int:
        """Number of samples that count against a budget: of all runs and processes, if answers are stored."""
        return self._queries if self._store is None else self._store.spent

    def limit(self, most: int | None) -> None:
        """Set the budget.

        Args:
            most: The number of samples that may be asked about, those of earlier runs included if answers are stored;
                None for no limit.
        """
        self._most = most

    @abstractmethod
    def answer(self, batch: Batch) -> Tensor:
        """Return logits `[batch, class]`."""

    def forward(self, batch: Batch) -> Output:
        """Ask about the batch, or return what is stored."""
        return Output(logits=self.answer(batch))

    def count(self, samples: int) -> None:
        """Count samples before they are sent, because a question that fails may cost as well.

        Raises:
            UserError: If the budget does not allow them.
        """
        if self._store is None:
            check_budget(samples, self._queries, self._most)
        else:
            self._store.spend(samples, self._most)
        self._queries += samples

    def uncount(self, samples: int) -> None:
        """Take samples back that were counted and for certain cost nothing."""
        self._queries -= samples
        if self._store is not None:
            self._store.refund(samples)

    def look_up(self, keys: Sequence[bytes], ask: Callable[[list[int]], Tensor], *, at_once: int) -> Tensor:
        """Return an answer for each key, `[key, number]`: a stored one, or else a new one, which is stored at once.

        Args:
            keys: The keys; equal keys are asked about once.
            ask: Returns the answers at some positions, `[position, number]`.
            at_once: For how many positions it is called at most.

        Raises:
            UserError: If the budget does not suffice for all that are new. None of them is asked about then.
        """
        found = {} if self._store is None else self._store.find(list(dict.fromkeys(keys)))
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        missing = sorted(first[key] for key in first.keys() - found.keys())
        check_budget(len(missing), self.spent, self._most)
        for start in range(0, len(missing), at_once):
            places = missing[start : start + at_once]
            answers = {keys[place]: row for place, row in zip(places, ask(places).float().cpu(), strict=True)}
            # Before the next question: whatever happens then, these are not asked about again.
            if self._store is not None:
                self._store.keep(answers)
            found |= answers
        return torch.stack([found[key] for key in keys])


def keys_of(inputs: Any, samples: int, *, salt: str) -> list[bytes]:
    """Return a key for each sample: the digest of what is sent.

    Args:
        inputs: A tensor, or a mapping of tensors, whose first axis is the sample.
        samples: How many samples there are.
        salt: All else on which an answer depends.
    """
    parts = inputs if isinstance(inputs, Mapping) else {"": inputs}
    start = hashlib.sha256(salt.encode())
    arrays = {name: part.detach().cpu().contiguous() for name, part in parts.items()}
    for name, array in arrays.items():
        start.update(f" {name} {array.dtype} {tuple(array.shape[1:])}".encode())
    found = []
    for place in range(samples):
        digest = start.copy()
        for array in arrays.values():
            digest.update(array[place].reshape(-1).view(torch.uint8).numpy())
        found.append(digest.digest())
    return found


def rows_at(inputs: Any, places: Sequence[int]) -> Any:
    """Return the samples at some places of inputs, a tensor or a mapping of tensors."""
    if isinstance(inputs, Mapping):
        return {name: rows_at(part, places) for name, part in inputs.items()}
    return inputs[torch.as_tensor(places, device=inputs.device)]


def device_of(inputs: Any) -> torch.device:
    """Return the device of inputs, a tensor or a mapping of tensors."""
    first: Tensor = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    return first.device
