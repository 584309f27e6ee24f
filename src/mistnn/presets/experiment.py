"""An experiment: the one place where model, data, step and training loop meet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cattrs
import torch
from torch import nn

from mistnn.data import Scenes, ScenesConfig, Split
from mistnn.errors import MistError
from mistnn.models.mist import LiftedStep, Mist, MistConfig, StepConfig, off_centre_note
from mistnn.records import Detections, collate
from mistnn.training import FitResult, TrainConfig, fit, prepare_run_folder
from mistnn.training.runfolder import METRICS
from mistnn.weights import StoredModel, load_model, read_config, save_model
from mistnn.weights.store import FORMAT, package_version
from mistnn.weights.strict import explain, strict_converter, structure_whole

KIND = "mist"
EVALUATION_BATCH = 50


@dataclass(frozen=True)
class Experiment:
    """MIST on composed scenes: everything a run depends on.

    Attributes:
        model: the network.
        data: the scenes; training, validation and test scenes never share a digit.
        step: the lifted step.
        train: the loop. Its seed also starts the weights; ``data.seed`` chooses the scenes, so that runs of different
            ``train.seed`` are tested on the same ones.
        evaluation_images: validation scenes of an evaluation during training.
        start_from: a run folder or a shipped model whose weights to start from; fresh weights if not given.
    """

    model: MistConfig = field(default_factory=MistConfig)
    data: ScenesConfig = field(default_factory=ScenesConfig)
    step: StepConfig = field(default_factory=StepConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation_images: int = 200
    start_from: str | None = None


@dataclass(frozen=True)
class Preset:
    """A named experiment.

    Attributes:
        name: what ``mist train`` takes.
        summary: one line for ``mist presets``.
        experiment: its settings.
    """

    name: str
    summary: str
    experiment: Experiment


def describe(experiment: Experiment) -> dict[str, Any]:
    """The content of a run's ``config.json``."""
    # Where the digits lie is of this machine, not of the experiment: a moved folder must not stop a run.
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, root=None))
    plain = strict_converter().unstructure(experiment)
    model = plain.pop("model")
    stored = StoredModel(FORMAT, package_version(), KIND, model, plain, None)
    return dataclasses.asdict(stored)


def restore(folder_or_name: Path | str) -> Experiment:
    """The experiment that a run folder or a shipped model remembers.

    Raises:
        MistError: if there is no such model, or its configuration is not of this version.
    """
    stored = read_config(folder_or_name)
    try:
        return structure_whole({"model": stored.model, **stored.experiment}, Experiment)
    except (cattrs.BaseValidationError, ValueError) as error:
        why = explain(error) if isinstance(error, cattrs.BaseValidationError) else str(error)
        raise MistError(
            f"{folder_or_name}: config.json can't be read: {why}; written by mistnn {stored.mistnn}, read by "
            f"{package_version()}: mend the entry or use that version"
        ) from error


def build(experiment: Experiment, resume: bool = False) -> LiftedStep:
    """The network with its starting weights, and its step, seeded by ``train.seed``.

    Raises:
        MistError: if the model to start from is missing, or is not the same network.
    """
    torch.manual_seed(experiment.train.seed)
    model = Mist(experiment.model)
    if experiment.start_from is not None and not resume:  # a resumed run has its own weights
        wanted, found = model.state_dict(), load_model(experiment.start_from).state_dict()
        if {name: value.shape for name, value in wanted.items()} != {
            name: value.shape for name, value in found.items()
        }:
            raise MistError(
                f"--start-from {experiment.start_from} is another network than the one to train: choose its preset, or "
                "the same model.* settings"
            )
        model.load_state_dict(found)
    return LiftedStep(model, experiment.step)


def train(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    observe: Callable[[int, Mist], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FitResult:
    """Trains an experiment into a run folder.

    Args:
        experiment: what to train.
        out: the run folder.
        resume: go on from its checkpoint.
        force: remove a run that is there first.
        on_log: hears every line of the log.
        observe: is given the model at every line of the log, and before the first step.
        on_note: is told once, at the end, if the keypoints have settled beside the objects.

    Raises:
        MistError: see ``fit``; and if the data don't fit the model.
    """
    check(experiment)
    scenes = Scenes(experiment.data, "train", None)
    step = build(experiment, resume)
    prepare_run_folder(out, force=force, resume=resume)
    described = describe(experiment)
    if observe is not None and not resume:
        observe(0, step.model)

    last: dict[str, float] = {}

    def log(iteration: int, values: dict[str, float]) -> None:
        last.update(values)
        if on_log is not None:
            on_log(iteration, values)
        if observe is not None:
            observe(iteration, step.model)

    def save(model: nn.Module, folder: Path) -> None:
        save_model(folder, model, KIND, described["model"], described["experiment"])

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Mist)
        return evaluate(model, experiment.data, "validation", experiment.evaluation_images)

    result = fit(
        step,
        scenes,
        experiment.train,
        out,
        describe=described,
        evaluate=validate if experiment.evaluation_images else None,
        on_log=log,
        resume=resume,
        save_model=save,
    )
    note = off_centre_note(last, experiment.model.box_size) if "offset_x" in last else None
    if note is not None and on_note is not None:
        on_note(note)
    return result


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's ``metrics.jsonl``, the oldest first.

    Raises:
        MistError: if the file is missing or no longer readable.
    """
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise MistError(f"{path}: can't be read ({error}); is {folder} a run folder?") from error


def check(experiment: Experiment) -> None:
    """Refuses an experiment whose parts don't fit each other.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    model, data = experiment.model, experiment.data
    if model.class_names and len(model.class_names) != data.classes:
        raise MistError(
            f"model.class_names has {len(model.class_names)} classes and data.classes={data.classes}: make them equal"
        )
    if not 1 <= model.k <= data.canvas**2:
        raise MistError(f"model.k={model.k} must be from 1 to the {data.canvas**2} pixels of the canvas")
    if model.channels != 1:
        raise MistError(f"model.channels={model.channels}, but composed digits are grey: give 1")
    if experiment.evaluation_images < 0:
        raise MistError(
            f"evaluation_images={experiment.evaluation_images} is negative: give 0 to measure nothing while training"
        )


def evaluate(
    model: Mist, data: ScenesConfig, split: Split, images: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """The metrics of a model on scenes whose number of objects is known: K is each scene's own count.

    Args:
        model: in any mode; left in it.
        data: the scenes.
        split: "validation" while training, "test" for a number that is reported.
        images: how many scenes.
        progress: called with (done, of how many).

    Returns:
        See ``mistnn.metrics.DetectionMetrics``.
    """
    from mistnn.metrics import DetectionMetrics

    scenes = Scenes(data, split, images)
    metrics = DetectionMetrics()
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for start in range(0, images, EVALUATION_BATCH):
            samples = [scenes[index] for index in range(start, min(start + EVALUATION_BATCH, images))]
            by_count: dict[int, list[int]] = {}
            for position, sample in enumerate(samples):
                assert sample.labels is not None
                by_count.setdefault(len(sample.labels), []).append(position)
            for count, positions in by_count.items():
                batch = collate([samples[position] for position in positions])
                assert batch.boxes is not None
                # There is no K of 0: in a scene without objects, 1 is found and left out again.
                found = [
                    Detections(
                        boxes=detections.boxes[:count].cpu(),
                        scores=detections.scores[:count].cpu(),
                        labels=None if detections.labels is None else detections.labels[:count].cpu(),
                    )
                    for detections in model.detect(batch.images.to(device), max(1, count))
                ]
                metrics.update(found, batch.boxes, batch.labels if model.class_names else None)
            if progress is not None:
                progress(min(start + EVALUATION_BATCH, images), images)
    model.train(was_training)
    # K was given, so the number of detections is always right and says nothing.
    return {name: value for name, value in metrics.compute().items() if name != "count_error"}


def evaluate_stored(
    folder_or_name: Path | str,
    images: int,
    seed: int | None = None,
    root: str | None = None,
    split: Split = "test",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The metrics of a run folder or a shipped model on scenes of its own experiment.

    Args:
        folder_or_name: the model.
        images: how many scenes.
        seed: another set of scenes than the experiment's.
        root: where the digits lie, see ``ScenesConfig``.
        split: of the digits.
        progress: called with (done, of how many).
    """
    data = restore(folder_or_name).data
    data = dataclasses.replace(data, root=data.root if root is None else root, seed=data.seed if seed is None else seed)
    model = load_model(folder_or_name)
    assert isinstance(model, Mist)
    return evaluate(model, data, split, images, progress)
