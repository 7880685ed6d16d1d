"""Which network is asked, and what is known of its images."""

import pytest
import torch
from torch import nn

from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher
from tutelage.errors import UserError
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization
from tutelage.models.saving import save_network
from tutelage.synthesis.subject import subject_of


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    network = load_network(
        "tiny_cnn", num_classes=3, in_channels=1, normalization=Normalization(mean=(0.3,), std=(0.2,))
    )
    save_network(
        tmp_path,
        network,
        spec="tiny_cnn",
        num_classes=3,
        in_channels=1,
        class_names=["a", "b", "c"],
        input_size=(8, 10),
    )
    return str(tmp_path)


def test_a_saved_run_tells_everything(run):
    found = subject_of(run)
    assert (found.class_names, found.channels, found.size) == (("a", "b", "c"), 1, (8, 10))
    assert found.statistics == Normalization(mean=(0.3,), std=(0.2,))
    assert not found.network.training
    assert not any(parameter.requires_grad for parameter in found.network.parameters())
    assert subject_of(f"tiny_cnn@{run}/student.safetensors", image_size=12).size == (12, 12)
    assert subject_of(f"tiny_cnn@{run}/student.safetensors").weights == found.weights


def test_a_module_is_copied_and_its_statistics_are_given_or_missed(network):
    bare = network.model.train()
    found = subject_of(bare, image_size=8, normalize="0.5/0.5/0.5:0.25/0.25/0.25")
    assert found.class_names == ("0", "1", "2", "3")
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(found.network(pixels), network.eval()(pixels))
    assert all(parameter.requires_grad for parameter in bare.parameters())
    with pytest.warns(UserWarning, match="taken to expect images in"):
        plain = subject_of(bare, image_size=8)
    assert plain.statistics is None
    torch.testing.assert_close(plain.normalized(plain.pixels(pixels)), pixels)


def test_a_teacher_gives_its_network_or_is_refused(network):
    assert subject_of(FrozenTeacher(network), image_size=8).channels == 3
    with pytest.raises(UserError, match="only gives answers"):
        subject_of(BlackBoxTeacher(lambda images: torch.zeros(len(images), 4), identity="box"), image_size=8)


@pytest.mark.parametrize(
    ("source", "given", "words"),
    [
        ("tiny_cnn", {"classes": 3, "image_size": 8}, "is untrained: name a run or add @FILE"),
        ("tiny_cnn", {"image_size": 8}, "how many classes"),
        ("tiny_cnn", {"classes": 3}, "say so with --image-size"),
        ("tiny_cnn", {"classes": 3, "image_size": 8, "channels": 4}, "Images of 4 channels"),
        ("tiny_cnn", {"classes": 3, "image_size": 0}, "give 1 or more"),
        ("tiny_cnn", {"normalize": "cifar10"}, "write tiny_cnn,normalize="),
    ],
)
def test_what_is_not_known_is_asked_for(source, given, words):
    with pytest.raises(UserError, match=words):
        subject_of(source, **given)


def test_a_network_that_classifies_no_images_is_refused():
    with pytest.raises(UserError, match=r"\[batch, class\]|one answer|logits|shape"):
        subject_of(nn.Conv2d(3, 4, 1), image_size=8, normalize="cifar10")
