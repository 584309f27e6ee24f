"""MIST (CVPR 2021): how its systems are checked, watched and measured."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

from mistnn.data import FolderConfig, GaborConfig, NumbersConfig, ScatterConfig, ScenesConfig, SvhnConfig
from mistnn.data.folder.images import known_images
from mistnn.errors import MistError
from mistnn.experiments.checks import check_channels, check_classes, check_k
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.folder import DiscoveryMeasurement, FolderMeasurement, store_threshold
from mistnn.experiments.measuring import ImpulseMeasurement, Measurement, NumberMeasurement, SceneMeasurement
from mistnn.experiments.photographs import PhotographSystem
from mistnn.experiments.system import Say, System
from mistnn.experiments.watch import Watch
from mistnn.interfaces import DataConfig
from mistnn.models.mist import DenseMistConfig, LiftedStepConfig, MistConfig, NaturalMistConfig, off_centre_note

NUMBERS_PER_INPUT = 5
"""Values that a training step keeps for each pixel and channel of a patch at the first level (measured with the small
auto-encoder: 4.6)."""
MEMORY_SHARE = 0.8
"""The share of the computer's memory that the patches of a step may take (our choice)."""
WATCHED_AFTER = 200
"""Iterations before the first off-centre warning (our choice): earlier, keypoints still move, and often come back."""


class MistSystem(System):
    """MIST on digits, textures, house numbers and image folders."""

    measured_on: ClassVar = {
        ScenesConfig: SceneMeasurement,
        ScatterConfig: SceneMeasurement,
        GaborConfig: ImpulseMeasurement,
        SvhnConfig: NumberMeasurement,
        NumbersConfig: NumberMeasurement,
        FolderConfig: FolderMeasurement,
    }
    images = "digits, Gabor noise, house numbers or an image folder"
    chosen_last = ("threshold",)

    def measurement_class(self, model: Any, data: DataConfig) -> type[Measurement]:
        """On a folder, a model without classes is measured by its reconstructions."""
        found = super().measurement_class(model, data)
        return DiscoveryMeasurement if found is FolderMeasurement and not model.class_names else found

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares classes, channels, sizes and K."""
        if data.kind == FolderConfig.kind:
            _check_folder(experiment, model, data)
            return
        check_channels(model, data)
        check_k(model, data)
        check_classes(model, data)
        if data.size is not None and model.preparation.changes:
            raise MistError("model.preparation must leave these images unchanged: their size is set by data.*")
        if model.decoder and data.known.background:
            raise MistError(
                f"the decoder reconstructs images as a sum of patches on black, and these have a background of "
                f"{data.known.background:g}: give data.ground that makes it black"
            )

    def can_validate(self, experiment: Experiment) -> bool:
        """A folder may have no validation images."""
        data: Any = experiment.data
        return data.kind != FolderConfig.kind or bool(known_images(data.content(), "validation"))

    def notes(self, experiment: Experiment, model: Any) -> list[str]:
        """Says on which images the threshold will be chosen, and that a given one is not kept."""
        if not learns_counts(experiment):
            return []
        notes = []
        if model.config.threshold:
            notes.append("--model.threshold is not kept: another one is chosen after the last step")
        if not self.can_validate(experiment):
            notes.append("there are no validation images, so the threshold will be chosen on training images")
        return notes

    def watch(self, experiment: Experiment, say: Say) -> Watch:
        """Warns of keypoints beside the objects. Only pure classification has such an optimum."""
        model: Any = experiment.model
        size = model.box_size if model.class_names else math.inf
        return Watch(lambda values: off_centre_note(values, size), "offset_x", say, WATCHED_AFTER)

    def finish(self, out: Path, experiment: Experiment, say: Say) -> None:
        """Chooses the threshold of a model that counts in a folder."""
        if learns_counts(experiment):
            store_threshold(out, experiment)


class DenseSystem(System):
    """The dense variant, on house numbers."""

    measured_on: ClassVar = {SvhnConfig: NumberMeasurement, NumbersConfig: NumberMeasurement}
    images = "house numbers"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares classes, channels and K."""
        check_channels(model, data)
        check_k(model, data)
        check_classes(model, data)


def learns_counts(experiment: Experiment) -> bool:
    """Whether it learns the classes of an image folder; without classes there is no threshold to choose."""
    return experiment.data.kind == FolderConfig.kind and bool(getattr(experiment.model, "class_names", ()))


def lifted_parts(experiment: Experiment) -> tuple[MistConfig, LiftedStepConfig]:
    """Network and step of an experiment that trains MIST by lifting.

    Raises:
        MistError: if it trains another system.
    """
    if not isinstance(experiment.model, MistConfig) or not isinstance(experiment.step, LiftedStepConfig):
        raise MistError(
            f"the model is of kind {experiment.model.kind!r}, trained by a step of kind {experiment.step.kind!r}, and "
            "this works only with MIST's own networks trained by lifting: give a run of a mist-... preset"
        )
    return experiment.model, experiment.step


def _check_folder(experiment: Experiment, model: MistConfig, data: FolderConfig) -> None:
    """Checks that a model fits an image folder.

    Raises:
        MistError: naming the fields, their values and the fix.
    """
    if experiment.step.kind != LiftedStepConfig.kind:
        raise MistError("an image folder is for MIST trained by lifting: train the preset my-folder")
    if model.preparation != data.preparation or model.channels != data.channels:
        raise MistError(
            "data.preparation and data.channels must be those of the model: give --model.preparation.zoom (or .ground) "
            "and --data.preparation.zoom the same value"
        )
    if data.root is None:
        return
    folder = data.content()
    if model.class_names and folder.class_names != model.class_names:
        raise MistError(f"model.class_names={model.class_names}, but {data.root} has the classes {folder.class_names}")
    room, smallest = min((math.prod(data.preparation.size(one.height, one.width)), one.name) for one in folder.images)
    if model.k > room:
        raise MistError(
            f"K = {model.k}, the most objects in an image, is more than the {room} pixels of the smallest image after "
            f"resizing ({smallest}): remove it, fix the counts, or give a smaller --k"
        )
    needed, there = patch_bytes(model) * model.k * experiment.train.batch_size, _memory()
    if there and needed > MEMORY_SHARE * there:
        raise MistError(
            f"K = {model.k} patches of {experiment.train.batch_size} images at once take about {needed / 2**30:.0f} "
            f"GiB, and this computer has {there / 2**30:.0f}: lower --train.batch-size or --k, or fix counts.csv"
        )


def patch_bytes(model: MistConfig) -> int:
    """The approximate memory in bytes that a training step needs for each patch."""
    return NUMBERS_PER_INPUT * model.patch_size**2 * model.encoder.width * 4


def _memory() -> int:
    """Bytes of this computer's memory; 0 where the system doesn't say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


SYSTEMS = {MistConfig: MistSystem(), NaturalMistConfig: PhotographSystem(), DenseMistConfig: DenseSystem()}
