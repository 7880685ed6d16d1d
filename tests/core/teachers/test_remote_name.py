"""Addresses of models with their options, and what stands in none."""

from pathlib import Path

import pytest

from tutelage.core.teachers.remote_name import RemoteName
from tutelage.errors import UserError
from tutelage.models.normalization import Normalization

URL = "http://box.example:8000/v2/models/net"


def test_an_address_is_taken_apart():
    found = RemoteName.parse("https://box.example/proxy/v2/models/net/versions/3")
    assert (found.base, found.model, found.version) == ("https://box.example/proxy", "net", "3")
    assert found.url == "https://box.example/proxy/v2/models/net/versions/3"
    assert RemoteName.parse(f"{URL}/").url == URL


def test_options_are_read():
    found = RemoteName.parse(
        f"{URL},answers=top,output=a+b,input=x,normalize=imagenet,layout=nhwc,classes=7,batch=9,timeout=1.5,tries=2,"
        "binary=false,auth=BOX_KEY,store=~/answers"
    )
    assert (found.answers, found.output, found.input, found.layout) == ("top", ("a", "b"), "x", "nhwc")
    assert (found.classes, found.batch, found.timeout, found.tries, found.binary) == (7, 9, 1.5, 2, False)
    assert found.normalize == Normalization.named("imagenet")
    assert (found.auth, found.store) == ("BOX_KEY", Path("~/answers").expanduser())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("http://box.example:8000", "is no address of a model: write http://HOST:PORT/v2/models/NAME"),
        ("http:///v2/models/net", "is no address of a model"),
        (f"{URL},answer=labels", "no option of a black box named 'answer'. Did you mean 'answers'"),
        (f"{URL},answers=scores", "choose one of logits, probabilities, top, labels"),
        (f"{URL},batch=0", "batch=0 .* give a whole number, 1 or more"),
        (f"{URL},timeout=-1", "give seconds, above 0"),
        (f"{URL},normalize=imagenot", "no normalisation named"),
    ],
)
def test_what_is_no_address_is_refused(text, match):
    with pytest.raises(UserError, match=match):
        RemoteName.parse(text)


@pytest.mark.parametrize(
    "text", ["http://me:s3cr3t@box.example/v2/models/net", f"{URL}?key=s3cr3t", f"{URL},auth=Bearer s3cr3t"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text):
    with pytest.raises(UserError, match="environment variable") as caught:
        RemoteName.parse(text)
    assert "s3cr3t" not in str(caught.value)
