"""What a run tells while it trains: ``metrics.jsonl``, a progress bar, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.training.processes import Processes
from mistnn.training.runfolder import METRICS, TENSORBOARD, write_atomically

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar
    from torch.utils.tensorboard import SummaryWriter

EVALUATION = "evaluate/"
"""Beginning of the names of an evaluation's values, which have lines of their own."""

Line = dict[str, Any]
"""One line of ``metrics.jsonl``: an integer ``step``, and numbers, null where one was not finite."""

RESERVED = ("step", "seconds", "peak_memory_mib")


class RecentScalars:
    """The scalars of the iterations since the last line of the log, not yet read from the device."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float | int | Tensor]]] = []

    def add(self, iteration: int, scalars: Mapping[str, float | int | Tensor]) -> None:
        """Keeps one iteration's scalars, without their graphs and without waiting for the device."""
        row: dict[str, float | int | Tensor] = {
            name: value.detach() if isinstance(value, Tensor) else value for name, value in scalars.items()
        }
        self.rows.append((iteration, row))

    def means(self, processes: Processes, checkpoint: Path) -> dict[str, float]:
        """Means over the iterations kept and over the processes; waits for the device.

        Args:
            processes: all of them call this at the same iteration.
            checkpoint: the file that the error message points to.

        Raises:
            MistError: if a value is NaN or infinite, naming it and the first iteration it was so.
        """
        if not self.rows:
            return {}
        names = sorted(self.rows[0][1])
        values = processes.mean(
            torch.stack([torch.stack([self._number(row[name]) for name in names]) for _, row in self.rows])
        )
        for row, column in (~values.isfinite()).nonzero().tolist()[:1]:
            raise MistError(
                f"loss term {names[column]!r} is {values[row, column].item()} at iteration {self.rows[row][0]}; "
                f"{_last_good(checkpoint)}; lower the step's learning rates"
            )
        return dict(zip(names, values.mean(dim=0).tolist(), strict=True))

    @staticmethod
    def _number(value: float | int | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).cpu()


def check_finite_weights(model: torch.nn.Module, iteration: int, checkpoint: Path) -> None:
    """Refuses to go on with a broken model: a finite loss may still have had a NaN gradient.

    Raises:
        MistError: naming the first parameter that holds NaN or infinity.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise MistError(
                f"parameter {name!r} is not finite after iteration {iteration}; {_last_good(checkpoint)}; "
                "lower the step's learning rates"
            )


def _last_good(checkpoint: Path) -> str:
    return f"the last good checkpoint stays: {checkpoint}" if checkpoint.exists() else "there was no checkpoint yet"


class RunLog:
    """The open log of a run; a context manager. In all processes but the main one it does nothing.

    Args:
        out: run folder.
        start: iterations done so far. Lines of later ones, written after the checkpoint that the run resumes from, are
            removed: they will be written again.
        steps: iterations in all, for the progress bar.
        tensorboard: also write event files.
        active: whether this process logs.

    Raises:
        MistError: if TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, start: int, steps: int, tensorboard: bool, active: bool) -> None:
        self._active = active
        self._events = _open_events(out / TENSORBOARD, start) if tensorboard and active else None
        path = out / METRICS
        self.kept = cut_back(path, start) if active else []
        self._file = path.open("a", encoding="utf-8", buffering=1) if active else None  # a line is written at once
        self._start = start
        self._bar = _open_bar(steps, start) if active and sys.stderr.isatty() else None
        self._bar_task = self._bar.task_ids[0] if self._bar else None

    def __enter__(self) -> RunLog:
        """Shows the progress bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes everything."""
        if self._bar is not None:
            self._bar.stop()
        if self._events is not None:
            self._events.close()
        if self._file is not None:
            self._file.close()

    def advance(self, done: int, seconds: float) -> None:
        """Moves the progress bar.

        Args:
            done: iterations done.
            seconds: since this process began to train.
        """
        if self._bar is not None and self._bar_task is not None:
            rate = (done - self._start) / max(seconds, 1e-9)
            self._bar.update(self._bar_task, completed=done, rate=f"{rate:.2f} it/s")

    def write(self, done: int, seconds: float, values: Mapping[str, float]) -> dict[str, float]:
        """Writes one line, and returns what was written besides ``step``.

        Args:
            done: iterations done.
            seconds: time they took, over all parts of a resumed run.
            values: by name; one that is not finite is written as null, since JSON has no NaN.
        """
        taken = [name for name in values if name in RESERVED]
        if taken:
            raise ValueError(f"a scalar cannot be called {taken[0]!r}: the log has its own")
        scalars = {"seconds": round(seconds, 3), **values, "peak_memory_mib": round(peak_memory_mib(), 1)}
        if self._file is not None:
            line = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
            self._file.write(json.dumps({"step": done, **line}) + "\n")
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, done)
        return scalars

    def flush(self) -> None:
        """Makes sure that the lines written so far are on the disk, as a checkpoint of the same iteration will be."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def evaluation_at(self, done: int) -> dict[str, float] | None:
        """An evaluation that the log already held for this iteration when it was opened."""
        for line in self.kept:
            if line["step"] == done and any(name.startswith(EVALUATION) for name in line):
                found = {k.removeprefix(EVALUATION): v for k, v in line.items() if k.startswith(EVALUATION)}
                return {name: math.nan if value is None else float(value) for name, value in found.items()}
        return None


def cut_back(path: Path, done: int) -> list[Line]:
    """Removes from ``metrics.jsonl`` the lines of later iterations, and a last one that was cut as it was written.

    Returns:
        The lines that stay.
    """
    if not path.exists():
        return []
    kept: list[Line] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if line["step"] <= done:
            kept.append(line)
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return kept


def peak_memory_mib() -> float:
    """Most memory this process ever held, in MiB; 0 on Windows, which doesn't count it."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB on Linux


def _open_events(folder: Path, start: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MistError("train.tensorboard=True needs TensorBoard: pip install tensorboard, or leave it off") from error
    return SummaryWriter(str(folder), purge_step=start + 1)


def _open_bar(steps: int, start: int) -> ProgressBar:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        "training",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        "{task.fields[rate]}",
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        "left",
        console=Console(stderr=True),
    )
    bar.add_task("training", total=steps, completed=start, rate="")
    return bar
