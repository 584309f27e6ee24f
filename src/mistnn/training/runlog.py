"""The log of a run: ``metrics.jsonl``, a progress bar, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.processes import Processes
from mistnn.training.runfolder import METRICS, TENSORBOARD, write_atomically

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as ProgressBar
    from torch.utils.tensorboard import SummaryWriter

EVALUATION = "evaluate/"
"""Prefix of the names of an evaluation's values, which are written to separate lines."""

LINE_SECONDS = 60.0
"""Where no bar can be shown, such as in a log file, a line tells the progress this often."""

Line = dict[str, Any]
"""One line of ``metrics.jsonl``: an integer ``step``, and numbers, null for values that were not finite."""

Row = dict[str, float | int | Tensor]
"""The scalars of one iteration by name."""

RESERVED = ("step", "seconds", "peak_memory_mib")


class RecentScalars:
    """The scalars of the iterations since the last line of the log, not yet read from the device."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Row]] = []

    def add(self, iteration: int, scalars: Mapping[str, float | int | Tensor]) -> None:
        """Stores the scalars of one iteration, without their graphs and without waiting for the device."""
        row = {name: value.detach() if isinstance(value, Tensor) else value for name, value in scalars.items()}
        self.rows.append((iteration, row))

    def means(self, processes: Processes, checkpoint: Path) -> dict[str, float]:
        """Means over the stored iterations and over the processes, which all call this; waits for the device.

        Raises:
            MistError: if a value is NaN or infinite, naming it and its iteration.
        """
        if not self.rows:
            return {}
        names = sorted(self.rows[0][1])
        numbers = [[torch.as_tensor(row[name], dtype=torch.float64).cpu() for name in names] for _, row in self.rows]
        values = processes.mean(torch.stack([torch.stack(row) for row in numbers]))
        for row, column in (~values.isfinite()).nonzero().tolist()[:1]:
            raise MistError(
                f"loss term {names[column]!r} is {values[row, column].item()} at iteration {self.rows[row][0]}; "
                f"{_last_good(checkpoint)}; lower the step's learning rates"
            )
        return dict(zip(names, values.mean(dim=0).tolist(), strict=True))


def check_finite_weights(model: torch.nn.Module, iteration: int, checkpoint: Path) -> None:
    """Checks the weights before they are saved: a finite loss may have had a NaN gradient.

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


class RunLog(contextlib.ExitStack):
    """The open log of a run; a context manager. It does nothing in processes other than the main one.

    Args:
        out: run folder.
        start: iterations done so far. Lines of later iterations, written after the checkpoint from which the run
            resumes, are removed, because the run will write them again.
        steps: total number of iterations, for the progress bar.
        tensorboard: also write event files.
        active: whether this process logs.
        progress: whether to show a progress bar.

    Raises:
        MistError: if TensorBoard is requested and not installed.
    """

    def __init__(
        self, out: Path, start: int, steps: int, tensorboard: bool, active: bool, progress: bool = True
    ) -> None:
        super().__init__()
        self._events = _open_events(out / TENSORBOARD, start) if tensorboard and active else None
        path = out / METRICS
        self.kept = cut_back(path, start) if active else []
        self._file = path.open("a", encoding="utf-8", buffering=1) if active else None  # flushed after each line
        console = progress_console() if active and progress else None
        self._bar = None if console is None else _make_bar(console, steps, start)
        self._lines = ProgressLines("training", start) if active and progress and console is None else None
        self._steps = steps
        self._start, self._began = start, time.monotonic()

    def __enter__(self) -> RunLog:
        """Shows the progress bar."""
        if self._events is not None:
            self.callback(self._events.close)
        if self._file is not None:
            self.enter_context(self._file)
        if self._bar is not None:
            self.enter_context(self._bar)
            self.callback(self._bar.refresh)  # in a notebook, rich does not show the last change itself
        return self

    def advance(self, done: int) -> None:
        """Moves the progress bar to the number of iterations done."""
        if self._bar is not None:
            rate = (done - self._start) / max(time.monotonic() - self._began, 1e-9)
            self._bar.update(self._bar.task_ids[0], completed=done, rate=f"{rate:.2f} it/s")
        elif self._lines is not None:
            self._lines(done, self._steps)

    def write(self, done: int, seconds: float, values: Mapping[str, float]) -> dict[str, float]:
        """Writes a line after ``done`` iterations in ``seconds``, and returns its content except ``step``.

        A value that is not finite is written as null, because JSON has no NaN.
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
        """Flushes the lines to the disk, so that the log is never behind a checkpoint."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def evaluation_at(self, done: int) -> dict[str, float] | None:
        """The evaluation of this iteration, if the log already held one when it was opened."""
        for line in self.kept:
            found = {name.removeprefix(EVALUATION): v for name, v in line.items() if name.startswith(EVALUATION)}
            if line["step"] == done and found:
                return {name: math.nan if value is None else float(value) for name, value in found.items()}
        return None


def cut_back(path: Path, done: int) -> list[Line]:
    """Removes the lines of later iterations from ``metrics.jsonl``, and an incomplete last line.

    Returns:
        The remaining lines.
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
    """The peak memory of this process in MiB; 0 on Windows, which does not record it."""
    if sys.platform == "win32":
        return 0.0
    # On Linux, getrusage gives a new process the peak of its parent; this file is about the program that runs now.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB elsewhere


def _open_events(folder: Path, start: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MistError("train.tensorboard=True needs TensorBoard: pip install tensorboard, or leave it off") from error
    return SummaryWriter(str(folder), purge_step=start + 1)


def progress_console() -> Console | None:
    """The console for the progress bar: a terminal or a notebook; ``None`` if the output goes elsewhere."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if not terminal and "IPython" not in sys.modules:  # most runs: rich need not be imported
        return None
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_jupyter:
        return console if terminal else None
    try:
        import ipywidgets  # pyright: ignore[reportMissingImports]  # noqa: F401
    except ImportError:
        # rich would warn at each refresh; a notebook also understands the carriage returns of a terminal.
        return Console(force_jupyter=False, force_terminal=True, width=100)
    return console


class ProgressLines:
    """Called with (done, total), writes to the error output how far the work is, every ``LINE_SECONDS``."""

    def __init__(self, title: str, start: int = 0) -> None:
        self.title, self.start = title, start
        self.began = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Writes a line if the last one is long ago."""
        now = time.monotonic()
        if now - self.last < LINE_SECONDS or sys.stderr is None or done >= total:
            return
        self.last = now
        left = (now - self.began) / max(done - self.start, 1) * (total - done)
        duration = f"{left / 3600:.1f} h" if left >= 5400 else f"{max(1, round(left / 60))} min"
        print(f"{self.title}: {done:,} of {total:,}, about {duration} left", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(title: str, show: bool = True) -> Iterator[Callable[[int, int], None] | None]:
    """Yields a function of (done, total) that moves a bar, or writes lines where there is no terminal or notebook.

    Without ``show``, yields ``None``.
    """
    if not show:
        yield None
        return
    console = progress_console()
    if console is None:
        yield ProgressLines(title)
        return
    from rich import progress

    bar = progress.Progress(
        title,
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        "left",
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _make_bar(console: Console, steps: int, start: int) -> ProgressBar:
    from rich import progress

    bar = progress.Progress(
        "training",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        "{task.fields[rate]}",
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        "left",
        console=console,
    )
    bar.add_task("training", total=steps, completed=start, rate="")
    return bar
