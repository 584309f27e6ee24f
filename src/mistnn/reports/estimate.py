"""The time and memory that training on a folder will take, estimated from a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mistnn.data import FolderImages
from mistnn.data.folder.images import known_images
from mistnn.errors import MistError
from mistnn.experiments import build, check
from mistnn.experiments.folder import DETECTED_AT_ONCE
from mistnn.experiments.folder_plan import plan_folder
from mistnn.experiments.mist import learns_counts
from mistnn.experiments.system import system_of
from mistnn.presets.mist.my_folder import MY_FOLDER
from mistnn.reports.inspection import Inspection
from mistnn.training.batches import batches
from mistnn.training.runlog import peak_memory_mib

WARM_UP, STEPS = 1, 2
"""Steps before the measurement, which are slower, and measured steps."""


class Estimate(NamedTuple):
    """What ``mist train my-folder`` will take on this computer.

    Attributes:
        seconds: of the whole training, including reading images and periodic evaluation.
        mib: peak memory: that of this process after the steps, plus the images kept in memory; 0 if unknown.
        batch: images per step.
    """

    seconds: float
    mib: float
    steps: int
    step_seconds: float
    batch: int


def estimate_training(found: Inspection, progress: Callable[[int, int], None] | None = None) -> Estimate:
    """Runs a few steps of the planned training and extrapolates.

    The time is that of all steps, of reading each training image once (or at each use, if they are too many to keep in
    memory), and of each evaluation on validation images, with one more for the threshold.

    Args:
        found: the folder.
        progress: called with (steps done, total).

    Raises:
        MistError: if no training can be planned for the folder.
    """
    tell = progress or (lambda done, total: None)
    preset = MY_FOLDER.experiment
    own, folder = preset.at(str(found.folder.root)), found.folder
    experiment = plan_folder(own, found.given_k, folder=folder, size=found.size).experiment
    check(experiment)
    data: Any = experiment.data
    images = FolderImages(data, "train", None, folder)
    batch_size, steps = experiment.train.batch_size, experiment.train.steps
    with torch.random.fork_rng():
        step = build(experiment)
        model: Any = step.model
    samples = system_of(experiment.model).training_samples(model, experiment, images)
    begun = time.perf_counter()
    _, batch = next(batches(samples, start=0, stop=1, batch_size=batch_size, seed=0))
    reading = (time.perf_counter() - begun) / min(batch_size, samples.distinct)
    seconds = []
    for turn in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        step(batch, turn)
        seconds.append(time.perf_counter() - begun)
        tell(turn + 1, WARM_UP + STEPS + 1)
    one = min(seconds[WARM_UP:])
    begun = time.perf_counter()
    few = images.prepared(0)[None].expand(DETECTED_AT_ONCE, -1, -1, -1)
    model.eval().detect(few)
    detection = (time.perf_counter() - begun) / len(few)
    known = len(known_images(folder, "validation"))
    evaluations = -(-experiment.train.steps // experiment.train.evaluate_every)
    validated = evaluations * min(known, experiment.evaluation_images) + (known if learns_counts(experiment) else 0)
    tell(WARM_UP + STEPS + 1, WARM_UP + STEPS + 1)
    reads = min(samples.distinct, steps * batch_size) if samples.keeps else steps * batch_size
    kept = samples.room if samples.keeps else 0
    memory = peak_memory_mib()
    total = steps * one + reads * reading + validated * (detection + reading)
    return Estimate(total, memory and memory + kept / 2**20, steps, one, batch_size)


def expect(found: Inspection, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """What a training would take, or why that can't be estimated, as lines of text."""
    try:
        return describe_estimate(estimate_training(found, progress))
    except MistError as error:
        return [f"training     can't be planned yet: {error}"]


def describe_estimate(estimate: Estimate) -> list[str]:
    """The estimate as lines of text."""
    memory = f", {estimate.mib / 1024:.1f} GiB of memory" if estimate.mib else ""
    return [
        f"training     about {duration(estimate.seconds)} on this computer at its current load{memory}:",
        f"             {estimate.steps:,} steps of {estimate.batch} images, {estimate.step_seconds:.2g} s each by "
        f"{STEPS} measured steps",
    ]


def duration(seconds: float) -> str:
    """A time in words, with the precision of an estimate."""
    if seconds < 90:
        return f"{max(1, round(seconds)):d} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
