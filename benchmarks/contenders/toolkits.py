"""Contenders from the registry: torchdistill's distillation box and timm's distillation task.

The loops around them are ours, and do what their documentation and training scripts say.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision.datasets  # noqa: F401  (torchdistill looks for it among the loaded modules)
from torch import nn
from torchvision import transforms

from contenders.pace import Pace
from contenders.plain import Pictures, autocast, pictures, views
from contenders.setting import Setting
from tutelage.data.dataset import Data
from tutelage.models.normalization import Normalized


def box_configuration(setting: Setting, *, fused: bool) -> dict[str, Any]:
    """Return the configuration of a distillation box: that of its CIFAR-100 samples, with our numbers.

    In `KDLoss`, `alpha` weights the cross-entropy and `beta` the soft term.
    """
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}},
        "kwargs": {"batch_size": setting.batch, "num_workers": setting.workers},
    }
    logits = {f"{who}_module_{what}": value for who in ("student", "teacher") for what, value in _OUTPUT.items()}
    loss = {
        "key": "KDLoss",
        "kwargs": {
            **logits,
            "temperature": setting.temperature,
            "alpha": 1 - setting.alpha,
            "beta": setting.alpha,
            "reduction": "batchmean",
        },
    }
    sgd = {"lr": setting.lr, "momentum": setting.momentum, "weight_decay": setting.weight_decay}
    network = {"forward_proc": "forward_batch_only", "sequential": [], "frozen_modules": []}
    return {
        "num_epochs": setting.epochs,
        "train_data_loader": loader,
        "teacher": {**network, "requires_grad": False},
        "student": {**network, "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": sgd | ({"fused": True} if fused else {})},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }


_OUTPUT = {"path": ".", "io": "output"}


def box_of(setting: Setting, teacher: nn.Module, student: nn.Module, dataset: Any, *, fused: bool) -> Any:
    """Return torchdistill's distillation box."""
    from torchdistill.core.distillation import get_distillation_box

    configuration = box_configuration(setting, fused=fused)
    return get_distillation_box(teacher, student, {"train": dataset}, configuration, setting.device, None, False, 1)


def torchdistill_sample(setting: Setting, pace: Pace) -> nn.Module:
    """Train by torchdistill as its sample configurations for CIFAR-100 do."""
    data = setting.load()
    teacher, student = setting.networks(data)
    box = box_of(setting, teacher.model, student.model, pictures(data, student), fused=False)
    for epoch in range(setting.epochs):
        box.pre_epoch_process(epoch=epoch)
        running = 0.0
        for images, targets, more in box.train_data_loader:
            images, targets = images.to(setting.device), targets.to(setting.device)
            loss = box.forward_process(images, targets, more)
            box.post_forward_process(loss=loss)
            running += loss.item()
            pace.step(box.optimizer)
        box.post_epoch_process()
    return student


def torchdistill_best(setting: Setting, pace: Pace) -> nn.Module:
    """Train by torchdistill with the fastest that one can hand to it."""
    data = setting.load()
    teacher, student = (network.to(memory_format=torch.channels_last) for network in setting.networks(data))
    box = box_of(setting, torch.compile(teacher), torch.compile(student), Pictures(data), fused=True)
    batches = setting.lent_batches(data)
    for epoch in range(setting.epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch in batches.epoch(epoch):
            with autocast(setting):
                loss = box.forward_process(batch.inputs, batch.targets, {})
            box.post_forward_process(loss=loss)
            pace.step(box.optimizer)
        box.post_epoch_process()
    return student


def task_of(setting: Setting, teacher: nn.Module, student: nn.Module, normalized: Normalized, data: Data) -> Any:
    """Return timm's distillation task."""
    from timm.task import DistillationTeacher, LogitDistillationTask

    statistics = {"mean": normalized.normalization.mean, "std": normalized.normalization.std}
    for network in (teacher, student):
        # What timm knows of its own networks; both are the same, so that it converts nothing.
        network.pretrained_cfg = statistics
        network.num_classes, network.in_chans = data.num_classes, data.in_channels
    return LogitDistillationTask(
        student_model=student,
        teacher_model=DistillationTeacher(teacher, device=setting.device),
        criterion=nn.CrossEntropyLoss(),
        task_loss_weight=1 - setting.alpha,
        distill_loss_weight=setting.alpha,
        temperature=setting.temperature,
        device=setting.device,
        verbose=False,
    )


def timm_loader(setting: Setting, data: Data, network: Normalized, *, prefetcher: bool) -> Any:
    """Return timm's loader, with the transforms of the standard recipe in place of those for ImageNet."""
    from timm.data import create_loader
    from timm.data.transforms import MaybePILToTensor

    dataset = Pictures(data)
    mean, std = network.normalization.mean, network.normalization.std
    loader = create_loader(
        dataset,
        input_size=(data.in_channels, *data.image_size),
        batch_size=setting.batch,
        is_training=True,
        num_workers=setting.workers,
        use_prefetcher=prefetcher,
        mean=mean,
        std=std,
        device=setting.device,
        pin_memory=setting.device.type == "cuda",
        persistent_workers=setting.workers > 0,
    )
    # With the prefetcher, images stay uint8 until they are normalised on the device, a batch at a time.
    last = [MaybePILToTensor()] if prefetcher else [transforms.ToTensor(), transforms.Normalize(mean, std)]
    dataset.transform = transforms.Compose([*views(data), *last])
    return loader


def timm_optimizer(setting: Setting, student: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """Return timm's SGD without Nesterov's step, with weight decay on every parameter like everybody's."""
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(
        student,
        opt="momentum",
        lr=setting.lr,
        weight_decay=setting.weight_decay,
        momentum=setting.momentum,
        filter_bias_and_bn=False,
        **({"fused": True} if fused else {}),
    )


def timm_plain(setting: Setting, pace: Pace) -> nn.Module:
    """Train by timm's task without any switch."""
    data = setting.load()
    teacher, student = setting.networks(data)
    task = task_of(setting, teacher.model, student.model, student, data)
    optimizer = timm_optimizer(setting, student.model, fused=False)
    loader = timm_loader(setting, data, student, prefetcher=False)
    for _ in range(setting.epochs):
        task.train()
        for images, targets in loader:
            loss = task(images.to(setting.device), targets.to(setting.device))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace.step(optimizer)
    return student


def timm_fast(setting: Setting, pace: Pace) -> nn.Module:
    """Train by timm's task with all switches of its training script."""
    data = setting.load()
    teacher, student = (network.to(memory_format=torch.channels_last) for network in setting.networks(data))
    task = task_of(setting, teacher.model, student.model, student, data)
    optimizer = timm_optimizer(setting, student.model, fused=True)
    task.compile()
    loader = timm_loader(setting, data, student, prefetcher=True)
    for _ in range(setting.epochs):
        task.train()
        for images, targets in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            _timm_step(setting, task, optimizer, images, targets)
            pace.step(optimizer)
    return student


def timm_lent(setting: Setting, pace: Pace) -> nn.Module:
    """Train by timm's task with all switches, on batches that are lent to it instead of its loader's."""
    data = setting.load()
    teacher, student = (network.to(memory_format=torch.channels_last) for network in setting.networks(data))
    task = task_of(setting, teacher, student, student, data)
    optimizer = timm_optimizer(setting, student, fused=True)
    task.compile()
    batches = setting.lent_batches(data)
    for epoch in range(setting.epochs):
        task.train()
        for batch in batches.epoch(epoch):
            _timm_step(setting, task, optimizer, batch.inputs, batch.targets)
            pace.step(optimizer)
    return student


def _timm_step(setting: Setting, task: Any, optimizer: torch.optim.Optimizer, images: Any, targets: Any) -> None:
    with autocast(setting):
        loss = task(images, targets)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
