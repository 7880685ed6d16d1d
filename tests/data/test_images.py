import pytest
import torch

from tutelage.data.images import ResidentImages, as_inputs
from tutelage.errors import UserError


@pytest.fixture
def samples():
    return ResidentImages(torch.randint(0, 256, (10, 3, 4, 5), dtype=torch.uint8), torch.arange(10))


def test_resident_images_are_a_dataset(samples):
    image, target = samples[3]
    assert len(samples) == 10
    assert torch.equal(image, samples.images[3])
    assert target == 3
    assert isinstance(target, int)
    assert (samples.channels, samples.size) == (3, (4, 5))


def test_read_and_select(samples):
    indices = torch.tensor([7, 0, 7])
    images, targets = samples.read_batch(indices)
    assert torch.equal(images, samples.images[indices])
    assert targets.tolist() == [7, 0, 7]
    chosen = samples.select([2, 5]).to("cpu")
    assert chosen.targets.tolist() == [2, 5]
    assert torch.equal(chosen.images, samples.images[[2, 5]])


@pytest.mark.parametrize(
    ("images", "targets"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3)),
    ],
)
def test_other_shapes_are_refused(images, targets):
    with pytest.raises(UserError):
        ResidentImages(images, targets)


@pytest.mark.parametrize("channels_last", [False, True])
def test_inputs_are_floats_between_0_and_1(samples, channels_last):
    inputs = as_inputs(samples.images, channels_last=channels_last)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, samples.images.float() / 255)
    assert inputs.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_floats_pass_as_they_are():
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(as_inputs(images), images.float())
