"""The one batch by which all networks of a search are scored."""

from __future__ import annotations

import torch

from tutelage.data.batch import Batch
from tutelage.data.dataset import TRAIN, Data
from tutelage.data.loader import make_loader
from tutelage.data.samples import Samples
from tutelage.errors import UserError
from tutelage.system.chance import generator

# Relations between samples, and batch norm, need some of them.
_FEWEST = 2


def one_batch(data: Data, size: int, *, seed: int) -> Batch:
    """Return some training samples by chance, without augmentation.

    Args:
        data: The data. Of a user's own DataLoader the first batch is taken, with its own size.
        size: Samples.
        seed: Seed of the choice.

    Raises:
        UserError: If there are fewer than two samples.
    """
    if size < _FEWEST:
        raise UserError(f"batch_size={size}: networks are scored by how samples relate, so give {_FEWEST} or more.")
    samples = data.split(TRAIN)
    if isinstance(samples, Samples):
        order = torch.randperm(len(samples), generator=generator(seed))[:size]
        samples = samples.select(order.sort().values.numpy())
    batch = next(iter(make_loader(samples, data.task, batch_size=size, workers=0).epoch(0)))
    if len(batch) < _FEWEST:
        raise UserError(f"{data.name} has {len(batch)} training sample: networks are scored by how samples relate.")
    return batch
