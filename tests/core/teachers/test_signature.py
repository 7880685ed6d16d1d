"""The metadata of a model: which input and outputs are meant, and what is refused."""

import pytest

from tutelage.core.teachers.remote_name import RemoteName
from tutelage.core.teachers.signature import signature_of
from tutelage.errors import UserError
from tutelage.testing.toys import toy_data

URL = "http://box.example/v2/models/net"


def found(outputs, options="", *, shape=(-1, 3, 12, 16), datatype="FP32", extensions=(), inputs=None):
    described = [{"name": name, "datatype": kind, "shape": list(size)} for name, kind, size in outputs]
    given = inputs or [{"name": "x", "datatype": datatype, "shape": list(shape)}]
    metadata = {"model": {"inputs": given, "outputs": described, "versions": ["1"]}, "extensions": extensions}
    return signature_of(metadata, RemoteName.parse(URL + options))


LOGITS = ("logits", "FP32", (-1, 6))
PROBABILITIES = ("probabilities", "FP32", (-1, 6))
LABELS = ("labels", "INT64", (-1,))
OTHER = ("output__0", "FP32", (-1, 6))


@pytest.mark.parametrize(
    ("outputs", "options", "read", "answers", "classes"),
    [
        ([LOGITS], "", ("logits",), "logits", 6),
        ([PROBABILITIES, LOGITS], "", ("logits",), "logits", 6),
        ([PROBABILITIES], "", ("probabilities",), "probabilities", 6),
        ([LABELS], "", ("labels",), "labels", None),
        ([LABELS], ",classes=9", ("labels",), "labels", 9),
        ([OTHER], "", ("output__0",), "logits", 6),
        ([OTHER], ",answers=probabilities", ("output__0",), "probabilities", 6),
        (
            [("classes", "INT64", (-1, 2)), ("probabilities", "FP32", (-1, 2))],
            "",
            ("classes", "probabilities"),
            "top",
            None,
        ),
        ([OTHER, LABELS], ",output=output__0", ("output__0",), "logits", 6),
        ([("y", "FP32", (-1, -1))], "", ("y",), "logits", None),
    ],
)
def test_outputs_are_known_by_their_names_or_by_the_user(outputs, options, read, answers, classes):
    one = found(outputs, options)
    assert (one.outputs, one.answers, one.classes, one.versions) == (read, answers, classes, ("1",))


def test_the_place_of_the_channels_follows_from_the_data():
    box, data = RemoteName.parse(URL), toy_data()
    assert not found([LOGITS]).fitted(data, box).channels_last
    assert found([LOGITS], shape=(-1, 12, 16, 3)).fitted(data, box).channels_last
    assert not found([LOGITS], shape=(-1, -1, -1, -1)).fitted(data, box).channels_last
    last = RemoteName.parse(f"{URL},layout=nhwc")
    assert found([LOGITS], shape=(-1, -1, -1, -1)).fitted(data, last).channels_last
    with pytest.raises(UserError, match=r"takes images of the shape \[3, 12, 16\]"):
        found([LOGITS]).fitted(data, last)


def test_a_model_of_single_images_is_asked_about_one_at_once():
    assert found([LOGITS], shape=(1, 3, 12, 16)).at_once(64) == 1
    assert found([LOGITS]).at_once(64) == 64


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"outputs": [OTHER, ("second", "FP32", (-1, 6))]}, "has the outputs output__0, second: name one"),
        ({"outputs": [LOGITS], "options": ",output=logit"}, "no output of .* Did you mean 'logits'"),
        ({"outputs": [LOGITS], "options": ",answers=top"}, "top cannot be read from logits"),
        ({"outputs": [LOGITS], "shape": (4, 3, 12, 16)}, "takes exactly 4 images at once"),
        ({"outputs": [LOGITS], "datatype": "UINT8", "options": ",normalize=imagenet"}, "cannot be normalised"),
        ({"outputs": [LOGITS], "inputs": [{"name": "a"}, {"name": "b"}]}, "has the inputs a, b: name one"),
        ({"outputs": [LOGITS], "inputs": [{"name": "a"}]}, "lack inputs and outputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, match):
    with pytest.raises(UserError, match=match):
        found(**given)
