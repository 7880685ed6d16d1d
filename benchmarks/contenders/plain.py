"""Contenders in plain torch: the loop of the tutorials, and the bare step that nobody can undercut."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from contenders.pace import Pace
from contenders.setting import Setting
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.system.devices import has_native_bf16


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's small datasets hand them out: an array, of which each becomes a PIL image.

    Args:
        data: The data; their training images must be resident.
        transform: What is done to a PIL image.
    """

    def __init__(self, data: Data, transform: object = None) -> None:
        if not isinstance(data.train, ResidentImages):
            raise UserError("Throughput is compared on images that fit into memory: choose smaller ones.")
        pixels = data.train.images.numpy().transpose(0, 2, 3, 1)
        # Of grey images, PIL wants no axis for the channel.
        self.pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[3] == 1 else pixels)
        self.targets, self.transform = data.train.targets.tolist(), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        return self.transform(image), self.targets[index]


def views(data: Data) -> list[object]:
    """Return the transforms of the standard recipe."""
    return [transforms.RandomCrop(data.image_size, padding=4), transforms.RandomHorizontalFlip()]


def pictures(data: Data, network: Normalized) -> Pictures:
    """Return training images with the transforms of the standard recipe, normalised for a network."""
    statistics = transforms.Normalize(network.normalization.mean, network.normalization.std)
    return Pictures(data, transforms.Compose([*views(data), transforms.ToTensor(), statistics]))


def autocast(setting: Setting) -> torch.autocast:
    """Return bf16 mixed precision where the hardware multiplies it natively, and nothing elsewhere."""
    kind = setting.device.type
    return torch.autocast(kind, torch.bfloat16, enabled=bool(has_native_bf16(kind)))


def kd(student: Tensor, teacher: Tensor, targets: Tensor, setting: Setting) -> Tensor:
    """Return the loss of knowledge distillation as the tutorials write it."""
    t = setting.temperature
    soft = F.kl_div(F.log_softmax(student / t, dim=1), F.softmax(teacher / t, dim=1), reduction="batchmean") * t * t
    return (1 - setting.alpha) * F.cross_entropy(student, targets) + setting.alpha * soft


def textbook(setting: Setting, pace: Pace) -> nn.Module:
    """Train as the tutorials do."""
    data = setting.load()
    teacher, student = setting.networks(data)
    loader = DataLoader(pictures(data, student), batch_size=setting.batch, shuffle=True, num_workers=setting.workers)
    optimizer = setting.optimizer(student, fused=False)
    for _ in range(setting.epochs):
        student.train()
        running = 0.0
        for images, targets in loader:
            images, targets = images.to(setting.device), targets.to(setting.device)
            with torch.no_grad():
                answers = teacher.model(images)
            loss = kd(student.model(images), answers, targets, setting)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
            pace.step(optimizer)
    return student


def bare_step(setting: Setting, pace: Pace) -> nn.Module:
    """Train the student alone on a batch that is there already, as fast as compiled code goes."""
    data = setting.load()
    student = setting.networks(data)[1].to(memory_format=torch.channels_last)
    # On a GPU, the whole forward and backward pass in CUDA graphs.
    compiled = torch.compile(student, mode="reduce-overhead" if setting.device.type == "cuda" else None)
    optimizer = setting.optimizer(student, fused=True)
    batch = next(iter(setting.lent_batches(data).epoch(0)))
    for _ in range(setting.total_steps(data)):
        with autocast(setting):
            logits = compiled(batch.inputs)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), batch.targets).backward()
        optimizer.step()
        pace.step(optimizer)
    return student
