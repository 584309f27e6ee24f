"""Measuring on photographs: precision, recall and F1 by the centre of the boxes (MIST, CVPR 2021, Table 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mistnn.data import NaturalConfig, NaturalImages, Split, read_built
from mistnn.errors import MistError
from mistnn.models.stn import BirdsConfig
from mistnn.presets.systems import DataConfig, ModelConfig, NaturalModelConfig, SceneModel
from mistnn.records import Detections


def check_natural(model: ModelConfig, data: DataConfig) -> None:
    """Refuses a system that is not for photographs, or one whose classes are not those of the folder.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(data, NaturalConfig) or not isinstance(model, NaturalModelConfig):
        raise MistError(
            "photographs (mist build) are for the systems on a backbone, and these for photographs only: train a "
            "preset of pascal-coco or voc07, or another preset on its own images"
        )
    if data.root is None:
        return
    known = read_built(data.root).class_names
    if known != model.class_names:
        raise MistError(
            f"{data.root} has the classes {' '.join(known)}, model.class_names are {' '.join(model.class_names)}: give "
            "--model.class-names those of the folder"
        )


def note_random_backbone(model: ModelConfig, start_from: str | None, say: Callable[[str], None]) -> None:
    """Says so where the backbone knows nothing: all the rest stands on it."""
    if isinstance(model, NaturalModelConfig | BirdsConfig) and model.backbone.weights is None and start_from is None:
        say(
            "the backbone has random weights, on which little can be learnt: give pretrained ones with "
            "--model.backbone.weights FILE, or hub to fetch them"
        )


@torch.inference_mode()
def evaluate_natural(
    model: SceneModel,
    data: NaturalConfig,
    split: Split,
    images: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """How well a system finds the objects of photographs: it reads K places of each, and calls some background.

    Each image is seen on its own, at its own size, as in prediction.

    Args:
        model: in any mode; left in it.
        data: the built folder.
        split: which images.
        images: at most so many.
        progress: called with (done, of how many).

    Returns:
        ``precision``, ``recall`` and ``f1``: a box is right if its centre lies in an object's box and the class agrees
        (``mistnn.metrics.centre_scores``). ``precision_iou50``, ``recall_iou50`` and ``f1_iou50``: if it overlaps it by
        more than half. ``images``, ``objects``, ``found``. A number whose denominator is 0 is missing.

    Raises:
        MistError: if the folder can't be used, or has other classes than the model.
    """
    from mistnn.metrics import CentreMetrics, both

    samples = NaturalImages(data, split, images)
    if samples.class_names != model.class_names:
        raise MistError(
            f"{data.root} has the classes {' '.join(samples.class_names)}, the model {' '.join(model.class_names)}: "
            "give the folder that it was trained on, or one built alike"
        )
    metric, found, boxes, labels = CentreMetrics(), list[Detections](), list[Tensor](), list[Tensor]()
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    for index in range(len(samples)):
        sample = samples[index]
        assert sample.boxes is not None and sample.labels is not None
        one = model.explain(sample.image[None].to(device), model.config.k).detections[0]
        assert one.labels is not None
        found.append(Detections(one.boxes.cpu(), one.scores.cpu(), one.labels.cpu()))
        boxes.append(sample.boxes)
        labels.append(sample.labels)
        if progress is not None:
            progress(index + 1, len(samples))
    model.train(was_training)
    metric.update(found, boxes, labels)
    objects, detections = sum(map(len, labels)), sum(len(one.boxes) for one in found)
    hits = round(both(found, boxes, labels) * objects)
    result = metric.compute() | {"recall_iou50": hits / objects, "f1_iou50": 2 * hits / (objects + detections)}
    if detections:
        result["precision_iou50"] = hits / detections
    return result | {"images": float(len(samples)), "objects": float(objects), "found": float(detections)}
