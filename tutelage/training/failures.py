"""Why a training step failed, where the data are the cause."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tutelage.data.dataset import TRAIN, Data
from tutelage.errors import UserError
from tutelage.models.intake import SINGLE
from tutelage.training.state import State

_BATCH = 64
# The run has failed already; its user can wait this many seconds for the reason.
_SECONDS = 20.0


@contextmanager
def single_samples(state: State) -> Iterator[None]:
    """Explain the error of a batch norm that gets a single value for each channel.

    Args:
        state: The state of the run.
    """
    try:
        yield
    except ValueError as error:
        if SINGLE not in str(error):
            raise
        raise UserError(
            f"Batch {state.batch + 1} of epoch {state.epoch + 1} has one sample, and a batch norm gets one value for "
            "each channel of it, which cannot be normalised: take a --batch-size of 2 or more, or drop_last=True in "
            "a DataLoader of your own."
        ) from error


def faulty_sample(data: Data) -> str | None:
    """Return a sentence that names a training sample with values that are not finite; None if none is found.

    Args:
        data: The data; as many training samples are read as some seconds allow, without augmentation.
    """
    began, position = time.monotonic(), 0
    for batch in data.loader(TRAIN, train=False, batch_size=_BATCH, workers=0).epoch(0):
        faulty = (~_finite(batch.inputs, len(batch))).nonzero().flatten().tolist()
        if faulty:
            return (
                f"Sample {position + faulty[0]} of the training data holds NaN or infinite values: mend or remove it."
            )
        position += len(batch)
        if time.monotonic() - began > _SECONDS:
            break
    return None


def _finite(inputs: Any, samples: int) -> Tensor:
    """Return for each sample whether all its values are finite numbers, `[sample]`."""
    tensors = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    found = torch.ones(samples, dtype=torch.bool)
    for tensor in tensors:
        # A tensor of another length does not hold one row a sample.
        if isinstance(tensor, Tensor) and len(tensor) == samples:
            found &= tensor.reshape(samples, -1).isfinite().all(1).cpu()
    return found
