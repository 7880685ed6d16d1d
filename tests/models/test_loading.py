import pytest
import torch

from tutelage.errors import UserError
from tutelage.models import NetworkSpec, Normalization, describe, load_network


def test_the_statistics_of_the_data_serve_a_network_without_its_own():
    data = Normalization.named("cifar10")
    assert load_network("tiny_cnn", num_classes=10, normalization=data).normalization == data
    assert load_network("tiny_cnn", num_classes=10).normalization == Normalization.named("none")
    spec = NetworkSpec.parse("tiny_cnn,normalize=0.5:0.25")
    assert load_network(spec, num_classes=10, normalization=data).normalization.mean == (0.5,)


def test_options_reach_the_factory():
    assert load_network("tiny_cnn,width=4", num_classes=10, in_channels=1).model.layer1[0].out_channels == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet20,breadth=2", "breadth"),
        ("resnet20,depth=21", "6n\\+2"),
        ("tiny_cnn,num_classes=5", "returns 5 classes, but the data have 10"),
        ("resnet9", "Did you mean"),
    ],
)
def test_mistakes_are_told(spec, message):
    with pytest.raises(UserError, match=message):
        load_network(spec, num_classes=10)


def test_statistics_of_colour_do_not_fit_grey_images():
    with pytest.raises(UserError, match="3 channels, the data have 1"):
        load_network("tiny_cnn,normalize=imagenet", num_classes=10, in_channels=1)


def test_a_real_teacher_from_elsewhere(shared_data):
    folder = shared_data / "checkpoints"
    spec = f"{folder}/cifar_resnets.py:CifarResNet,n=9,num_classes=10,family=he,normalize=imagenet"
    network = load_network(f"{spec}@{folder}/cifar10_he_resnet56.safetensors", num_classes=10).eval()
    assert describe(network).parameters == 853_018
    images, labels = some_images(shared_data)
    with torch.inference_mode():
        assert (network(images).argmax(1) == labels).float().mean() > 0.85
    with pytest.raises(UserError, match="returns 10 classes, but the data have 100"):
        load_network(spec, num_classes=100)


def some_images(shared_data, count=100):
    import io

    import numpy as np
    from PIL import Image
    from pyarrow import parquet

    file = parquet.ParquetFile(next((shared_data / "cifar10").glob("test-*.parquet")))
    rows = next(file.iter_batches(count)).to_pydict()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["img"]])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, torch.tensor(rows["label"])
