"""An experiment: the one place where model, data, step and training loop meet."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cattrs
import torch
from torch import nn

from mistnn.data import FolderConfig, ScenesConfig, Split
from mistnn.data.folder.content import read_folder
from mistnn.data.folder.images import known_images
from mistnn.errors import MistError
from mistnn.models.air import AirConfig, AirStepConfig
from mistnn.models.conncomp import ConnCompStepConfig
from mistnn.models.mist import Mist, MistConfig, NaturalMist, StepConfig
from mistnn.models.rivals import NaturalXie20
from mistnn.models.spair import Spair, SpairConfig, SpairStepConfig
from mistnn.models.stn import BirdClassifier, Colocaliser, count_parameters
from mistnn.presets import natural_evaluation
from mistnn.presets.checks import check
from mistnn.presets.collapse import AirCollapseWatch, CollapseWatch
from mistnn.presets.evaluation import evaluate
from mistnn.presets.off_centre import OffCentreWatch
from mistnn.presets.sources import begun_with, load_backbone, with_digest
from mistnn.presets.stn_evaluation import load_encoder
from mistnn.presets.systems import (
    AnyModel,
    Classifier,
    DataConfig,
    ModelConfig,
    SceneModel,
    SceneStep,
    TrainingStepConfig,
    at_root,
    build_model,
    build_step,
    kind_of,
    open_data,
    without_paths,
)
from mistnn.presets.unknown_k import evaluate_unknown_k
from mistnn.presets.watch import Watch
from mistnn.records import collate
from mistnn.training import FitResult, TrainConfig, fit, prepare_run_folder
from mistnn.training.batches import MapDataset, batches
from mistnn.training.checkpoint import Progress
from mistnn.training.runfolder import CHECKPOINT, CONFIG, METRICS
from mistnn.weights import StoredModel, TrainingRecord, commit, hardware, load_model, read_config, save_model, versions
from mistnn.weights.store import FORMAT, package_version
from mistnn.weights.strict import explain, strict_converter, structure_whole

BACKGROUND_IMAGES = 100
"""Training images whose median is the background that SPAIR's images share (ours)."""


@dataclass(frozen=True)
class Experiment:
    """A system on images made on the fly: everything a run depends on.

    Attributes:
        model: the network, MIST's or a rival's.
        data: composed scenes (training, validation and test scenes never share a digit), Gabor noise, a folder of
            images or house numbers.
        step: the lifted step, or another way to train.
        train: the loop. Its seed also starts the weights; ``data.seed`` chooses the scenes, so that runs of different
            ``train.seed`` are tested on the same ones.
        evaluation_images: validation scenes of an evaluation during training.
        start_from: a run folder or a shipped model whose weights to start from; fresh weights if not given.
    """

    model: ModelConfig = field(default_factory=MistConfig)
    data: DataConfig = field(default_factory=ScenesConfig)
    step: TrainingStepConfig = field(default_factory=StepConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation_images: int = 200
    start_from: str | None = None

    def with_steps(self, steps: int) -> Experiment:
        """The experiment with another number of training steps; the step's schedule is rescaled in proportion."""
        step = _rescaled(self.step, self.train.steps, steps)
        return dataclasses.replace(self, step=step, train=dataclasses.replace(self.train, steps=steps))

    def with_seed_and_steps(self, seed: int, steps: int) -> Experiment:
        """As ``with_steps``, with a seed for data and weights."""
        changed = self.with_steps(steps)
        return dataclasses.replace(
            changed,
            data=dataclasses.replace(self.data, seed=seed),
            train=dataclasses.replace(changed.train, seed=seed),
        )


def _rescaled(step: TrainingStepConfig, before: int, steps: int) -> TrainingStepConfig:
    """A step's configuration for a run of another length.

    SPAIR's training wheels keep their number of iterations: without them no objects are drawn.
    """
    match step:
        case AirStepConfig():
            return dataclasses.replace(step, annealing=step.annealing * steps / before)
        case SpairStepConfig():
            scale, wheels = step.schedule_scale * steps / before, round(step.wheels * before / steps)
            return dataclasses.replace(step, schedule_scale=scale, decay_steps=steps, wheels=wheels)
        case ConnCompStepConfig():
            return step
        case _:
            rescaled = step.decay_steps and round(step.decay_steps * steps / before)
            return dataclasses.replace(step, decay_steps=rescaled)


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
    data, model_config = at_root(experiment.data, None), without_paths(experiment.model)
    experiment = dataclasses.replace(experiment, data=data, model=model_config)
    plain = strict_converter().unstructure(experiment)
    model = plain.pop("model")
    stored = StoredModel(FORMAT, package_version(), kind_of(experiment.model), model, plain, None)
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


def mist_parts(experiment: Experiment) -> tuple[MistConfig, StepConfig]:
    """Network and step of an experiment that trains MIST by lifting.

    Raises:
        MistError: if it trains another system.
    """
    if not isinstance(experiment.model, MistConfig) or not isinstance(experiment.step, StepConfig):
        raise MistError(
            f"the model is of kind {kind_of(experiment.model)}, or was not trained by lifting, and this works with "
            "MIST's own networks only: give a run of a mist-... preset"
        )
    return experiment.model, experiment.step


def build(experiment: Experiment, resume: bool = False) -> SceneStep:
    """The network with its starting weights, and its step, seeded by ``train.seed``.

    Raises:
        MistError: if the model to start from is missing, or is not the same network.
    """
    torch.manual_seed(experiment.train.seed)
    model = build_model(experiment.model)
    if isinstance(model, NaturalMist | NaturalXie20) and experiment.start_from is None and not resume:
        load_backbone(model)
    if isinstance(model, BirdClassifier) and experiment.start_from is None and not resume:
        model.load_pretrained()
    if isinstance(model, Colocaliser) and not resume:
        load_encoder(model, experiment.start_from)
    elif experiment.start_from is not None and not resume:  # a resumed run has its own weights
        wanted, found = model.state_dict(), load_model(experiment.start_from).state_dict()
        if {name: value.shape for name, value in wanted.items()} != {
            name: value.shape for name, value in found.items()
        }:
            raise MistError(
                f"--start-from {experiment.start_from} is another network than the one to train: choose its preset, or "
                "the same model.* settings"
            )
        model.load_state_dict(found)
    return build_step(model, experiment.step)


def _begin(experiment: Experiment, scenes: MapDataset, goes_on: bool) -> SceneStep:
    """Builds the network and its step.

    SPAIR also looks what the images share, where it is asked to know, and a localiser's units are scaled over a batch.
    """
    step = build(experiment, goes_on)
    if isinstance(step.model, Spair) and step.model.config.background == "shared" and not goes_on:
        step.model.learn_background(collate([scenes[place] for place in range(BACKGROUND_IMAGES)]).images)
    if isinstance(step.model, Colocaliser) and not goes_on:
        loop = experiment.train
        first = next(batches(scenes, start=0, stop=1, batch_size=loop.batch_size, seed=loop.seed))[1]
        step.model.window.wake(first.images.contiguous(memory_format=torch.channels_last))
    return step


def train(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    observe: Callable[[int, nn.Module], None] | None = None,
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
        on_note: is told how many parameters a classifier has; once if the keypoints have settled beside the objects
            (``OffCentreWatch``), or SPAIR or AIR has collapsed (``CollapseWatch``).

    Raises:
        MistError: see ``fit``; and if the data don't fit the model.
    """
    check(experiment)
    scenes = open_data(experiment.data, "train", None)
    goes_on = resume and (out / CHECKPOINT).exists()  # a run that was stopped before it saved anything starts again
    if resume and (out / CONFIG).is_file():
        experiment = dataclasses.replace(experiment, model=begun_with(experiment.model, restore(out).model))
    step = _begin(experiment, scenes, goes_on)
    experiment = dataclasses.replace(experiment, model=with_digest(experiment.model, step.model))
    save = _saver(experiment, _record_before(experiment, out, goes_on))
    prepare_run_folder(out, force=force, resume=resume)
    if observe is not None and not resume:
        observe(0, step.model)

    if not goes_on and on_note is not None:
        _note_network(step.model, experiment, on_note)
    watch = _watch(experiment, on_note if on_note is not None else lambda note: None)

    def log(iteration: int, values: dict[str, float]) -> None:
        watch.line(iteration, values)
        if on_log is not None:
            on_log(iteration, values)
        if observe is not None:
            observe(iteration, step.model)

    measures = experiment.evaluation_images > 0
    if isinstance(experiment.data, FolderConfig) and not _holds_validation(experiment.data):
        measures = False
        if on_note is not None and reads_folder(experiment):
            on_note("no validation image is known, so the threshold will be chosen on training images")

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, AnyModel)
        return evaluate(model, experiment.data, "validation", experiment.evaluation_images)

    result = fit(
        step,
        scenes,
        experiment.train,
        out,
        describe=describe(experiment),
        evaluate=validate if measures else None,
        on_log=log,
        resume=resume,
        save_model=save,
        save_start=isinstance(step.model, NaturalMist | NaturalXie20),  # whose weights may be gone when it goes on
    )
    watch.end()
    if reads_folder(experiment) and not result.interrupted:
        _store_threshold(out, experiment)
    return result


def _note_network(model: nn.Module, experiment: Experiment, say: Callable[[str], None]) -> None:
    if isinstance(model, Classifier):
        say(f"the network has {count_parameters(model):,} learnable parameters")
    if isinstance(model, NaturalMist | NaturalXie20 | BirdClassifier):
        natural_evaluation.note_random_backbone(experiment.model, experiment.start_from, say)


def reads_folder(experiment: Experiment) -> bool:
    """Whether it learns the classes of a folder of one's own; without classes there is no threshold to choose."""
    model = experiment.model
    return isinstance(experiment.data, FolderConfig) and isinstance(model, MistConfig) and bool(model.class_names)


def _saver(experiment: Experiment, before: TrainingRecord | None) -> Callable[[nn.Module, Path, Progress], None]:
    """Writes the model of a training with the record of what it took, and of the sources as they are now."""
    described, source = describe(experiment), commit()

    def save(model: nn.Module, folder: Path, progress: Progress) -> None:
        record = TrainingRecord(
            steps=progress.iteration,
            seconds=round(progress.seconds, 3),
            peak_memory_mib=round(progress.peak_memory_mib, 1),
            hardware=hardware(next(model.parameters()).device),
            versions=versions(),
            commit=source,
            start_from=experiment.start_from,
            before=before,
        )
        save_model(folder, model, described["kind"], described["model"], described["experiment"], training=record)

    return save


def _store_threshold(out: Path, experiment: Experiment) -> None:
    """Writes the model again with the threshold that counts the validation images best."""
    from mistnn.presets.own_folder import threshold_by_counts

    model = load_model(out)
    assert isinstance(model, Mist) and isinstance(experiment.data, FolderConfig)
    chosen = dataclasses.replace(model.config, threshold=round(threshold_by_counts(model, experiment.data), 6))
    described = describe(dataclasses.replace(experiment, model=chosen))
    record = read_config(out).training
    save_model(out, model, described["kind"], described["model"], described["experiment"], training=record)


def _holds_validation(data: FolderConfig) -> bool:
    """Whether the validation split holds an image that can be used."""
    assert data.root is not None
    return bool(known_images(read_folder(data.root), "validation"))


def _watch(experiment: Experiment, say: Callable[[str], None]) -> Watch:
    """What is looked out for: a collapse of SPAIR or AIR, or keypoints that settle beside the objects."""
    model = experiment.model
    if isinstance(model, SpairConfig):
        return CollapseWatch(say)
    if isinstance(model, AirConfig):
        return AirCollapseWatch(say)
    # Only classification alone has an optimum beside the objects; other systems have none, and no offset in their log.
    return OffCentreWatch(model.box_size if isinstance(model, MistConfig) and model.class_names else math.inf, say)


def _record_before(experiment: Experiment, out: Path, goes_on: bool) -> TrainingRecord | None:
    """The record of the model that a run started from, where it has one.

    A run that goes on remembers it: the model that it started from may be gone by now.
    """
    with contextlib.suppress(MistError):
        own = read_config(out).training if goes_on else None
        if own is not None:
            return own.before
        return None if experiment.start_from is None else read_config(experiment.start_from).training
    return None


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


def evaluate_stored(
    folder_or_name: Path | str,
    images: int,
    seed: int | None = None,
    root: str | None = None,
    split: Split = "test",
    progress: Callable[[int, int], None] | None = None,
    unknown_k: bool = False,
) -> dict[str, float]:
    """The metrics of a run folder or a shipped model on scenes of its own experiment.

    Args:
        folder_or_name: the model.
        images: how many scenes.
        seed: another set of scenes than the experiment's.
        root: where the digits lie, see ``ScenesConfig``.
        split: of the digits.
        progress: called with (done, of how many).
        unknown_k: measure also where K is not told, see ``evaluate_unknown_k``.
    """
    data = restore(folder_or_name).data
    data = data if root is None else at_root(data, root)
    data = data if seed is None else dataclasses.replace(data, seed=seed)
    model = load_model(folder_or_name)
    assert isinstance(model, AnyModel)
    metrics = evaluate(model, data, split, images, progress)
    if not unknown_k:
        return metrics
    assert isinstance(model, SceneModel)
    return metrics | evaluate_unknown_k(model, data, split, images)
