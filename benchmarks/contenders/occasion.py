"""What is made for the occasion: a teacher that knows something, and a recording of its answers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import tutelage
from contenders.rounds import note
from contenders.setting import Setting
from tutelage.models.spec import NetworkSpec


def with_teacher(setting: Setting, folder: Path) -> Setting:
    """Return the setting with a teacher that knows something: as it comes, or trained on the labels first."""
    data = setting.load()
    if NetworkSpec.parse(setting.teacher).trained_for(data.num_classes):
        return setting
    note(f"{setting.teacher} comes untrained: training it first, for {setting.epochs} epochs.")
    tutelage.distill(
        "supervised",
        student=setting.teacher,
        data=data,
        out=folder,
        progress=False,
        epochs=setting.epochs,
        batch_size=setting.batch,
        lr=setting.lr,
        keep="last",
    )
    return replace(setting, teacher=str(folder))


def with_recording(setting: Setting, folder: Path, *, views: int = 1, keep: str = "top5") -> Setting:
    """Return the setting with a recording of the teacher: its own, or one as `tutelage record` makes it."""
    if setting.recording is not None:
        return setting
    data = setting.load()
    started = time.perf_counter()
    how = {"views": views, "keep": keep, "batch_size": 256, "progress": False}
    tutelage.record(setting.networks(data)[0], data=data, out=folder, **how)
    note(f"recorded views: {views}, after {time.perf_counter() - started:.0f} s")
    return replace(setting, recording=str(folder))
