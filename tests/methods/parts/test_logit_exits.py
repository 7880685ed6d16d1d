import pytest
import torch

from tutelage.features.anatomy import Tap, stages
from tutelage.features.maps import MapLayout
from tutelage.features.trace import Trace
from tutelage.methods.parts.logit_exits import MapExit, Merging, TokenExit, exit_behind, mergings, places, separable
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer


def tokens(prefix=1, size=(4, 4), channels=24):
    return Tap("blocks.0", MapLayout("tokens", prefix, size[0] / size[1]), channels, size)


@pytest.mark.parametrize(
    ("size", "count"),
    [((14, 14), 1), ((28, 28), 2), ((7, 7), 0), ((8, 8), 0), ((14, 21), 0), ((16, 28), 1), ((1, 1), 0)],
)
def test_tokens_are_merged_while_seven_remain_on_each_side(size, count):
    assert mergings(size) == count


def test_merging_puts_the_four_tokens_of_a_square_side_by_side():
    torch.manual_seed(0)
    merging, maps = Merging(3), torch.randn(2, 3, 4, 6)
    norm, linear, _ = merging.layers
    found = merging(maps)
    assert found.shape == (2, 3, 2, 3)
    for b, y, x in [(0, 0, 0), (1, 1, 2)]:
        side_by_side = torch.stack([maps[b, c, 2 * y + i, 2 * x + j] for c in range(3) for i in (0, 1) for j in (0, 1)])
        expected = torch.nn.functional.gelu(linear(norm(side_by_side)))
        torch.testing.assert_close(found[b, :, y, x], expected, rtol=1e-5, atol=1e-6)


def test_a_class_token_answers_and_without_one_the_mean_does():
    torch.manual_seed(0)
    with_token, without = TokenExit(tokens(1), 1, 5), TokenExit(tokens(0), 1, 5)
    for behind, reads in ((with_token, slice(0, 1)), (without, slice(None))):
        feature = torch.randn(2, 16 + behind._tap.layout.prefix, 24)
        expected = behind.classifier(behind.blocks[0](feature)[:, reads].mean(1))
        torch.testing.assert_close(behind(feature), expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    behind = TokenExit(Tap("layers.0", MapLayout("tokens"), 10, (1, 7)), 2, 5)
    feature, mask = torch.randn(2, 7, 10), torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, :, :, 4:] = False
    other = feature.clone()
    other[1, 4:] = 100
    torch.testing.assert_close(behind(feature, mask), behind(other, mask))
    torch.testing.assert_close(behind(feature, mask)[1:], behind(feature[1:, :4], mask[1:, :, :, :4]))


def test_widths_double_from_stage_to_stage_up_to_the_last():
    behind = MapExit(Tap("layer1", MapLayout("map"), 16, (32, 20)), 3, 100, 5)
    widths = [part.out_channels for part in behind.body.modules() if isinstance(part, torch.nn.Conv2d)][3::4]
    assert widths == [32, 64, 100]
    assert behind.body(torch.randn(2, 16, 32, 20)).shape == (2, 100, 4, 3)
    assert sum(p.numel() for p in separable(64, 128).parameters()) == 64 * 64 + 64 * 128 + 20 * 64 + 2 * 128


@pytest.mark.parametrize(
    "network", [CATALOGUE["resnet20"], CATALOGUE["wrn_16_1"], CATALOGUE["mobilenetv2"], toy_transformer]
)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_any_network_has_exits_that_learn(network, size):
    network = toy_transformer(image_size=size) if network is toy_transformer else network(5)
    trace = Trace.of(network, torch.randn(2, 3, *size))
    found = places(stages(network, trace), trace, "auto")
    assert found
    for tap in found:
        behind, feature = exit_behind(tap, 2, 32, 5), torch.randn(tuple(trace.last(tap.layer).value.shape))
        logits = behind(feature)
        assert logits.shape == (2, 5)
        logits.square().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in behind.parameters())
