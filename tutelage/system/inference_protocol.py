"""Messages of the Open Inference Protocol (KServe v2): tensors as JSON numbers, or as bytes behind the JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["inputs", "outputs"]
Array = NDArray[Any]

BINARY_EXTENSION = "binary_tensor_data"
"""Name of the extension by which a server says that it reads and writes tensors as bytes."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header with the length of the JSON before the bytes."""
SIZE = "binary_data_size"

DATATYPES: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "|b1",
        "UINT8": "|u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "|i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }
)
"""The protocol's names of numbers, each with numpy's."""


class MalformedError(ValueError):
    """A message does not follow the protocol."""


def datatype_of(array: Array) -> str:
    """Return the protocol's name of an array's numbers."""
    return next(name for name, kind in DATATYPES.items() if np.dtype(kind) == array.dtype)


def encode(role: Role, tensors: Mapping[str, Array], *, binary: bool, **fields: Any) -> tuple[bytes, dict[str, str]]:
    """Return a message's body and its HTTP headers.

    Args:
        role: Whether the tensors are a request's inputs or an answer's outputs.
        tensors: The tensors by name.
        binary: Whether to write them as bytes behind the JSON, which is shorter and faster.
        **fields: Other fields of the message.
    """
    described, parts = [], []
    for name, array in tensors.items():
        one: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array)}
        if binary:
            parts.append(np.ascontiguousarray(array, dtype=DATATYPES[one["datatype"]]).tobytes())
            one["parameters"] = {SIZE: len(parts[-1])}
        else:
            one["data"] = array.flatten().tolist()
        described.append(one)
    head = json.dumps({**fields, role: described}).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *parts]), headers


def decode(role: Role, body: bytes, header_length: str | None) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a message's JSON, and its tensors by name.

    Args:
        role: Whether the tensors are a request's inputs or an answer's outputs.
        body: The body.
        header_length: The value of the HTTP header `HEADER_LENGTH`; None without one.

    Raises:
        MalformedError: If the message does not follow the protocol.
    """
    try:
        end = len(body) if header_length is None else int(header_length)
        content = json.loads(body[:end])
        rest, tensors = memoryview(body)[end:], {}
        for one in content[role]:
            tensor, used = _tensor(one, rest)
            tensors[str(one["name"])], rest = tensor, rest[used:]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from error
    return content, tensors


def _tensor(described: Mapping[str, Any], rest: memoryview) -> tuple[Array, int]:
    """Return a tensor, and how many of the bytes behind the JSON are its own."""
    name, shape = described["name"], [int(size) for size in described["shape"]]
    kind = DATATYPES.get(described["datatype"])
    if kind is None:
        raise MalformedError(f"{name} has the datatype {described['datatype']}, which is not read here")
    size = (described.get("parameters") or {}).get(SIZE)
    if size is None:
        # The numbers may be flat or nested.
        values = np.asarray(described["data"], dtype=kind).reshape(shape)
        return values, 0
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    if min(shape, default=0) < 0 or size != wanted or len(rest) < wanted:
        raise MalformedError(f"{name} of shape {shape} needs {wanted} bytes, and there are {min(size, len(rest))}")
    # A copy, because the bytes of a message cannot be written to.
    return np.frombuffer(rest[:wanted], dtype=kind).reshape(shape).copy(), wanted
