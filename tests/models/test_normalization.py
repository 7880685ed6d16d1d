import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.errors import Notice, UserError
from tutelage.models import Normalization, Normalized, bare
from tutelage.models.normalization import tell_range
from tutelage.models.zoo.tiny import tiny_cnn

IMAGENET = Normalization.named("imagenet")


@pytest.fixture
def network():
    return Normalized(tiny_cnn(10, width=4), IMAGENET.mean, IMAGENET.std).eval()


def test_inputs_are_normalised(network):
    inputs = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    assert torch.equal(network(inputs), network.model((inputs - mean) / std))


def test_weights_are_those_of_the_bare_network(network):
    assert not any(key.endswith(("mean", "std")) and "running" not in key for key in network.state_dict())
    tiny_cnn(10, width=4).load_state_dict(bare(network).state_dict())


def test_bare_unwraps_everything(network):
    model = network.model
    assert bare(model) is model
    assert bare(network) is model
    assert bare(Normalized(nn.DataParallel(model), (0.5,), (0.5,))) is model
    assert bare(torch.compile(network, backend="eager")) is model


def test_copies_compiles_and_keeps_channels_last(network):
    inputs = torch.rand(2, 3, 8, 8)
    expected = network(inputs)
    assert torch.equal(copy.deepcopy(network)(inputs), expected)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), expected, atol=1e-6)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert torch.allclose(last(inputs.to(memory_format=torch.channels_last)), expected, atol=1e-5)
    seen = []
    last.model.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    last(inputs.to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_normalises_in_float32_under_autocast(network):
    seen = []
    network.model.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.rand(2, 3, 8, 8))
    assert seen[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_follows_the_network_to_other_precisions(network, dtype):
    assert network.to(dtype)(torch.rand(2, 3, 8, 8)).dtype == dtype


def test_one_value_serves_any_channels():
    assert Normalized(tiny_cnn(10, in_channels=1), (0.5,), (0.5,))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8)])
def test_wrong_channels_are_told(network, shape):
    with pytest.raises(UserError, match="normalises 3 channels"):
        network(torch.rand(shape))


def test_bytes_are_refused(network):
    with pytest.raises(UserError, match="divide by 255"):
        network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_statistics_are_read_and_written():
    read = Normalization.parse("0.5/0.4/0.3:0.2/0.2/0.1")
    assert read == Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    assert Normalization.parse(str(read)) == read
    assert Normalization.parse("cifar100").mean[0] == 0.50707516


@pytest.mark.parametrize("text", ["0.5:0.2/0.2", "0.5:0", "a:b", "0.5:0.2:0.1", "0.5:nan", "imagnet", ""])
def test_wrong_statistics_are_refused(text):
    with pytest.raises(UserError):
        Normalization.parse(text)


class TestRange:
    """Images that are normalised already, or go to 255, are told of where a network normalises them again."""

    @pytest.fixture
    def images(self):
        return torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def evaluate(self, tmp_path, images, normalize="imagenet"):
        torch.manual_seed(0)
        torch.save(tiny_cnn(3, width=4).state_dict(), tmp_path / "w.pth")
        data = TensorDataset(images, torch.arange(60) % 3)
        name = f"tiny_cnn,width=4,normalize={normalize}@{tmp_path / 'w.pth'}"
        return tutelage.evaluate(name, data=data)

    def test_normalised_images_are_told_once_with_what_was_seen(self, tmp_path, images):
        twice = (images - 0.45) / 0.22
        seen = rf"go from {twice[:2].min():.3g} to {twice[:2].max():.3g}, and tiny_cnn.* expects 0 to 1"
        with pytest.warns(Notice, match=rf"{seen} and normalises them once more.*normalize=none") as told:
            self.evaluate(tmp_path, twice)
        assert len(told) == 1
        # A second call in this process says nothing more: warnings are errors in tests.
        self.evaluate(tmp_path, twice)

    def test_bytes_as_floats_are_told(self, tmp_path, images):
        with pytest.warns(
            Notice, match=r"to 25\d, and tiny_cnn.* expects 0 to 1 and normalises them .*divide them by 255"
        ):
            self.evaluate(tmp_path, (images * 255).round())
        with pytest.warns(Notice, match=r"to 25\d, and reach tiny_cnn.* so: divide them by 255"):
            self.evaluate(tmp_path, (images * 255).round(), normalize="none")

    def test_what_is_right_is_not_told(self, tmp_path, images):
        for right in (images, (images * 255).byte(), images * 1.04 - 0.02):
            self.evaluate(tmp_path, right)
        # Without statistics of its own a network takes normalised images as they are, and so does a module.
        self.evaluate(tmp_path, (images - 0.45) / 0.22, normalize="none")
        tell_range(tiny_cnn(3, width=4), 255 * images, data="data")

    def test_a_student_and_a_teacher_by_name_are_looked_at(self, tmp_path, images):
        data = TensorDataset((images - 0.4) / 0.2, torch.arange(60) % 3)
        options = {"data": data, "epochs": 1, "batch_size": 16, "progress": False, "precision": "32-true"}
        with pytest.warns(Notice, match="tiny_cnn,width=6.* once more"):
            tutelage.distill("supervised", student="tiny_cnn,width=6,normalize=imagenet", **options)
        torch.save(tiny_cnn(3, width=8).state_dict(), tmp_path / "t.pth")
        teacher = f"tiny_cnn,width=8,normalize=cifar10@{tmp_path / 't.pth'}"
        with pytest.warns(Notice, match="tiny_cnn,width=8.* once more"):
            tutelage.distill("kd", student=tiny_cnn(3, width=4), teacher=teacher, **options)

    def test_images_among_named_inputs_are_looked_at(self, images):
        network = Normalized(tiny_cnn(3, width=4), (0.5,), (0.5,))
        with pytest.warns(Notice, match="The images of words go from .* and a network by name"):
            tell_range(network, {"pixel_values": 2 * images - 1, "input_ids": torch.ones(2, 3)}, data="words")
        tell_range(network, {"input_ids": torch.ones(2, 3)}, data="words")
