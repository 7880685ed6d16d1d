import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.zoo.resnet import cifar_resnet, resnet8, resnet_by_stage, tfkd_resnet18, wide_stem_resnet

COUNTS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet50_cifar": 23_705_252,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameters_of_the_distillation_tables(name, count, parameters):
    assert parameters(name, 100) == count


def test_parameters_of_resnet20_with_ten_classes(parameters):
    assert parameters("resnet20", 10) == 272_474


@pytest.mark.parametrize(
    ("name", "counts"),
    {
        "tfkd_resnet18": (11_173_962, 11_220_132, 11_271_432),
        "tfkd_resnet50": (23_520_842, 23_705_252, 23_910_152),
        "tfkd_resnet101": (42_512_970, 42_697_380, 42_902_280),
    }.items(),
)
def test_parameters_of_tfkd(name, counts, parameters):
    assert tuple(parameters(name, classes) for classes in (10, 100, 200)) == counts


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet110"])
def test_maps(name, maps):
    assert maps(name) == ([(16, 32), (16, 32), (32, 16), (64, 8)], 64)


@pytest.mark.parametrize("name", ["resnet8x4", "resnet32x4"])
def test_maps_of_the_wide_ones(name, maps):
    assert maps(name) == ([(32, 32), (64, 32), (128, 16), (256, 8)], 256)


def test_stages_may_have_different_numbers_of_blocks(parameters):
    def count(*stages):
        network = resnet_by_stage(100, stage1=stages[0], stage2=stages[1], stage3=stages[2])
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(2, 2, 2) == parameters("resnet14", 100)
    # A block has two convolutions, each with its normalisation.
    assert count(2, 2, 3) - count(2, 2, 2) == 2 * (9 * 64 * 64 + 2 * 64)
    assert count(3, 2, 2) - count(2, 2, 2) == 2 * (9 * 16 * 16 + 2 * 16)


def test_maps_of_bottlenecks(maps):
    assert maps("resnet50_cifar") == ([(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)], 2048)


def test_convolutions_start_kaiming_normal_over_the_outputs():
    convolution = resnet8(10).layer3[0].body[1][0]
    assert math.isclose(convolution.weight.std().item(), math.sqrt(2 / (64 * 9)), rel_tol=0.02)


def test_tfkd_starts_as_pytorch_does():
    network = tfkd_resnet18(10)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    bound = 1 / math.sqrt(weights[1][0].numel())
    assert weights[1].abs().max() <= bound
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_wrong_depths_are_refused():
    with pytest.raises(UserError, match="6n\\+2"):
        cifar_resnet(10, depth=21)
    with pytest.raises(UserError, match="18, 50, 101"):
        wide_stem_resnet(10, depth=34)
