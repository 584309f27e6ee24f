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
        seconds: time the iterations took, over all parts of a resumed run, without the last evaluation.
        peak_memory_mib: most resident memory of the main process; 0 where it is not known.
        hardware: processor, threads, accelerator. A run that was resumed elsewhere names each machine and the step
            until which it ran there, see ``on_machines``.
        versions: of python, torch and mistnn; of a resumed run's last part, as ``commit``.
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
        yield self
        if self.before is not None:
            yield from self.before.line()


def hardware(device: torch.device | None = None) -> str:
    """The processor, "bfloat16" if it computes in that by default, torch's threads, and the GPU that computes."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    model = next(names, platform.processor() or platform.machine())
    accelerator = f", {torch.cuda.get_device_name(device)}" if device is not None and device.type == "cuda" else ""
    half = ", bfloat16" if has_bfloat16("cpu") else ""
    return f"{model}{half}, {torch.get_num_threads()} threads{accelerator}"


def on_machines(hardware: str, before: TrainingRecord | None) -> str:
    """The hardware of a resumed run in words: "A until step 1,200; then B".

    On another kind of processor, or with another number of threads, a resumed run does not reach the same weights bit
    for bit, so a record that names one machine stands for a run on that machine alone.

    Args:
        hardware: of this part of the run.
        before: the record of the parts before; ``None`` if there are none.
    """
    if before is None or before.hardware.rpartition("; then ")[2] == hardware:
        return hardware if before is None else before.hardware
    return f"{before.hardware} until step {before.steps:,}; then {hardware}"


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
