"""The one training loop and its settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from mistnn.config import Config, at_least, below
from mistnn.devices import DeviceName
from mistnn.errors import MistError
from mistnn.interfaces import Step
from mistnn.processes import Processes, join_processes
from mistnn.records import Batch
from mistnn.training.batches import MapDataset, batches, dataset_length, share_of_batch, to_device
from mistnn.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from mistnn.training.compilation import compiled_networks
from mistnn.training.interrupt import stop_requests
from mistnn.training.memory import keep_freed_memory
from mistnn.training.processes import shared_gradients
from mistnn.training.runfolder import CHECKPOINT, CONFIG, prepare_run_folder, run_folder, write_atomically
from mistnn.training.runlog import EVALUATION, RecentScalars, RunLog, check_finite_weights, peak_memory_mib
from mistnn.weights import holds_model, read_config

_INT64 = below(2**63)  # torch's seeds and counters are 64 bits wide


@dataclass(frozen=True)
class TrainConfig(Config):
    """How long, how often and on which device to train, independent of what is trained.

    Attributes:
        steps: total number of iterations, including those before a resume.
        batch_size: images per iteration, over all processes together.
        seed: of dropout and other noise in training, and of the order of a finite data set.
        log_every: iterations between two lines of ``metrics.jsonl``; each line holds the means since the previous one.
        save_every: iterations between two checkpoints; 0 for a single one at the end.
        evaluate_every: iterations between two evaluations; 0 for a single one at the end.
        workers: extra processes that prepare batches; 0 prepares them in the training process.
        threads: CPU threads of torch; ``None`` for torch's default. A resumed run repeats the uninterrupted run bit for
            bit only with the same number, because sums are split among threads.
        tensorboard: also write event files for TensorBoard, in ``tensorboard/`` of the run folder.
        device: "auto" uses a CUDA device if there is one.
        compile: compile the networks with ``torch.compile``, on a GPU as CUDA graphs, which takes seconds to minutes
            before the first iteration; if it fails, a warning says so and training goes on.
    """

    section: ClassVar[str] = "train"

    steps: Annotated[int, at_least(1), _INT64] = 1000
    batch_size: Annotated[int, at_least(1), _INT64] = 32
    seed: Annotated[int, at_least(0), _INT64] = 0
    log_every: Annotated[int, at_least(1), _INT64] = 20
    save_every: Annotated[int, at_least(0), _INT64] = 200
    evaluate_every: Annotated[int, at_least(0), _INT64] = 0
    workers: Annotated[int, at_least(0), _INT64] = 0
    threads: Annotated[int, at_least(1), _INT64] | None = None
    tensorboard: bool = False
    device: DeviceName = "auto"
    compile: bool = False


MUST_NOT_CHANGE_ON_RESUME = ("batch_size", "seed")
"""Fields that determine the next batch and its noise; all others may change when a run resumes."""


Evaluate = Callable[[nn.Module], dict[str, float]]
"""Computes metrics of a model."""

OnLog = Callable[[int, dict[str, float]], None]
"""Receives the number of iterations done and the values of a line of the log."""

SaveModel = Callable[[nn.Module, Path, Progress], None]
"""Writes a model to a run folder, given the progress of the run."""


@dataclass(frozen=True)
class FitResult:
    """The outcome of a run.

    Attributes:
        steps: iterations done, including those before a resume.
        seconds: time they took, including evaluation and saving.
        metrics: of the last evaluation; empty if there was none, and in processes other than the main one.
        interrupted: whether Ctrl-C, SIGTERM or SIGHUP ended the run early; the checkpoint is of the last iteration.
    """

    steps: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


def fit(
    step: Step,
    dataset: MapDataset,
    config: TrainConfig,
    out: Path | str,
    *,
    describe: dict[str, Any],
    evaluate: Evaluate | None = None,
    on_log: OnLog | None = None,
    resume: bool = False,
    free: tuple[str, ...] = (),
    save_model: SaveModel | None = None,
    save_start: bool = False,
    progress: bool = True,
) -> FitResult:
    """Trains, and writes a run folder from which training can resume.

    The model is saved just before each checkpoint. So a run that dies between the two resumes from the checkpoint
    before and comes to the same weights; a model that is older than the checkpoint is saved again on a resume.

    The callbacks run in the main process only. They may draw from torch's global generators and change the model's
    mode: training continues as if they had not been called. On a CPU, the process keeps freed memory from now on, see
    ``keep_freed_memory``.

    Args:
        step: one iteration of the algorithm, with its model and optimizers. This function seeds the global generator
            with ``config.seed``; the caller seeds the initialisation of the model.
        dataset: any map-style ``torch.utils.data.Dataset`` of ``Sample``; unlimited if it has no length.
        out: the run folder, created if missing.
        describe: the content of ``config.json``. A run resumes only with the same content, except for the version of
            the package and the harmless fields of a ``train`` part.
        evaluate: computes metrics of the model, which is in eval mode, without gradients.
        on_log: called with each line of the log: the iterations done, and the values by name.
        resume: continue from the folder's checkpoint; from the start if the run ended before its first checkpoint.
        free: other parts of ``describe`` that may differ on a resume, see ``load_checkpoint``.
        save_model: writes the model to the run folder; called before each checkpoint.
        save_start: also write a checkpoint before the first iteration, for weights that a seed does not reproduce.
        progress: show a progress bar, if there is a terminal or a notebook.

    Raises:
        MistError: if another process writes to the folder, if the folder, the data set, the checkpoint or the
            configuration can't be used, or if a loss term or a weight is no longer finite (the last good checkpoint
            stays).
    """
    out = Path(out)
    with run_folder(out):
        prepare_run_folder(out, force=False, resume=resume)
        processes = join_processes(config.device)
        dataset_length(dataset)  # like the next line, refuses bad input before anything is written
        share_of_batch(config.batch_size, processes.rank, processes.count)
        if processes.device.type == "cpu":
            keep_freed_memory()
        with (
            cpu_threads(config.threads),
            stop_requests() as stop_requested,
            shared_gradients(step.optimizers, processes),
            compiled_networks(step, config.compile, config.steps, processes.device) as compiled,
        ):
            step.model.to(processes.device).train()
            torch.manual_seed(config.seed)
            path = out / CHECKPOINT
            stored = {"config": describe, "train": asdict(config)}
            begun = _resume(path, step, stored, config.steps, free) if resume and path.exists() else Progress()
            processes.same_model(step.model)
            processes.wait()  # all have read the folder before one writes to it
            # A resumed run keeps config.json, which describes the saved weights, until it saves the next ones.
            if processes.main and not resume:
                write_atomically(out / CONFIG, (json.dumps(describe, indent=2) + "\n").encode())
            if processes.main and save_start and not path.exists():
                save_checkpoint(path, step, begun, stored)
            with RunLog(out, begun.iteration, config.steps, config.tensorboard, processes.main, progress) as log:
                run = _Run(step, compiled, config, out, stored, processes, log, begun, evaluate, on_log, save_model)
                run.complete_model()
                result = run.train(dataset, stop_requested)
                processes.wait()
            return result


@dataclass
class _Run:
    """A prepared run: the loop, and its periodic work (log, save, evaluate)."""

    step: Step
    compiled: Callable[[Batch, int], dict[str, Any]]
    config: TrainConfig
    out: Path
    stored: dict[str, Any]
    processes: Processes
    log: RunLog
    begun: Progress
    evaluate: Evaluate | None
    on_log: OnLog | None
    save_model: SaveModel | None
    recent: RecentScalars = field(default_factory=RecentScalars)
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.done = self.begun.iteration

    def train(self, dataset: MapDataset, stop_requested: Callable[[], bool]) -> FitResult:
        """Iterates to the end, or until a stop is requested."""
        config, processes = self.config, self.processes
        metrics: dict[str, float] = {}
        if self.done and self.due(config.evaluate_every):
            # The run ended after saving this iteration, and perhaps before evaluating it.
            metrics = self.log.evaluation_at(self.done) or self.evaluate_model()
        for iteration, batch in batches(
            dataset,
            start=self.done,
            stop=config.steps,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=processes.rank,
            processes=processes.count,
            workers=config.workers,
        ):
            scalars = self.compiled(to_device(batch, processes.device), iteration)
            self.done = iteration + 1
            self.recent.add(iteration, scalars)
            self.log.advance(self.done)
            stop = processes.any(stop_requested()) and self.done < config.steps
            if self.due(config.log_every):
                self.log_means()
            if stop or self.due(config.save_every):
                self.save()
            if stop:
                return FitResult(self.done, self.seconds, metrics, interrupted=True)
            if self.due(config.evaluate_every):
                metrics = self.evaluate_model()
        return FitResult(self.done, self.seconds, metrics)

    def complete_model(self) -> None:
        """Saves the model of the checkpoint that a run resumes from, if the folder holds none or an older one."""
        if self.save_model is None or not self.processes.main or not self.done:
            return
        behind = self.done == self.config.steps and not holds_model(self.out, self.step.model)
        with suppress(MistError):  # no model of ours
            record = read_config(self.out).training
            behind = behind or record is None or record.steps < self.done
        if behind:
            with self.undisturbed():
                self.save_model(self.step.model, self.out, self.begun)

    @property
    def seconds(self) -> float:
        """Time of the run, including the earlier parts of a resumed one."""
        return self.begun.seconds + time.monotonic() - self.start

    def due(self, every: int) -> bool:
        """Whether periodic work is due: every so many iterations (never for 0), and at the end."""
        return self.done == self.config.steps or (every > 0 and self.done % every == 0)

    def log_means(self) -> None:
        """Logs the means since the last line. All processes contribute, the main one writes."""
        means = self.recent.means(self.processes, self.out / CHECKPOINT)
        self.recent = RecentScalars()
        self.write_line(means)

    def write_line(self, values: dict[str, float]) -> None:
        """Writes a line of the log and passes it to ``on_log``."""
        if not self.processes.main:
            return
        written = self.log.write(self.done, self.seconds, values)
        if self.on_log is not None:
            with self.undisturbed():
                self.on_log(self.done, written)

    def save(self) -> None:
        """Saves the model and a checkpoint, unless they are broken: then the last good ones stay."""
        path = self.out / CHECKPOINT
        self.recent.means(self.processes, path)  # raises if a term is not finite
        check_finite_weights(self.step.model, self.done - 1, path)
        if self.processes.main:
            self.log.flush()
            memory = max(self.begun.peak_memory_mib, peak_memory_mib())
            progress = Progress(self.done, self.seconds, memory)
            # The model first: if the run dies between the two, it resumes from the checkpoint before.
            if self.save_model is not None:
                with self.undisturbed():
                    self.save_model(self.step.model, self.out, progress)
            save_checkpoint(path, self.step, progress, self.stored)

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
        """Restores the random generators and the modules' modes on exit."""
        device = self.processes.device
        modes = [(module, module.training) for module in self.step.model.modules()]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            try:
                yield
            finally:
                for module, mode in modes:
                    module.training = mode


def _resume(path: Path, step: Step, stored: dict[str, Any], steps: int, free: tuple[str, ...]) -> Progress:
    harmless = [f"*train.{f.name}" for f in fields(TrainConfig) if f.name not in MUST_NOT_CHANGE_ON_RESUME]
    progress = load_checkpoint(path, step, stored, free=("config.mistnn", *harmless, *free))
    if progress.iteration > steps:
        raise MistError(f"{path}: already holds iteration {progress.iteration}; give train.steps above {steps}")
    return progress


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Runs a block with so many CPU threads of torch; ``None`` for the present number."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
