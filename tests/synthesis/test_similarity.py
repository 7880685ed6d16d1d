"""Which data are nearest, from statistics alone."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.synthesis.similarity import similarity


def blotches(strength, seed=1):
    """Images as those that the network was trained on, the less so the weaker their colours are."""
    chance = torch.Generator().manual_seed(seed)
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    labels = torch.randint(4, (96,), generator=chance)
    noise = torch.rand(96, 3, 8, 8, generator=chance)
    return TensorDataset((1 - strength) * noise + strength * colours[labels][:, :, None, None], labels)


@pytest.mark.parametrize("direction", ["code", "paper"])
def test_the_nearer_data_come_first(network, direction):
    given = [blotches(0.3), "noise", blotches(0.7)]
    rows = similarity(network, given, batch_size=32, image_size=8, direction=direction, device="cpu")
    [alone] = similarity(network, [blotches(0.7)], batch_size=32, image_size=8, direction=direction, device="cpu")
    assert rows[0] == alone
    assert {row.images for row in rows} == {96, 320}
    assert rows[0].divergence < rows[1].divergence < rows[2].divergence
    assert list(rows[0].layers) == ["input", "bn1", "bn2"]
    mean = sum(rows[0].layers.values()) / 3
    assert rows[0].divergence == pytest.approx(mean, rel=1e-6)
    assert rows[0].deviation > 0


def test_images_are_brought_to_the_network_and_drawn_by_seed(network):
    """Digits are grey and the network takes colours."""
    data = load_data("digits", validation=0)
    options = {"batch_size": 50, "images": 120, "image_size": 8, "device": "cpu"}
    one, same = (similarity(network, [data], **options)[0] for _ in range(2))
    other = similarity(network, [data], seed=1, **options)[0]
    assert one == same
    assert one.images == 100
    assert one.divergence != other.divergence


def test_what_cannot_be_ranked_is_told(network):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    with pytest.raises(UserError, match="cannot tell which data are near.*no batch norm"):
        similarity(plain, ["noise"], image_size=8, normalize="cifar10")
    with pytest.raises(UserError, match="fewer than a batch of 128: take a smaller batch"):
        similarity(network, [blotches(1)], image_size=8, device="cpu")
    with pytest.raises(UserError, match="pass its dataset"):
        similarity(network, [as_data(DataLoader(blotches(1)))], split="train", batch_size=8, image_size=8, device="cpu")
    with pytest.raises(UserError, match="one image has no variance"):
        similarity(network, ["noise"], batch_size=1, image_size=8)
    broken = TensorDataset(torch.full((40, 3, 8, 8), float("nan")), torch.zeros(40, dtype=torch.long))
    with pytest.raises(UserError, match="not finite"):
        similarity(network, [broken], batch_size=20, image_size=8, device="cpu")
