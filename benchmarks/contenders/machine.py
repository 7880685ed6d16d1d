"""What was measured on: processor, threads, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from contenders.setting import Setting

PACKAGES = ("tutelage", "torch", "torchvision", "timm", "torchdistill", "numpy", "pillow")
_FLAGS = ("avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16")


def machine(setting: Setting) -> dict[str, Any]:
    """Return the machine and the versions, and a line that sums them up with what was measured."""
    able = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot say
    flags = [flag for flag in _FLAGS if able.get(flag)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = {package: found for package in PACKAGES if (found := _version(package))}
    threads = setting.threads or torch.get_num_threads()
    known = ", ".join(f"{package} {found}" for package, found in versions.items() if package != "tutelage")
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": threads,
        "flags": flags,
        "python": platform.python_version(),
        "versions": versions,
        "summary": f"{setting.teacher} to {setting.student} on {setting.data}, batch {setting.batch}. "
        f"{device}, {os.cpu_count()} cores, {threads} threads "
        f"({', '.join(flags) or 'no vector units known'}); {known}.",
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
