"""Running an experiment: build, train, resume, store, restore, evaluate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cattrs
import torch
from torch import nn

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import Progress
from mistnn.experiments.system import Say, system_of
from mistnn.experiments.unknown_k import evaluate_unknown_k
from mistnn.interfaces import DataConfig, SampleDataset, Split, Step
from mistnn.training import FitResult, fit, prepare_run_folder
from mistnn.training.checkpoint import Progress as RunProgress
from mistnn.training.loop import cpu_threads
from mistnn.training.runfolder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    changes_since,
    checksums_in,
    files_of_training,
    remember,
    run_folder,
    write_inventory,
)
from mistnn.training.runlog import progress_bar
from mistnn.weights import (
    StoredModel,
    TrainingRecord,
    commit,
    explain,
    hardware,
    load_model,
    on_machines,
    package_version,
    read_config,
    save_model,
    strict_converter,
    structure_whole,
    versions,
)
from mistnn.weights.store import FORMAT


def check(experiment: Experiment) -> None:
    """Checks that the parts of an experiment fit together.

    Raises:
        MistError: naming the fields, their values and the fix.
    """
    system_of(experiment.model).check(experiment)


def build(experiment: Experiment, resuming: bool = False) -> Step:
    """The training step of an experiment, with its network, seeded by ``train.seed``.

    Args:
        experiment: what to train.
        resuming: the weights will be read from a checkpoint.

    Raises:
        MistError: if pretrained weights, or the model to start from, are missing or belong to a different network.
    """
    experiment = experiment.resolved()
    experiment.step.check_model(experiment.model)
    torch.manual_seed(experiment.train.seed)
    model = experiment.model.build()
    system_of(experiment.model).initialise(model, experiment, resuming)
    return experiment.step.build(model)


def train(
    experiment: Experiment,
    out: Path | str,
    *,
    samples: SampleDataset | None = None,
    resume: bool = False,
    force: bool = False,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    observe: Callable[[int, nn.Module], None] | None = None,
    on_note: Say | None = None,
    progress: bool = True,
) -> FitResult:
    """Trains an experiment into a run folder.

    Args:
        experiment: what to train.
        out: the run folder.
        samples: the training images; the training split of ``experiment.data`` if not given.
        resume: continue from the folder's checkpoint.
        force: remove an existing run first.
        on_log: called with each line of the log.
        observe: called with the model at each line of the log, and before the first step.
        on_note: called with each line for the user: facts about the network, and warnings during training.
        progress: show a progress bar, if there is a terminal or a notebook.

    Raises:
        MistError: if the data don't fit the model, or images can't be read; else see ``mistnn.training.fit``.
    """
    out = Path(out)
    with run_folder(out):
        say = on_note or (lambda note: None)
        system = system_of(experiment.model)
        if samples is not None and not system.takes_samples:
            raise MistError(
                f"a model of kind {experiment.model.kind!r} is trained on {system.images}: leave out samples"
            )
        if resume and (out / CONFIG).is_file():
            stored = restore(out)
            # A schedule over the whole run keeps the length that it had when the run was started.
            step = experiment.step.for_run(getattr(stored.step, "decay_steps", None) or experiment.train.steps)
            experiment = system.before_the_end(system.resume(dataclasses.replace(experiment, step=step), stored))
        experiment = experiment.resolved()
        system.check(experiment)
        resuming = resume and (out / CHECKPOINT).exists()  # a run that was stopped before its first save starts again
        inventory: dict[str, str] = {}
        if samples is None:
            samples, inventory = _opened(experiment, progress)
        for note in changes_since(out, inventory) if resuming and inventory else ():
            say(note)
        step = build(experiment, resuming)
        trained = system.training_samples(step.model, experiment, samples)
        if not resuming:
            with cpu_threads(experiment.train.threads):
                system.begin(step.model, experiment, trained)
        experiment = system.note_weights(experiment, step.model)
        save = _saver(experiment, *_records_before(experiment, out, resuming))
        prepare_run_folder(out, force=force, resume=resume)
        if not resuming:
            write_inventory(out, inventory)
        if experiment.start_from is not None and not resuming:
            remember(out, files_of_training(Path(experiment.start_from)))
        elif resuming:
            remember(out, checksums_in(inventory) - files_of_training(out))
        if observe is not None and not resume:
            observe(0, step.model)
        for note in () if resuming else system.notes(experiment, step.model):
            say(note)
        watch = system.watch(experiment, say)

        def log(iteration: int, values: dict[str, float]) -> None:
            if watch is not None:
                watch.line(iteration, values)
            if on_log is not None:
                on_log(iteration, values)
            if observe is not None:
                observe(iteration, step.model)

        result = fit(
            step,
            trained,
            experiment.train,
            out,
            describe=describe(experiment),
            evaluate=_validation(experiment),
            on_log=log,
            resume=resume,
            free=tuple(f"config.model.{name}" for name in system.chosen_last),
            save_model=save,
            save_start=system.saves_start,
            progress=progress,
        )
        if watch is not None:
            watch.end()
        if not result.interrupted:
            system.finish(out, experiment, say)
        return result


def _opened(experiment: Experiment, progress: bool) -> tuple[SampleDataset, dict[str, str]]:
    """The training images, once all are known to be readable, and their inventory."""
    samples = experiment.data.open("train")
    with progress_bar("reading images", progress) as tell:
        experiment.data.check_images(tell)
    return samples, experiment.data.inventory()


def evaluate(
    model: Any, data: DataConfig, split: Split, images: int, progress: Progress | None = None
) -> dict[str, float]:
    """The metrics of a model on one split.

    What is measured depends on the system and the data: see the ``Measurement`` classes of
    ``mistnn.experiments`` that the system names in ``measured_on``.

    Args:
        model: in any mode, which it keeps.
        data: the images.
        split: "validation" during training, "test" for numbers that are reported.
        images: how many, at most as many as there are.
        progress: called with (done, of how many).

    Raises:
        MistError: if the model is not for such images, or they can't be opened.
    """
    return system_of(model.config).measurement(model, data, split, images).run(images, progress)


def evaluate_stored(
    folder_or_name: Path | str,
    images: int,
    seed: int | None = None,
    root: str | None = None,
    split: Split = "test",
    progress: Progress | None = None,
    unknown_k: bool = False,
    device: str = "cpu",
    data: DataConfig | None = None,
) -> dict[str, float]:
    """The metrics of a run folder or a shipped model on images of its own experiment.

    Args:
        folder_or_name: the model.
        images: how many.
        seed: of another set of images than the experiment's.
        root: the folder with the images' files, if they are not where the configuration expects them.
        split: of the data.
        progress: called with (done, of how many).
        unknown_k: also measure without a given K, see ``evaluate_unknown_k``.
        device: for the network, see ``devices.find_device``.
        data: to measure on in place of the experiment's.
    """
    data = restore(folder_or_name).data if data is None else data
    data = data if root is None else data.at(root)
    data = data if seed is None else dataclasses.replace(data, seed=seed)
    model: Any = load_model(folder_or_name).to(find_device(device))
    metrics = evaluate(model, data, split, images, progress)
    return metrics | evaluate_unknown_k(model, data, split, images) if unknown_k else metrics


def describe(experiment: Experiment) -> dict[str, Any]:
    """The content of a run's ``config.json``, before any weights are saved."""
    # Where files are is a fact about this machine, not the experiment: moving a folder must not stop a run.
    experiment = experiment.resolved()
    experiment = dataclasses.replace(experiment, data=experiment.data.at(None), model=experiment.model.portable())
    plain = strict_converter().unstructure(experiment)
    model = plain.pop("model")
    return dataclasses.asdict(StoredModel(FORMAT, package_version(), model, plain, None))


def restore(folder_or_name: Path | str) -> Experiment:
    """The experiment of a run folder or a shipped model.

    Raises:
        MistError: if there is no such model, or this version can't read its configuration.
    """
    stored = read_config(folder_or_name)
    try:
        experiment = structure_whole({"model": stored.model, **stored.experiment}, Experiment)
        system_of(experiment.model).measurement_class(experiment.model, experiment.data)
        experiment.step.check_model(experiment.model)
        return experiment
    except (cattrs.BaseValidationError, ValueError, MistError) as error:
        raise MistError(
            f"{folder_or_name}: config.json can't be read: {explain(error)}; written by mistnn {stored.mistnn}, read "
            f"by {package_version()}: fix the entry or use that version"
        ) from error


def save_again(folder: Path | str, out: Path, model: nn.Module, experiment: Experiment) -> None:
    """Writes a model with a changed configuration into ``out``, with the record of its training in ``folder``."""
    described = describe(experiment)
    save_model(out, model, described["model"], described["experiment"], training=read_config(folder).training)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's ``metrics.jsonl``, oldest first.

    Raises:
        MistError: if the file is missing or unreadable.
    """
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise MistError(f"{path}: can't be read ({error}); is {folder} a run folder?") from error


def _validation(experiment: Experiment) -> Callable[[nn.Module], dict[str, float]] | None:
    """What measures the model on validation images during training, if there are any."""
    if not experiment.evaluation_images or not system_of(experiment.model).can_validate(experiment):
        return None
    return lambda model: evaluate(model, experiment.data, "validation", experiment.evaluation_images)


def _saver(
    experiment: Experiment, own: TrainingRecord | None, before: TrainingRecord | None
) -> Callable[[nn.Module, Path, RunProgress], None]:
    """What writes the model during training, with the record of what the training took until then.

    Args:
        experiment: of the run.
        own: the record of the run's parts before this one.
        before: the record of the model that the run started from.
    """
    described, source = describe(experiment), commit()

    def save(model: nn.Module, folder: Path, progress: RunProgress) -> None:
        system_of(experiment.model).keep(model, folder, experiment, progress.iteration)
        record = TrainingRecord(
            steps=progress.iteration,
            seconds=round(progress.seconds, 3),
            peak_memory_mib=round(progress.peak_memory_mib, 1),
            hardware=on_machines(hardware(next(model.parameters()).device), own),
            versions=versions(),
            commit=source,
            start_from=experiment.start_from,
            before=before,
        )
        save_model(folder, model, described["model"], described["experiment"], training=record)

    return save


def _records_before(
    experiment: Experiment, out: Path, resuming: bool
) -> tuple[TrainingRecord | None, TrainingRecord | None]:
    """The record of a resumed run so far, and that of the model that the run started from, where they have one.

    A resumed run reads the second from its own record, since the model that it started from may be gone.
    """
    with suppress(MistError):
        own = read_config(out).training if resuming else None
        if own is not None:
            return own, own.before
        return None, None if experiment.start_from is None else read_config(experiment.start_from).training
    return None, None
