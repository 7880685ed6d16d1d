"""Messages of the Open Inference Protocol, written and read again, and messages that are none."""

import json

import numpy as np
import pytest

from tutelage.system.inference_protocol import DATATYPES, HEADER_LENGTH, MalformedError, decode, encode

ARRAYS = {name: (np.arange(6).reshape(2, 3) % 2).astype(kind) for name, kind in DATATYPES.items()}


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_of_every_type_come_back(binary):
    body, headers = encode("inputs", ARRAYS, binary=binary, id="7")
    content, tensors = decode("inputs", body, headers.get(HEADER_LENGTH))
    assert content["id"] == "7"
    for name, array in ARRAYS.items():
        assert tensors[name].dtype == array.dtype
        assert np.array_equal(tensors[name], array)
        assert tensors[name].flags.writeable
    assert [each["datatype"] for each in content["inputs"]] == list(DATATYPES)


@pytest.mark.parametrize("binary", [True, False])
def test_floats_come_back_to_the_last_bit(binary):
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    array = np.asfortranarray(array)
    body, headers = encode("outputs", {"x": array}, binary=binary)
    assert np.array_equal(decode("outputs", body, headers.get(HEADER_LENGTH))[1]["x"], array)


def test_numbers_may_be_nested():
    one = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4.5]]}
    _, tensors = decode("outputs", json.dumps({"outputs": [one]}).encode(), None)
    assert tensors["x"].tolist() == [[1, 2], [3, 4.5]]


WHOLE, HEADERS = encode("outputs", {"x": np.zeros((2, 3), np.float32)}, binary=True)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"<html>", None),
        (b"{}", None),
        (b'{"outputs": [{"name": "x"}]}', None),
        (b'{"outputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}]}', None),
        (b'{"outputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}', None),
        (b'{"outputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [-1]}]}', None),
        (b'{"outputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ["a"]}]}', None),
        (WHOLE[:-1], HEADERS[HEADER_LENGTH]),
        (WHOLE, "5"),
        (WHOLE, "much"),
    ],
)
def test_what_is_no_message_is_told(body, length):
    with pytest.raises(MalformedError):
        decode("outputs", body, length)
