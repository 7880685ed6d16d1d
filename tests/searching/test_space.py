import random

import pytest

from tutelage.errors import UserError
from tutelage.searching.space import SPACES, Space


def networks(text):
    space = Space.parse(text)
    return [str(space.network(genes)) for genes in space.all()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiny_cnn,width=4|8", ["tiny_cnn,width=4", "tiny_cnn,width=8"]),
        ("tiny_cnn,width=4..6", ["tiny_cnn,width=4", "tiny_cnn,width=5", "tiny_cnn,width=6"]),
        ("tiny_cnn,width=2..7..3", ["tiny_cnn,width=2", "tiny_cnn,width=5"]),
        ("tiny_cnn,width=2|8..9", ["tiny_cnn,width=2", "tiny_cnn,width=8", "tiny_cnn,width=9"]),
        ("resnet8|resnet14", ["resnet8", "resnet14"]),
        ("timm:vit_tiny_patch16_224,depth=1..2,img_size=32", [
            "timm:vit_tiny_patch16_224,depth=1,img_size=32,pretrained=false",
            "timm:vit_tiny_patch16_224,depth=2,img_size=32,pretrained=false",
        ]),
        ("timm:convnext_atto,depths=(1,1,1,1)|(2,2,2,2)", [
            "timm:convnext_atto,depths=(1, 1, 1, 1),pretrained=false",
            "timm:convnext_atto,depths=(2, 2, 2, 2),pretrained=false",
        ]),
        ("a.b:net,x=0.5|1.0,name='p|q'|r,normalize=none", [
            "a.b:net,x=0.5,name=p|q,normalize=none", "a.b:net,x=0.5,name=r,normalize=none",
            "a.b:net,x=1.0,name=p|q,normalize=none", "a.b:net,x=1.0,name=r,normalize=none",
        ]),
    ],
)  # fmt: skip
def test_a_space_is_a_network_with_ranges(text, expected):
    assert networks(text) == expected


def test_the_space_of_the_paper_has_64_networks():
    assert len(set(networks("s0"))) == 64
    assert networks("s0")[0] == "resnet_by_stage,stage1=1,stage2=1,stage3=1"
    assert SPACES["s0"].startswith("resnet_by_stage")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny_cnn,width=8", "one network only"),
        ("tiny_cnn", "one network only"),
        ("tiny_cnn,width=8..4", "from the smaller number"),
        ("tiny_cnn,width=4..8..0", "steps of 1 or more"),
        ("tiny_cnn,width=4..", "whole numbers, width=4..12"),
        ("tiny_cnn,width=1..2..3..4", "whole numbers"),
        ("tiny_cnn,width=0.5..1.5", "List any other values"),
        ("tiny_cnn,width=4|", "empty value"),
        ("tiny_cnn,width=4|4", "value 4 twice"),
        ("tiny_cnn,width=1..100000", "more than 10,000 values"),
        ("tiny_cnn,width", "not an option"),
        ("tiny_cn,width=4|8", "Did you mean 'tiny_cnn'"),
        ("tiny_cnn|resnet9,width=4|8", "no network named 'resnet9'"),
        ("timm:resnet18,pretrained=true,output_stride=8|16", "scored untrained"),
        ("tiny_cnn,width=[4|8", "not a Python literal"),
    ],
)
def test_bad_spaces_are_refused_with_the_remedy(text, message):
    with pytest.raises(UserError, match=message):
        Space.parse(text)


def test_a_saved_run_is_no_space(tmp_path):
    with pytest.raises(UserError, match="saved run"):
        Space.parse(f"{tmp_path},width=4|8")


def test_the_smallest_network_has_the_least_values():
    space = Space.parse("timm:convnext_atto,depths=(2,2)|(1,1),width=8|4,kind=b|a")
    assert str(space.network(space.smallest())) == "timm:convnext_atto,depths=(1, 1),width=4,kind=b,pretrained=false"


def test_a_mutation_changes_one_option_or_more_and_nothing_else():
    space, chance = Space.parse("tiny_cnn,a=1..3,b=1..3,c=1|2"), random.Random(0)
    genes = space.any(chance)
    seen = [space.mutated(genes, chance, most=2) for _ in range(200)]
    changes = [sum(one != other for one, other in zip(genes, each, strict=True)) for each in seen]
    assert set(changes) == {1, 2}
    # Every other value of every axis is reached.
    assert {(at, each[at]) for each in seen for at in range(1, 4)} == {
        (at, value) for at in range(1, 4) for value in range(len(space.axes[at].values))
    }
