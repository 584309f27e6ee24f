"""Where weights come from: the record of a training, which travels with them, and what goes into it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mistnn.nn.mixed_precision import has_bfloat16


@dataclass(frozen=True)
class TrainingRecord:
    """What a training took, and where it ran.

    Attributes:
        steps: iterations done.
        seconds: time they took, over all parts of a run that was resumed; the last evaluation is not in it, since the
            weights are written before it.
        peak_memory_mib: most resident memory of the main process, in MiB; 0 where it is not known.
        hardware: processor, threads and accelerator; of the last part of a run that was resumed, as the next two.
        versions: of python, torch and mistnn.
        commit: of the source, with "+changes" where it was not committed.
        start_from: the run folder or shipped model whose weights it started from; ``None`` for fresh weights.
        before: the record of the model it started from, where that has one.
    """

    steps: int
    seconds: float
    peak_memory_mib: float
    hardware: str
    versions: dict[str, str]
    commit: str
    start_from: str | None = None
    before: TrainingRecord | None = None

    def line(self) -> Iterator[TrainingRecord]:
        """This training and those before it, the latest first."""
        record: TrainingRecord | None = self
        while record is not None:
            yield record
            record = record.before


def hardware(device: torch.device | None = None) -> str:
    """The processor, whether it computes in bfloat16 where a step leaves that open, and how many threads torch uses.

    Args:
        device: what computes; a GPU's name is added.
    """
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    accelerator = f", {torch.cuda.get_device_name(device)}" if device is not None and device.type == "cuda" else ""
    half = ", bfloat16" if has_bfloat16("cpu") else ""
    return f"{model}{half}, {torch.get_num_threads()} threads{accelerator}"


def package_version() -> str:
    """The installed version, or "0+source" when the package runs from its source tree without being installed."""
    try:
        return version("mistnn")
    except PackageNotFoundError:
        return "0+source"


def versions() -> dict[str, str]:
    """Of python, torch and mistnn."""
    return {"python": platform.python_version(), "torch": torch.__version__, "mistnn": package_version()}


def commit() -> str:
    """The commit of the package's source, with "+changes" where it was not committed; "unknown" outside a checkout."""
    try:
        # An installed package may lie inside somebody else's checkout, whose commit says nothing about it.
        _git("ls-files", "--error-unmatch", "--", "__init__.py")
        head, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    package = Path(__file__).parents[1]
    return subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True).stdout.strip()
