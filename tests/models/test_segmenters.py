"""Networks that classify pixels, by name."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models import segmenters
from tutelage.models.answers import answer
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalized
from tutelage.models.segmenters import multiple_of, replace_heads
from tutelage.models.spec import NetworkSpec

SIZES = {"num_classes": 5, "in_channels": 3}


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large,aux_loss=true"])
def test_torchvision_by_name(name):
    network = load_network(f"torchvision:{name}", **SIZES)
    with torch.no_grad():
        assert answer(network.eval(), torch.rand(1, 3, 40, 48)).shape == (1, 5, 40, 48)


def test_nothing_is_fetched_unless_asked_for():
    for name in ("torchvision:fcn_resnet50", "smp:PSPNet,encoder=resnet18"):
        spec = NetworkSpec.parse(name)
        assert not spec.uses_pretrained
        assert not spec.is_trained
        assert NetworkSpec.parse(f"{name},pretrained=true").uses_pretrained
    assert not NetworkSpec.parse("smp:PSPNet,pretrained=true").is_trained, "only the encoder is"
    assert not NetworkSpec.parse("smp:PSPNet,pretrained=true").trained_for(5)
    assert NetworkSpec.parse("smp:PSPNet,pretrained=true").architecture().pretrained is None


def test_both_heads_are_replaced_for_other_classes():
    import torchvision

    for name in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        extra = {"aux_loss": True} if "deeplab" in name else {}
        network = torchvision.models.get_model(name, num_classes=21, weights_backbone=None, **extra)
        replace_heads(network, 4)
        with torch.no_grad():
            found = network.eval()(torch.rand(1, 3, 32, 32))
        assert {key: value.shape[1] for key, value in found.items()} == dict.fromkeys(found, 4)


class Unet(nn.Module):
    """As segmentation-models-pytorch has them: picky about sizes."""

    requires_divisible_input_shape = True

    def __init__(self, encoder_name="resnet34", encoder_weights="imagenet", in_channels=3, classes=1, depth=5):
        super().__init__()
        if encoder_name != "resnet18":
            raise KeyError(f"no encoder {encoder_name}")
        assert encoder_weights is None
        self.encoder = nn.Conv2d(in_channels, classes, 1)
        self.encoder.output_stride = 8

    def forward(self, inputs):
        assert not inputs.shape[2] % 8
        assert not inputs.shape[3] % 8
        return self.encoder(inputs)


@pytest.fixture
def smp(monkeypatch):
    module = ModuleType("segmentation_models_pytorch")
    module.Unet = Unet
    monkeypatch.setattr(Unet, "__module__", "segmentation_models_pytorch.unet")
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", module)


def test_smp_by_name_takes_images_of_any_size(smp):
    network = load_network("smp:Unet,encoder=resnet18", **SIZES)
    assert network.multiple == multiple_of(network.model) == 8
    images = torch.rand(2, 3, 18, 30)
    whole = answer(network, images)
    assert whole.shape == (2, 5, 18, 30)
    torch.testing.assert_close(whole, network.model.encoder(images), msg="a network of single pixels sees no filling")


def test_filled_up_images_are_cut_back_only_where_the_answer_is_whole():
    coarse = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(8))
    network = Normalized(coarse, [0.0], [1.0], multiple=8)
    assert network(torch.rand(1, 3, 9, 16)).shape == (1, 4, 2, 2)
    assert Normalized(coarse, [0.0], [1.0])(torch.rand(1, 3, 9, 16)).shape == (1, 4, 1, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smp:Unett,encoder=resnet18", "no network of segmentation-models-pytorch named 'Unett'.*Unet"),
        ("smp:Unet,encoder=resnet19", "does not accept the options encoder='resnet19'.*no encoder resnet19"),
        ("smp:Unet,encoder=resnet18,width=3", "does not accept the options.*width"),
    ],
)
def test_what_smp_does_not_have_is_told(smp, name, said):
    with pytest.raises(UserError, match=said):
        load_network(name, **SIZES)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'tutelage\[dense\]'"):
        load_network("smp:Unet,encoder=resnet18", **SIZES)


def test_only_networks_of_smp_are_asked_for_their_stride():
    picky = nn.Conv2d(3, 4, 1)
    picky.requires_divisible_input_shape = True
    assert multiple_of(picky) == 1
    assert segmenters.is_segmenter("fcn_resnet50")
    assert not segmenters.is_segmenter("resnet50")


def test_an_auxiliary_head_learns_and_does_not_ship(tmp_path):
    from tutelage.core.teachers import FrozenTeacher
    from tutelage.data.batch import Batch
    from tutelage.methods import KD
    from tutelage.models.saving import save_network

    name = "torchvision:deeplabv3_mobilenet_v3_large,aux_loss=true"
    torch.manual_seed(0)
    student, images = load_network(name, **SIZES), torch.rand(2, 3, 32, 40)
    masks = torch.randint(0, 5, (2, 32, 40))
    method = KD(student, FrozenTeacher(load_network("torchvision:lraspp_mobilenet_v3_large", **SIZES)))
    (update,) = method.train().step(Batch(inputs=images, targets=masks), None)
    assert set(update.losses) == {"ce", "kd", "aux"}
    torch.manual_seed(0)
    twin = load_network(name, **SIZES).train()
    # Dropout and batch norm alone tell two forward passes in training apart; the head's own loss is finite and counts.
    assert torch.isfinite(update.losses["aux"])
    assert twin.model.aux_classifier is not None
    head = student.model.aux_classifier[-1].weight
    assert torch.autograd.grad(update.losses["aux"], head, retain_graph=True)[0].abs().sum() > 0
    (bare,) = method.step(Batch(inputs=images), None)
    assert set(bare.losses) == {"kd"}, "without masks it has nothing to learn"
    method.eval()
    assert method.student(images).logits.shape == (2, 5, 32, 40)
    assert method.student.take_auxiliary() is None
    shipped = method.export()
    assert not any("aux" in key for key in shipped.state_dict())
    save_network(tmp_path, shipped, spec=shipped.spec, num_classes=5, in_channels=3)
    again = load_network(str(tmp_path), **SIZES).eval()
    torch.testing.assert_close(answer(again, images), answer(shipped.eval(), images))
