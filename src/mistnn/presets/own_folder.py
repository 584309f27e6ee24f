"""A folder of your own: settings that suit it, and how well a model counts and finds there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.data import Split
from mistnn.data.folder_images import (
    FolderConfig,
    FolderImages,
    content_of,
    ground_of,
    measured_images,
    object_size_of,
)
from mistnn.data.own_folder import OwnFolder, read_folder
from mistnn.errors import MistError
from mistnn.inference.counting import above, choose_threshold
from mistnn.models.mist import Mist, MistConfig, StepConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.patches import EncoderConfig
from mistnn.nn.preparation import Ground, PreparationConfig
from mistnn.records import Detections, Sample

GROUNDS: Mapping[Ground, str] = MappingProxyType(
    {
        "light": "what is darker than its lightest colours stays",
        "dark": "what is lighter than its darkest colours stays",
        "median": "what differs from its median colour stays",
    }
)
"""What each way to take the ground away leaves, for the user."""
BOX = 20.0
"""Side in pixels that objects are brought to: the size at which the networks' windows were chosen."""
DETECTED_AT_ONCE = 8


class FolderPlan(NamedTuple):
    """Settings for a folder.

    Attributes:
        model: network.
        data: the folder and its preparation.
        step: training step.
        reasons: one line for each choice, for the user.
    """

    model: MistConfig
    data: FolderConfig
    step: StepConfig
    reasons: tuple[str, ...]


def plan_folder(root: str, steps: int) -> FolderPlan:
    """Chooses object size, K, classes and objective from what a folder holds.

    Args:
        root: the folder.
        steps: of the training, over which the learning rates fall.

    Raises:
        MistError: if the folder can't be used, or says nothing of how many objects its images hold.
    """
    folder = read_folder(root)
    known = [image for image in folder.images if image.split == "train" and image.counts is not None]
    totals = [sum(image.counts or ()) for image in known]
    if folder.counts_from == "labels.csv":
        raise MistError(
            f"{root}: labels.csv says which classes an image holds, and training needs how many of each: give "
            "counts.csv with the columns file,class,count"
        )
    if not totals or not max(totals):
        raise MistError(
            f"{root}: no training image has an object by its counts, so there is nothing to learn from: give "
            f"counts.csv with the columns file,class,count; `mist inspect {root}` shows what was read"
        )
    measured = measured_images(folder)
    size = object_size_of(measured)
    k = max(totals)
    varies = min(totals) < k
    preparation = PreparationConfig(zoom=round(BOX / size.size, 4), ground=ground_of(measured))
    model = MistConfig(
        class_names=folder.class_names,
        background=varies,
        k=k,
        channels=3,
        box_size=BOX,
        patch_extent=BOX * 1.2,
        patch_size=24,
        heatmap=HeatmapConfig(network="paper", channels=16, blocks=4),
        encoder=EncoderConfig(network="small", width=32, code=128),
        decoder=16,
        preparation=preparation,
    )
    step = StepConfig(
        reconstruction=0.5,
        objects_only=varies,
        heatmap_rate=3e-4,
        decay=0.05,
        decay_steps=steps,
        heatmap_warmup=50,
        precision="bfloat16",
    )
    reasons = (
        f"objects about {size.size:.0f} px wide ({size.why}): images are resized by {preparation.zoom:g}, so that they "
        f"are {BOX:g} px (--model.preparation.zoom and --data.preparation.zoom)",
        f"K = {k}, the most objects in a training image (--model.k)",
        f"classes: {', '.join(folder.class_names)}"
        + (", and a background for the boxes that an image has no object for" if varies else ""),
        f"the ground of each image is taken away: {GROUNDS[preparation.ground]} (--model.preparation.ground and "
        "--data.preparation.ground)",
    )
    return FolderPlan(model, FolderConfig(root=root, preparation=preparation), step, reasons)


def evaluate_folder(model: Mist, data: FolderConfig, split: Split, images: int | None = None) -> dict[str, float]:
    """How well a model counts the objects of a folder, and finds those whose boxes are known.

    K is not told: boxes that reach the model's threshold are counted. A model without one gets one here, chosen by the
    counts of the validation images.

    Args:
        model: left in the mode it is in.
        data: the folder.
        split: which images.
        images: at most so many; all if not given.

    Returns:
        ``count_error``: mean absolute error of the number of objects an image; ``count_error_mean``: of guessing the
        mean of the training images, for comparison; both also for each class, with its name behind a colon. Where
        boxes are known ``precision``, ``recall`` and ``f1`` by the centre of a box, for each class and for all.
        ``threshold``, ``images``, ``objects``.
    """
    from mistnn.metrics import CentreMetrics

    folder = content_of(data)
    measured, found = _detected(model, FolderImages(data, split, images or sys.maxsize, folder))
    threshold = model.config.threshold or (
        _threshold(measured, found) if split == "validation" else threshold_by_counts(model, data, folder)
    )
    found = [above(one, threshold) for one in found]
    classes = range(len(model.class_names))
    true = torch.stack([_counts(sample) for sample in measured])
    counted = torch.stack([torch.bincount(_labels(one), minlength=len(classes)) for one in found])
    trained = FolderImages(data, "train", None, folder).images
    mean = torch.stack([torch.tensor(image.counts) for image in trained]).double().mean(0)
    result = {
        "count_error": _error(counted.sum(1), true.sum(1)),
        "count_error_mean": _error(mean.sum().expand(len(true)), true.sum(1)),
        "threshold": threshold,
        "images": float(len(true)),
        "objects": float(true.sum()),
    }
    for index, name in enumerate(model.class_names):
        result[f"count_error:{name}"] = _error(counted[:, index], true[:, index])
        result[f"count_error_mean:{name}"] = _error(mean[index].expand(len(true)), true[:, index])
    boxed = [place for place, sample in enumerate(measured) if sample.boxes is not None]
    for name, index in (("", None), *((f":{name}", index) for index, name in enumerate(model.class_names))):
        if not boxed:
            continue
        metric = CentreMetrics()
        chosen = [_of_class(found[place], measured[place], index) for place in boxed]
        metric.update([one for one, _, _ in chosen], [boxes for _, boxes, _ in chosen], [own for _, _, own in chosen])
        result |= {f"{key}{name}": value for key, value in metric.compute().items()}
    return result


def threshold_by_counts(model: Mist, data: FolderConfig, folder: OwnFolder | None = None) -> float:
    """The score that counts the validation images' objects best; the training images' if there are none of those.

    Args:
        model: left in the mode it is in.
        data: the folder.
        folder: its content, where it has been read before.
    """
    folder = content_of(data) if folder is None else folder
    known = {image.split for image in folder.images if image.counts is not None}
    split: Split = "validation" if "validation" in known else "train"
    return _threshold(*_detected(model, FolderImages(data, split, sys.maxsize, folder)))


def _threshold(samples: Sequence[Sample], found: Sequence[Detections]) -> float:
    return choose_threshold([one.scores for one in found], [int(_counts(sample).sum()) for sample in samples])


@torch.inference_mode()
def _detected(model: Mist, images: FolderImages) -> tuple[list[Sample], list[Detections]]:
    """What is known of each image, without its pixels, and all K boxes found in it, on the CPU."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    known: list[Sample] = []
    found: list[Detections] = []
    for start in range(0, len(images), DETECTED_AT_ONCE):
        some = [images[place] for place in range(start, min(start + DETECTED_AT_ONCE, len(images)))]
        known += [sample._replace(image=sample.image.new_empty(0)) for sample in some]
        for one in model.detect(torch.stack([sample.image for sample in some]).to(device)):
            found.append(Detections(one.boxes.cpu(), one.scores.cpu(), _labels(one).cpu()))
    model.train(was_training)
    return known, found


def _of_class(found: Detections, sample: Sample, index: int | None) -> tuple[Detections, Tensor, Tensor]:
    """Detections, boxes and labels of one class, or of all."""
    assert sample.boxes is not None and sample.labels is not None
    labels = _labels(found)
    if index is None:
        return found, sample.boxes, sample.labels
    kept, true = labels == index, sample.labels == index
    return Detections(found.boxes[kept], found.scores[kept], labels[kept]), sample.boxes[true], sample.labels[true]


def _labels(found: Detections) -> Tensor:
    assert found.labels is not None
    return found.labels


def _counts(sample: Sample) -> Tensor:
    assert sample.counts is not None
    return sample.counts


def _error(predicted: Tensor, true: Tensor) -> float:
    return float((predicted.double() - true.double()).abs().mean())
