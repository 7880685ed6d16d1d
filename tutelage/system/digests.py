"""Digests of content, and seeds that are derived from names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a named piece of work in a run. It does not depend on the order of work."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of named tensors: their names, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # The bits rather than the values: numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
