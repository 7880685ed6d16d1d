"""Which part of a user's sample is the input, and which the target."""

from collections import namedtuple

import pytest
import torch

from tutelage.data.fields import input_and_target
from tutelage.errors import UserError

IMAGE = torch.rand(3, 4, 4)
Sample = namedtuple("Sample", ["pixel_values", "label", "path"])


@pytest.mark.parametrize(
    "sample",
    [
        (IMAGE, 3),
        [IMAGE, 3],
        {"image": IMAGE, "label": 3},
        {"img": IMAGE, "fine_label": 3, "path": "a.png"},
        {"x": IMAGE, "target": 3},
        Sample(IMAGE, 3, "a.png"),
    ],
)
def test_pairs_and_named_fields(sample):
    given, target = input_and_target(sample)
    assert given is IMAGE
    assert target == 3


def test_text_is_what_is_left_without_its_target():
    ids, mask = torch.ones(5), torch.ones(5)
    given, target = input_and_target({"input_ids": ids, "attention_mask": mask, "labels": 1})
    assert set(given) == {"input_ids", "attention_mask"}
    assert target == 1


@pytest.mark.parametrize("sample", [IMAGE, {"image": IMAGE}, {"image": IMAGE, "path": "a.png"}])
def test_an_input_alone_has_no_target(sample):
    assert input_and_target(sample)[1] is None


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        ((IMAGE, 3, "a.png"), "tuple of 3: make each a pair"),
        ({"image": IMAGE, "label": 1, "target": 2}, "fields label, target: keep the one"),
        ({"image": IMAGE, "img": IMAGE, "label": 1}, "fields image, img: keep the one"),
        ({"label": 1}, "only the field label"),
    ],
)
def test_what_is_not_clear_is_refused(sample, match):
    with pytest.raises(UserError, match=match):
        input_and_target(sample)
