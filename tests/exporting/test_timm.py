"""A student of timm is a folder that timm reads."""

import timm
import torch
from torch.utils.data import TensorDataset

from tutelage.api import export
from tutelage.models.loading import load_network


def test_a_network_of_timm_is_made_by_timm_again(tmp_path):
    name = "timm:resnet10t,pretrained=false"
    student = load_network(f"{name},normalize=0.5/0.4/0.3:0.2/0.3/0.4", num_classes=3).eval()
    pairs = TensorDataset(torch.rand(33, 3, 32, 32), torch.arange(33) % 3)
    export(student, to=["timm"], data=pairs, out=tmp_path, progress=False)
    again = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert again.pretrained_cfg["mean"] == [0.5, 0.4, 0.3]
    images = pairs.tensors[0][:2]
    inputs = (images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(again(inputs), student(images))
