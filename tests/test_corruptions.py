"""The benchmark of corruptions: what it does to images, and what it says about networks."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from tutelage.data.batch import Batch
from tutelage.data.sources import load_data
from tutelage.experiments.statistics import summary

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "corruptions.py"))
CORRUPTIONS, SEVERITIES, corrupted = (BENCHMARK[name] for name in ("CORRUPTIONS", "SEVERITIES", "corrupted"))


@pytest.fixture
def images():
    return torch.nn.functional.interpolate(torch.rand(40, 3, 8, 8), scale_factor=2, mode="bilinear")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_further_from_the_clean_images(name, channels, images):
    images = images[:, :channels]
    found = [corrupted(images, name, severity) for severity in range(5)]
    assert all(one.shape == images.shape and one.min() >= 0 and one.max() <= 1 for one in found)
    distances = [(one - images).square().mean().item() for one in found]
    assert distances[0] > 0
    if name != "pixelate":
        assert distances == sorted(distances)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_network_sees_the_same_images(name, images):
    state = torch.get_rng_state()
    one, again = corrupted(images, name, 4), corrupted(images, name, 4)
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), state)
    if "noise" in name:
        assert not torch.equal(one, corrupted(images, name, 4, number=1))


def test_the_size_of_the_noise():
    grey = torch.full((50, 3, 32, 32), 0.5)
    for severity in range(5):
        std = (corrupted(grey, "gaussian noise", severity) - 0.5).std().item()
        assert std == pytest.approx(SEVERITIES["gaussian noise"][severity], rel=0.02)
        # Of a count with mean n, the deviation is the root of n.
        photons = SEVERITIES["shot noise"][severity]
        shot = corrupted(grey, "shot noise", severity)
        assert shot.std().item() == pytest.approx(math.sqrt(0.5 / photons), rel=0.02)


def test_tones_and_pixels():
    images = torch.rand(2, 3, 20, 20) / 2
    assert torch.allclose(corrupted(images, "brightness", 4), images * 1.5)
    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    mean = (images * weights).sum(1).mean((1, 2))[:, None, None, None]
    assert torch.allclose(corrupted(images, "contrast", 1), 0.5 * images + 0.5 * mean, atol=1e-4)
    assert len(corrupted(images, "pixelate", 4)[0, 0, 0].unique()) == 10
    flat = torch.full((1, 3, 20, 20), 0.3)
    assert torch.allclose(corrupted(flat, "gaussian blur", 4), flat, atol=1e-6)


def test_the_attack_follows_the_sign_of_the_gradient():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    images, targets = torch.rand(5, 3, 2, 2) * 0.5 + 0.25, torch.randint(0, 4, (5,))
    found = BENCHMARK["attacked"](network, images, targets, 4 / 255)
    pull = network(images).softmax(1) - nn.functional.one_hot(targets, 4)
    expected = images + 4 / 255 * (pull @ network[1].weight).sign().view(5, 3, 2, 2)
    assert torch.allclose(found, expected, atol=1e-6)
    strong = BENCHMARK["attacked"](network, images, targets, 1.0)
    assert set(strong.unique().tolist()) == {0.0, 1.0}


class Brighter(nn.Module):
    """Right where the image is dark."""

    def forward(self, inputs):
        mean = inputs.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_measured_is_the_share_that_is_right():
    dark = Batch(inputs=torch.full((3, 3, 8, 8), 0.4), targets=torch.tensor([0, 0, 1]))
    light = Batch(inputs=torch.full((1, 3, 8, 8), 0.9), targets=torch.tensor([1]))
    found = BENCHMARK["measure"](Brighter(), [dark, light])
    assert found["clean"] == 0.75
    # 0.4 becomes 0.44, 0.48, 0.52, 0.56, 0.6: then the dark ones are taken for light.
    assert found["corruptions"]["brightness"] == [0.75, 0.75, 0.5, 0.5, 0.5]
    assert list(found["fgsm"]) == ["1/255", "2/255", "4/255", "8/255"]
    assert found["fgsm"]["8/255"] == 0.75


def test_the_table_has_means_and_spreads():
    def run(seed, share):
        shares = {name: [share] * 5 for name in CORRUPTIONS}
        return {"seed": seed, "clean": share, "corruptions": shares, "fgsm": {"1/255": share}}

    row = BENCHMARK["summed_up"]("kd", [run(0, 0.5), run(1, 0.6)])
    assert row["clean"] == row["corrupted"] == row["corruptions"]["contrast"] == summary([0.5, 0.6])
    assert row["severities"]["pixelate"] == [summary([0.5, 0.6])] * 5
    (line,) = BENCHMARK["table"]({"rows": [row]}).splitlines()[2:]
    assert line.startswith("| `kd` | 55.00 ± 7.07 | 55.00 ± 7.07 |")


def test_a_finished_comparison_is_measured(tmp_path):
    from tutelage import compare

    settings = {"seeds": 2, "epochs": 1, "progress": False, "compile": "off"}
    compare(["supervised", "tf-kd-self"], student="tiny_cnn,width=3", data="digits", out=tmp_path, **settings)
    data = load_data("digits")
    found = BENCHMARK["evaluate"](tmp_path, data, "cpu")
    assert [row["label"] for row in found["rows"]] == ["supervised", "tf-kd-self"]
    reported = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    for row, told in zip(found["rows"], reported, strict=True):
        # The kept weights are those of the best epoch, and there is one.
        assert row["clean"]["mean"] == pytest.approx(told["summary"]["best"]["test_accuracy"]["mean"])
        assert row["clean"]["n"] == 2
    json.dumps(found)
