"""Settings for a folder of photographs, chosen from what it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median
from typing import Any

from mistnn.data import FolderImage, OwnFolder, SizeSuggestion
from mistnn.data.folder.content import noticed
from mistnn.data.folder.images import MEASURED_IMAGES, Flips, Range, evenly, measured_images, object_size_of, range_of
from mistnn.data.text_files import listed
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment, Planned
from mistnn.experiments.photo_estimate import count_estimate
from mistnn.experiments.photo_orientation import are_upright
from mistnn.experiments.photo_size import photo_size
from mistnn.models.photos import PhotoConfig, PhotoStepConfig
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig
from mistnn.training import TrainConfig

PHOTO_TRAIN = TrainConfig(steps=800, batch_size=32, log_every=20, save_every=100, evaluate_every=200)
"""The length of a run (our choice)."""
LONGEST = 512
"""Pixels to which the longest edge of the largest image is reduced for one class (our choice)."""
LONGEST_OF_CLASSES, ENLARGED = 768, 1.5
"""The same for several classes, which differ in details, and the most that small images are enlarged (our choice)."""
DROPOUT = 0.3
"""For several classes, which are learned by heart more easily than places; not tried with one class (our choice)."""
WIDTH, WIDTH_OF_ONE = 64, 32
"""Channels of the head for several classes, and for one, whose grid is often fine and makes them slow (our choice)."""
CELLS = 5.0
"""The coarsest grid is chosen on which an object is at least so many cells wide (our choice)."""
ROOM = 1.5
"""K, as a multiple of the most objects in a training image: the most that is ever reported (our choice)."""
MUCH_LARGER = 3.0
"""An image so many times larger than the median is named (our choice)."""
LEAST_BOX = 8
"""Two cells of the finest grid: smaller objects are named (our choice)."""
UPRIGHT: dict[Flips, str] = {
    "all": "the images look the same upside down: training turns them by quarters (--data.flips mirror or none)",
    "mirror": "the images have an upper side: training flips them left-right only (--data.flips all or none)",
}
CELLS_AT_ONCE = 250_000
"""Cells of all images of a batch, padding included, which bound its memory (our choice)."""


def plan_photos(
    experiment: Experiment, k: int | None = None, *, folder: OwnFolder | None = None, size: SizeSuggestion | None = None
) -> Planned:
    """Chooses sizes, grid, classes and K from what a folder of photographs holds.

    Args:
        experiment: the preset; ``data.root`` is the folder.
        k: the most objects to report for an image; by default 1.5 times the most in a training image.
        folder: its content, if it has been read already.
        size: of its objects, if it has been measured already.

    Raises:
        MistError: if the folder can't be used, or has no counts.
    """
    data: Any = experiment.data
    if data.root is None:
        raise MistError("my-photos needs your image folder: `mist train my-photos --data-root DIR`")
    folder = data.content() if folder is None else folder
    assert folder is not None
    training = _training(folder)
    counts = [sum(image.counts or ()) for image in training]
    if not any(counts):
        raise MistError(
            f"{data.root}: no training image has a count above 0: give counts.csv with the columns file,class,count; "
            f"`mist inspect {data.root}` shows what was read"
        )
    values = _range(training)
    preparation = _preparation(training, values, len(folder.class_names))
    zoom = preparation.zoom
    size = size_in_photos(folder) if size is None else size
    box = size.size * zoom
    stride = next((stride for stride in (32, 16, 8) if box / stride >= CELLS), 4)
    strides = (4, 8, 16) if stride == 4 else (8, 16, 32)
    most = max(1, round(ROOM * max(counts))) if k is None else k
    pyramid = PyramidConfig(strides=strides)
    model = PhotoConfig(
        class_names=folder.class_names,
        k=most,
        stride=stride,
        box_size=round(box, 2),
        width=WIDTH if len(folder.class_names) > 1 else WIDTH_OF_ONE,
        preparation=preparation,
        pyramid=pyramid,
    )
    cells = max(-(-round(one.height * zoom) // stride) * -(-round(one.width * zoom) // stride) for one in training)
    batch = max(2, min(experiment.train.batch_size, CELLS_AT_ONCE // cells, len(counts)))
    as_one_class = dataclasses.replace(preparation, zoom=_zoom(training, 1))
    flips: Flips = "mirror" if are_upright(training, as_one_class, PyramidConfig()) else "all"
    planned = dataclasses.replace(
        experiment,
        model=model,
        step=PhotoStepConfig(dropout=DROPOUT if len(folder.class_names) > 1 else 0.0),
        data=dataclasses.replace(data, preparation=preparation, flips=flips),
        train=dataclasses.replace(experiment.train, batch_size=batch),
    )
    reasons = (
        *range_reasons(values),
        f"the images are photographs: features of {pyramid.network.removeprefix('timm/')} ({pyramid.weights} weights)",
        f"objects are about {size.size:.0f} px wide ({size.why}): images are resized by a factor of {zoom:g} "
        "(--model.preparation.zoom and --data.preparation.zoom), and boxes have that side (--model.box-size, after "
        f"resizing); the grid has a cell every {stride} px (--model.stride)",
        f"at most {most} objects are reported for an image (K, --k); the most in a training image is {max(counts)}",
        f"classes: {', '.join(folder.class_names)}",
        UPRIGHT[flips],
    )
    expected = count_estimate(training, as_one_class, PyramidConfig())
    expectations = () if expected is None else (expected.reason,)
    return Planned(planned, (*reasons, *expectations, *_warnings(training, box), *noticed(folder)))


def _training(folder: OwnFolder) -> list[FolderImage]:
    """The images that are trained on."""
    return [image for image in folder.images if image.split == "train" and image.counts is not None]


def _zoom(training: Sequence[FolderImage], classes: int) -> float:
    """One factor for all images, so that objects keep their sizes."""
    longest = max(max(image.height, image.width) for image in training)
    wanted, most = (LONGEST, 1.0) if classes == 1 else (LONGEST_OF_CLASSES, ENLARGED)
    return round(min(most, wanted / longest), 4)


def _range(training: Sequence[FolderImage]) -> Range:
    return range_of(evenly(training, MEASURED_IMAGES))


def _preparation(training: Sequence[FolderImage], values: Range, classes: int = 1) -> PreparationConfig:
    """All images are stretched alike, so that brightness can be compared, and resized by one factor."""
    return PreparationConfig(lowest=values.lowest, highest=values.highest, zoom=_zoom(training, classes))


def range_reasons(values: Range) -> list[str]:
    """Why values are stretched, or why faint images are not; empty where none is faint."""
    if values.faint:
        return [
            f"{len(values.faint)} of {len(values.faint) + len(values.others)} images use at most a quarter of the "
            f"range of their values ({listed(values.faint)}), and others more ({listed(values.others)}): none is "
            "stretched, so the faint ones stay dark; save them with 8 bits, or leave one kind out"
        ]
    if (values.lowest, values.highest) == (0, 1):
        return []
    return [
        f"the images are faint: of the values from 0 to 1 of their format, they use {values.lowest:.3g} to "
        f"{values.highest:.3g}. These are stretched to 0 and 1, in new images too (--model.preparation.lowest and "
        ".highest, and the same of --data.preparation)"
    ]


def _warnings(training: Sequence[FolderImage], box: float) -> list[str]:
    """What speaks against good results: one huge image, or tiny objects."""
    edges = {image.name: max(image.height, image.width) for image in training}
    largest, usual = max(edges, key=lambda name: edges[name]), median(edges.values())
    warnings = []
    if edges[largest] > MUCH_LARGER * usual:
        warnings.append(
            f"{largest} is {edges[largest]} px long, and others are about {usual:.0f} px: it decides how much all "
            "images are reduced; leave it out, or cut it into parts"
        )
    if box < LEAST_BOX:
        warnings.append(
            f"after resizing, objects are {box:.0f} px wide, which is too small to tell neighbours apart: photograph "
            f"them larger, or cut the images into parts, so that objects are at least {LEAST_BOX} px"
        )
    return warnings


def size_in_photos(folder: OwnFolder) -> SizeSuggestion:
    """The size of the objects by features and counts, or by pixels where features say nothing about it.

    Raises:
        MistError: if an image can't be decoded.
    """
    training = _training(folder)
    found = photo_size(training, _preparation(training, _range(training)), PyramidConfig())
    return found or object_size_of(measured_images(folder))
