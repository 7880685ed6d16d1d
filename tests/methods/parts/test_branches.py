import pytest
import torch
from torch import nn

from tutelage.methods.parts.branches import Branch, BranchPlan, bottleneck, residual


def plan(kind, path, **options):
    return BranchPlan(**({"kind": kind, "path": path, "width": 512, "relu": True, "num_classes": 100} | options))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


RESNET18 = ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4))
RESNET50 = ((256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4))


@pytest.mark.parametrize(("path", "width", "parameters"), [(RESNET18, 512, 1_791_020), (RESNET50, 2048, 26_725_676)])
def test_byots_branches_have_the_published_parameters(path, width, parameters):
    branches = [Branch(plan("bottleneck", path[start:], width=width)) for start in range(3)]
    assert sum(map(count, branches)) == parameters


@pytest.mark.parametrize("kind", ["bottleneck", "residual"])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        RESNET18,
        RESNET18[-1:],
        ((6, 7, 11), (8, 3, 5)),
        ((6, 9, 9), (8, 5, 5), (10, 2, 2)),
        ((6, 1, 12), (8, 1, 12)),
        ((6, 2, 2), (8, 4, 4)),
    ],
)
def test_any_sizes_lead_to_an_embedding_of_the_width(kind, path, separable):
    branch = Branch(plan(kind, path, width=20, num_classes=5, separable=separable))
    maps = torch.randn(3, *path[0])
    answer = branch(maps)
    assert answer.logits.shape == (3, 5)
    assert answer.embedding.shape == (3, 20)
    torch.testing.assert_close(answer.logits, branch.classifier(branch.body(maps).mean((2, 3))))


def test_the_bottleneck_ends_at_the_deepest_size():
    for path, size in ((RESNET18, (4, 4)), (((6, 7, 11), (8, 3, 5)), (3, 5)), (RESNET18[-1:], (4, 4))):
        assert bottleneck(path, 8, relu=True)(torch.randn(2, *path[0])).shape[2:] == size


def test_the_bottleneck_is_three_convolutions_with_batch_norm_and_relu():
    layers = [type(layer).__name__ for layer in bottleneck(RESNET18, 512, relu=True)]
    assert layers == ["Conv2d", "BatchNorm2d", "ReLU"] * 3
    kernels = [layer.kernel_size for layer in bottleneck(RESNET18, 512, relu=True) if isinstance(layer, nn.Conv2d)]
    assert kernels == [(1, 1), (8, 8), (1, 1)]


def test_one_residual_block_for_each_later_stage_with_its_channels_and_stride():
    for start in range(3):
        blocks = residual(RESNET18[start:], 512, relu=True)
        maps, shapes = torch.randn(2, *RESNET18[start]), []
        for block in blocks:
            maps = block(maps)
            shapes.append(tuple(maps.shape[1:]))
        assert shapes == list(RESNET18[start + 1 :])


def test_wide_stages_get_bottleneck_blocks():
    basic, wide = (residual(path, path[-1][0], relu=True)[0].body for path in (RESNET18, RESNET50))
    assert len(basic) == 2
    assert [part[0].kernel_size for part in wide] == [(1, 1), (3, 3), (1, 1)]


def test_where_no_stride_fits_the_map_is_pooled():
    layers = residual(((6, 7, 11), (8, 3, 5)), 8, relu=True)
    assert layers[0](torch.randn(2, 6, 7, 11)).shape == (2, 6, 3, 5)
    # Nine pixels at stride two are five.
    assert len(residual(((6, 9, 9), (8, 5, 5)), 8, relu=True)) == 1


@pytest.mark.parametrize("kind", ["bottleneck", "residual"])
def test_the_embedding_reaches_below_zero_only_without_a_relu(kind):
    maps = torch.randn(4, *RESNET18[1])
    signed, positive = (
        Branch(plan(kind, RESNET18[1:], width=16, relu=relu))(maps).embedding.min() for relu in (False, True)
    )
    assert signed < 0 <= positive


@pytest.mark.parametrize("kind", ["bottleneck", "residual"])
def test_separable_branches_are_smaller(kind):
    dense, separable = (Branch(plan(kind, RESNET18, separable=one)) for one in (False, True))
    assert count(separable) < count(dense) / 3
