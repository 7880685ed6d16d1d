"""A network behind the protocol: what it says of itself, what it answers, what it refuses."""

import numpy as np
import pytest
import torch

from tutelage.errors import UserError
from tutelage.models.server import RefusedError, Served, _reply
from tutelage.system.inference_protocol import decode, encode
from tutelage.testing.toys import CHANNELS, CLASSES, SIZE, ToyNetwork

IMAGES = np.random.default_rng(0).random((5, CHANNELS, *SIZE), dtype=np.float32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ToyNetwork(4).eval()


def served(network, **options):
    return Served(network=network, name="toy", classes=CLASSES, channels=CHANNELS, size=SIZE, **options)


def test_it_answers_in_parts_what_the_network_answers(network):
    expected = network(torch.from_numpy(IMAGES)).detach()
    logits = served(network, batch_size=2).infer({"images": IMAGES})["logits"]
    assert np.allclose(logits, expected, atol=1e-6)
    found = served(network, answers="probabilities").infer({"images": IMAGES})["probabilities"]
    assert np.allclose(found, expected.softmax(1), atol=1e-6)
    assert np.array_equal(served(network, answers="labels").infer({"images": IMAGES})["labels"], expected.argmax(1))
    top = served(network, answers="top2").infer({"images": IMAGES})
    share, classes = expected.softmax(1).topk(2)
    assert np.array_equal(top["classes"], classes)
    assert np.allclose(top["probabilities"], share, atol=1e-6)


def test_bytes_are_the_same_images(network):
    pixels = (IMAGES * 255).round().astype(np.uint8)
    found = served(network).infer({"images": pixels})["logits"]
    assert np.allclose(found, served(network).infer({"images": pixels.astype(np.float32) / 255})["logits"], atol=1e-6)


@pytest.mark.parametrize("answers", ["logits", "probabilities", "labels", "top3"])
def test_the_metadata_are_those_of_its_answers(network, answers):
    one = served(network, answers=answers)
    about = one.metadata()
    assert about["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, CHANNELS, *SIZE]}]
    outputs = one.infer({"images": IMAGES})
    for each in about["outputs"]:
        shape = outputs[each["name"]].shape
        assert [-1, *shape[1:]] == each["shape"]
    assert [each["name"] for each in about["outputs"]] == list(outputs)


@pytest.mark.parametrize("binary", [True, False])
def test_a_question_is_answered_in_its_own_form(network, binary):
    wanted = [{"name": "logits", "parameters": {"binary_data": binary}}]
    body, headers = encode("inputs", {"images": IMAGES}, binary=binary, outputs=wanted, id="a7")
    reply, about = _reply(served(network), body, headers.get("Inference-Header-Content-Length"))
    content, tensors = decode("outputs", reply, about.get("Inference-Header-Content-Length"))
    assert ("Inference-Header-Content-Length" in about) == binary
    assert (content["model_name"], content["id"]) == ("toy", "a7")
    assert np.array_equal(tensors["logits"], served(network).infer({"images": IMAGES})["logits"])


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "the only input is 'images', and the question has none"),
        ({"x": IMAGES}, "and the question has x"),
        ({"images": IMAGES[:, :1]}, r"have the shape \[5, 1, 12, 16\]: give \[batch, 3, 12, 16\]"),
        ({"images": IMAGES[:0]}, "have the shape"),
    ],
)
def test_what_is_no_batch_of_its_images_is_refused(network, tensors, match):
    with pytest.raises(RefusedError, match=match):
        served(network).infer(tensors)


def test_an_output_that_is_not_there_is_refused(network):
    body, _ = encode("inputs", {"images": IMAGES}, binary=False, outputs=[{"name": "scores"}])
    with pytest.raises(RefusedError, match="no output 'scores', only logits"):
        _reply(served(network), body, None)


@pytest.mark.parametrize("options", [{"answers": "top9"}, {"answers": "sure"}, {"name": "a/b"}, {"batch_size": 0}])
def test_what_it_cannot_be_is_refused(network, options):
    with pytest.raises(UserError):
        Served(**{"network": network, "name": "toy", "classes": CLASSES, "channels": 3, "size": SIZE, **options})
