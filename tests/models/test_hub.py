import time

import pytest
import torch

from tutelage.errors import UserError
from tutelage.models import Normalization, hub, load_network


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """No hub and no cache, as on a machine without a connection."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))

    def refuse(*arguments, **options):
        raise OSError("no connection")

    monkeypatch.setattr("torch.hub.urlopen", refuse)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_networks_without_weights_are_built_for_the_data(source):
    data = Normalization.named("none")
    network = load_network(f"{source}:resnet18,pretrained=false", num_classes=7, in_channels=1, normalization=data)
    assert network.normalization == data
    assert network.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_without_a_connection_the_fix_is_told_at_once(source, unreachable):
    start = time.perf_counter()
    with pytest.raises(UserError, match="pretrained=false"):
        load_network(f"{source}:resnet18", num_classes=1000)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnt18", "resnet18"),
        ("timm:resnt18,pretrained=false", "resnet18"),
        ("timm:resnet18.nope", "resnet18.a1_in1k|resnet18.tv_in1k"),
        ("timm:botnet50ts_256", "no pretrained weights"),
        ("timm:resnet18,pretrained=false,foo=3", "cannot be built with foo=3"),
        ("timm:resnet18,pretrained=false,drop_rate=x", "takes drop_rate as a number"),
        ("timm:resnet18,pretrained=false,drop_rate=-1", "takes drop_rate as a number from 0 to below 1, not -1"),
        ("timm:vit_tiny_patch16_224,pretrained=false,depth=-1", "cannot be built with depth=-1"),
        ("timm:vit_tiny_patch16_224,pretrained=false,img_size=0", "cannot be built with img_size=0"),
        ("timm:resnet18,pretrained=false,checkpoint_path=w.pth", "timm:resnet18@FILE"),
        ("torchvision:resnet18,pretrained=false,width_per_group=x", "cannot be built with width_per_group"),
        ("torchvision:densenet121,pretrained=false,drop_rate=7", "takes drop_rate as a number from 0 to below 1"),
        ("torchvision:resnet18x", "resnet18"),
        ("torchvision:resnet18,weights=IMAGENET1K_V9", "IMAGENET1K_V1"),
        ("torchvision:resnet18,pretrained=false,foo=3", "cannot be built with foo=3"),
    ],
)
def test_mistakes_are_told(spec, message):
    with pytest.raises(UserError, match=message):
        load_network(spec, num_classes=10)


def test_pretrained_weights_bring_their_statistics_and_a_new_classifier(monkeypatch):
    import torchvision

    state = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *a, **k: state)
    network = load_network("torchvision:resnet18", num_classes=7, normalization=Normalization.named("none"))
    assert network.normalization == Normalization.named("imagenet")
    assert network.model.fc.out_features == 7
    assert torch.equal(network.model.conv1.weight, state["conv1.weight"])
    grey = load_network("torchvision:resnet18", num_classes=7, in_channels=1)
    assert grey.normalization == Normalization.named("none")
    assert torch.allclose(grey.model.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))


def test_timm_does_the_same(monkeypatch, tmp_path):
    import timm

    monkeypatch.setattr(hub, "_reachable", lambda address: False)
    state = timm.create_model("resnet10t").state_dict()
    torch.save(state, tmp_path / "w.pth")
    spec = f"timm:resnet10t,pretrained_cfg_overlay={{'file': '{tmp_path}/w.pth'}}"
    network = load_network(spec, num_classes=7, normalization=Normalization.named("none"))
    assert network.normalization == Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert network.model.fc.out_features == 7
    assert torch.equal(network.model.conv1[0].weight, state["conv1.0.weight"])


def test_a_closed_port_is_out_of_reach():
    assert not hub._reachable("http://localhost:9")
