"""The classes that a network comes with, whatever the data have."""

import pytest
import torch

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.models import hub, load_network
from tutelage.models.blueprint import answers_as_asked, blueprint
from tutelage.models.classes import class_names_of, with_own_classes
from tutelage.models.saving import save_network
from tutelage.models.spec import NetworkSpec


@pytest.fixture
def saved(tmp_path):
    """A network of twelve classes with names, and one of twelve without."""
    network = load_network("tiny_cnn,width=4", num_classes=12, in_channels=1)
    for name, classes in (("named", [f"class-{n}" for n in range(12)]), ("bare", None)):
        save_network(tmp_path / name, network, spec=network.spec, num_classes=12, in_channels=1, class_names=classes)
    return tmp_path


def test_a_saved_network_knows_the_names_of_its_classes(saved):
    assert class_names_of(NetworkSpec.parse(str(saved / "named")))[11] == "class-11"
    assert class_names_of(NetworkSpec.parse(f"tiny_cnn,width=4@{saved / 'named'}"))[0] == "class-0"
    assert class_names_of(NetworkSpec.parse(str(saved / "bare"))) == ()
    assert class_names_of(NetworkSpec.parse("tiny_cnn")) == ()


def test_pretrained_weights_know_their_datas_classes():
    torchvision = class_names_of(NetworkSpec.parse("torchvision:resnet18"))
    timm = class_names_of(NetworkSpec.parse("timm:resnet18.a1_in1k"))
    assert len(torchvision) == len(timm) == 1000
    assert (torchvision[1], timm[1]) == ("goldfish", "goldfish, Carassius auratus")


def test_pretrained_weights_keep_their_classifier_where_that_is_asked_for():
    assert with_own_classes(NetworkSpec.parse("timm:resnet18.a1_in1k")).options == {"num_classes": 1000}
    assert with_own_classes(NetworkSpec.parse("torchvision:resnet18")).options == {"num_classes": 1000}
    for other in ("tiny_cnn", "timm:resnet18,pretrained=false", "timm:resnet18.a1_in1k,num_classes=0"):
        assert with_own_classes(NetworkSpec.parse(other)) == NetworkSpec.parse(other)


def test_weights_that_keep_their_classes_or_have_none_come_trained():
    for text, trained in {
        "timm:resnet18.a1_in1k": False,
        "timm:resnet18.a1_in1k,num_classes=1000": True,
        "timm:resnet18.a1_in1k,num_classes=0": True,
        "timm:resnet18.a1_in1k,num_classes=5": False,
        "timm:resnet18,pretrained=false,num_classes=0": False,
    }.items():
        assert NetworkSpec.parse(text).trained_for(10) == trained, text


def test_a_teacher_may_have_other_classes_and_a_student_may_not(saved):
    data = load_data("digits", subset=100)
    name = str(saved / "named")
    network = blueprint(name, data, teaches=True).build(0, "teacher")
    assert network(data.example(2)).shape == (2, 12)
    assert not answers_as_asked(network, data)
    with pytest.raises(UserError, match="has 12 classes, the data 10"):
        blueprint(name, data).build(0, "student")
    assert blueprint(name, data, teaches=True, own_classes=True).class_names[0] == "class-0"
    weights = f"tiny_cnn,width=4,num_classes=12@{saved / 'named' / 'student.safetensors'}"
    assert blueprint(weights, data, teaches=True).build(0, "teacher")(data.example(2)).shape == (2, 12)
    with pytest.raises(UserError, match="returns 12 classes, but the data have 10"):
        blueprint("tiny_cnn,num_classes=12", data, teaches=True).build(0, "teacher")


def test_torchvisions_weights_without_a_classifier_answer_with_an_embedding(monkeypatch):
    import torchvision

    state = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *a, **k: state)
    for classes, width in ((0, 512), (1000, 1000)):
        name = f"torchvision:resnet18,num_classes={classes}"
        assert load_network(name, num_classes=10, any_classes=True).eval()(torch.rand(2, 3, 32, 32)).shape == (2, width)


def test_timms_weights_without_a_classifier_answer_with_an_embedding(monkeypatch, tmp_path):
    import timm

    monkeypatch.setattr(hub, "_reachable", lambda address: False)
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    overlay = f"pretrained_cfg_overlay={{'file': '{tmp_path}/w.pth'}}"
    network = load_network(f"timm:resnet10t,num_classes=0,{overlay}", num_classes=10, any_classes=True)
    assert network.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 512)
