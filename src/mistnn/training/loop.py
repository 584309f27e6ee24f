"""The one training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mistnn.errors import MistError
from mistnn.records import Batch
from mistnn.training.batches import MapDataset, batches, dataset_length, share_of_batch, to_device
from mistnn.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from mistnn.training.config import MUST_NOT_CHANGE_ON_RESUME, TrainConfig
from mistnn.training.interrupt import stop_requests
from mistnn.training.memory import keep_freed_memory
from mistnn.training.processes import Processes, join_processes, shared_gradients
from mistnn.training.protocol import Step
from mistnn.training.runfolder import CHECKPOINT, CONFIG, prepare_run_folder, write_atomically
from mistnn.training.runlog import EVALUATION, RecentScalars, RunLog, check_finite_weights, peak_memory_mib

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Metrics of a model."""

OnLog = Callable[[int, dict[str, float]], None]
"""Is told the iterations done and the values of a line of the log."""

SaveModel = Callable[[nn.Module, Path, Progress], None]
"""Writes a model into a run folder; is told how far the run is and what it took."""


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        steps: iterations done, those before a resume included.
        seconds: time they took, evaluations and saving included.
        metrics: of the last evaluation; empty if there was none, and in all processes but the main one.
        interrupted: whether Ctrl-C or SIGTERM ended it early; then the checkpoint is of this very iteration.
    """

    steps: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


def fit(
    step: Step,
    dataset: MapDataset,
    config: TrainConfig,
    out: Path,
    *,
    describe: dict[str, Any],
    evaluate: Evaluate | None = None,
    on_log: OnLog | None = None,
    resume: bool = False,
    save_model: SaveModel | None = None,
    save_start: bool = False,
) -> FitResult:
    """Trains, and keeps a run folder from which the training can go on.

    The callbacks run in the main process only. Whatever they draw from torch's global generators and whichever mode
    they leave the model in, training goes on as if they had not been called. On a CPU the process keeps what it frees
    from now on, see ``keep_freed_memory``.

    Args:
        step: what one iteration does, with its model and optimizers. This function seeds the global generator with
            ``config.seed`` only now, so whoever builds the model seeds its initialisation.
        dataset: samples by index; unlimited if it has no length.
        config: how long and how often.
        out: the run folder, made where it is missing.
        describe: written to ``config.json``; a run resumes only with the same, the package's version and the harmless
            fields of a ``train`` part excepted.
        evaluate: gives metrics of the model, which it finds in eval mode and without gradients.
        on_log: called with each line of the log: the iterations done, and the values by name.
        resume: go on from the folder's checkpoint; from the beginning if the run ended before its first one.
        save_model: writes the model into the run folder; called with each checkpoint.
        save_start: write a checkpoint before the first iteration too, for weights that can't be made again from a seed.

    Raises:
        MistError: if the folder, the checkpoint or the configuration cannot be used, or if a loss term or a weight is
            no longer finite (the last good checkpoint stays).
    """
    prepare_run_folder(out, force=False, resume=resume)
    processes = join_processes(config.device)
    dataset_length(dataset)  # this and the next refuse before anything is written
    share_of_batch(config.batch_size, processes.rank, processes.count)
    if processes.device.type == "cpu":
        keep_freed_memory()
    with (
        _cpu_threads(config.threads),
        stop_requests() as stop_requested,
        shared_gradients(step.optimizers, processes),
    ):
        step.model.to(processes.device).train()
        torch.manual_seed(config.seed)
        path = out / CHECKPOINT
        stored = {"config": describe, "train": asdict(config)}
        begun = _resume(path, step, stored, config.steps) if resume and path.exists() else Progress()
        processes.same_model(step.model)
        processes.wait()  # all have looked at the folder before one writes into it
        # A resumed run keeps the file, which describes the weights that lie beside it until the next are saved.
        if processes.main and not resume:
            write_atomically(out / CONFIG, (json.dumps(describe, indent=2) + "\n").encode())
        if processes.main and save_start and not path.exists():
            save_checkpoint(path, step, begun, stored)
        with RunLog(out, begun.iteration, config.steps, config.tensorboard, processes.main) as log:
            run = _Run(step, config, out, stored, processes, log, evaluate, on_log, save_model, begun)
            result = run.train(dataset, stop_requested)
            processes.wait()
        return result


class _Run:
    """A run that is set up: the loop, and what it does now and then."""

    def __init__(
        self,
        step: Step,
        config: TrainConfig,
        out: Path,
        stored: dict[str, Any],
        processes: Processes,
        log: RunLog,
        evaluate: Evaluate | None,
        on_log: OnLog | None,
        save_model: SaveModel | None,
        begun: Progress,
    ) -> None:
        self.step, self.config, self.out, self.stored = step, config, out, stored
        self.processes, self.log = processes, log
        self.evaluate, self.on_log, self.save_model = evaluate, on_log, save_model
        self.done = begun.iteration
        self.memory_before = begun.peak_memory_mib
        self.clock = _Clock(begun.seconds)
        self.recent = RecentScalars()

    def train(self, dataset: MapDataset, stop_requested: Callable[[], bool]) -> FitResult:
        """Iterates to the end, or until a stop is asked for."""
        config, device = self.config, self.processes.device
        metrics: dict[str, float] = {}
        if self.done and self.due(config.evaluate_every):
            # The run ended after this iteration was saved and perhaps before it was evaluated.
            metrics = self.log.evaluation_at(self.done) or self.evaluate_model()
        for iteration, batch in self.batches(dataset):
            scalars = self.step(to_device(batch, device), iteration)
            self.done = iteration + 1
            self.recent.add(iteration, scalars)
            self.log.advance(self.done, self.clock.since_start)
            stop = self.processes.any(stop_requested()) and self.done < config.steps
            if self.due(config.log_every):
                self.log_means()
            if stop or self.due(config.save_every):
                self.save()
            if stop:
                return FitResult(self.done, self.clock.seconds, metrics, interrupted=True)
            if self.due(config.evaluate_every):
                metrics = self.evaluate_model()
        return FitResult(self.done, self.clock.seconds, metrics)

    def due(self, every: int) -> bool:
        """Whether something done every so many iterations, and at the end, is to be done now."""
        return self.done == self.config.steps or (every > 0 and self.done % every == 0)

    def batches(self, dataset: MapDataset) -> Iterator[tuple[int, Batch]]:
        """This process's share of the batches still to come, with their iterations."""
        return batches(
            dataset,
            start=self.done,
            stop=self.config.steps,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=self.processes.rank,
            processes=self.processes.count,
            workers=self.config.workers,
        )

    def log_means(self) -> None:
        """Logs the means since the last line; every process helps, the main one writes."""
        means = self.recent.means(self.processes, self.out / CHECKPOINT)
        self.recent = RecentScalars()
        self.write_line(means)

    def write_line(self, values: dict[str, float]) -> None:
        """Writes a line of the log and tells the caller of ``fit``."""
        if not self.processes.main:
            return
        written = self.log.write(self.done, self.clock.seconds, values)
        if self.on_log is not None:
            with self.undisturbed():
                self.on_log(self.done, written)

    def save(self) -> None:
        """Saves a checkpoint and the model, unless they are broken: then the last good ones stay."""
        path = self.out / CHECKPOINT
        self.recent.means(self.processes, path)  # raises if a term is not finite
        check_finite_weights(self.step.model, self.done - 1, path)
        if self.processes.main:
            self.log.flush()
            memory = max(self.memory_before, peak_memory_mib())
            progress = Progress(self.done, self.clock.seconds, memory)
            save_checkpoint(path, self.step, progress, self.stored)
            if self.save_model is not None:
                with self.undisturbed():
                    self.save_model(self.step.model, self.out, progress)

    def evaluate_model(self) -> dict[str, float]:
        """Evaluates and logs in the main process."""
        if self.evaluate is None or not self.processes.main:
            return {}
        with self.undisturbed(), torch.no_grad():
            metrics = {name: float(value) for name, value in self.evaluate(self.step.model.eval()).items()}
        self.write_line({EVALUATION + name: value for name, value in metrics.items()})
        return metrics

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Whatever happens inside, the generators and the modules' modes are afterwards as training had them."""
        device = self.processes.device
        modes = [(module, module.training) for module in self.step.model.modules()]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            try:
                yield
            finally:
                for module, mode in modes:
                    module.training = mode


def _resume(path: Path, step: Step, stored: dict[str, Any], steps: int) -> Progress:
    harmless = [f"*train.{f.name}" for f in fields(TrainConfig) if f.name not in MUST_NOT_CHANGE_ON_RESUME]
    progress = load_checkpoint(path, step, stored, free=("config.mistnn", *harmless))
    if progress.iteration > steps:
        raise MistError(f"{path}: already holds iteration {progress.iteration}; give train.steps above {steps}")
    return progress


class _Clock:
    """Time of a run; a resumed one counts on from its earlier parts."""

    def __init__(self, before: float) -> None:
        self._before = before
        self._start = time.monotonic()

    @property
    def since_start(self) -> float:
        return time.monotonic() - self._start

    @property
    def seconds(self) -> float:
        return self._before + self.since_start


@contextmanager
def _cpu_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
