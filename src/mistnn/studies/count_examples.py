"""Images for a page about counting: small enough for a page, with what was found, and with their heat maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.inference import Predictor
from mistnn.inference.tiles import Detector, PreparingModel
from mistnn.ops.matching import UNMATCHED, greedy_match
from mistnn.records import Detections
from mistnn.studies.count_page import Example

LONGEST_SIDE = 480
"""Pixels of an image on a page."""


def shrunk(example: Example) -> Example:
    """The same, its picture no longer than ``LONGEST_SIDE`` and its boxes with it."""
    height, width = example.image.shape[-2:]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return example
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    image = F.interpolate(example.image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return example._replace(
        image=image,
        found=example.found._replace(boxes=example.found.boxes * factor),
        boxes=None if example.boxes is None else example.boxes * factor,
    )


def heatmap_of(
    predictor: Predictor, image: Float[Tensor, "channels height width"]
) -> Float[Tensor, "rows columns"] | None:
    """What the network makes of an image, no larger than a page shows; ``None`` where there is no such map.

    A model that takes whole images only has none, and an image that would have to go through in tiles is left out.
    """
    if not isinstance(predictor.model, Detector):
        return None
    with torch.inference_mode():
        seen = image[None].to(predictor.device)
        if isinstance(predictor.model, PreparingModel):
            seen = predictor.model.prepare(seen)
        if seen.shape[-2] * seen.shape[-1] > predictor.max_pixels:
            return None
        heatmap = predictor.model.heatmaps(seen).sum(1)[0].cpu()
    factor = LONGEST_SIDE / max(heatmap.shape)
    if factor >= 1:
        return heatmap
    # Peaks are a pixel or two wide: the brightest of each cell, not their mean, which would dim them.
    size = (max(1, round(heatmap.shape[0] * factor)), max(1, round(heatmap.shape[1] * factor)))
    return F.adaptive_max_pool2d(heatmap[None], size)[0]


def right_by_centre(found: Detections, boxes: Tensor, labels: Tensor | None) -> Bool[Tensor, " found"]:
    """Which boxes have their centre in a true box of their class, each true box once; see ``metrics.centre_scores``."""
    if not len(boxes) or not len(found.boxes):
        return torch.zeros(len(found.boxes), dtype=torch.bool)
    offset = (found.boxes[:, None, :2] - boxes[None, :, :2]).abs()
    distance = (offset / (boxes[None, :, 2:] / 2)).amax(-1)
    inside = distance <= 1
    if labels is not None and found.labels is not None:
        inside = inside & (found.labels[:, None] == labels[None])
    return greedy_match(-distance, -torch.inf, inside) != UNMATCHED


def in_words(counts: Sequence[int], names: Sequence[str]) -> str:
    """Counts as one reads them: ``12 RBC, 1 WBC``; ``nothing`` where all are 0."""
    return ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True) if count) or "nothing"


def compared_in_words(counted: Sequence[int], true: Sequence[int], names: Sequence[str]) -> str:
    """How counts differ from the true ones, in words."""
    parts = []
    for name, own, wanted in zip(names, counted, true, strict=True):
        if own != wanted:
            parts.append(f"{name}: {abs(own - wanted)} too {'many' if own > wanted else 'few'}")
    return ", ".join(parts) or "all right"


def commonest(found: Sequence[Detections], class_names: Sequence[str]) -> str:
    """The class that fills the pictures, whose boxes need no name: most of what was found, if there are several."""
    labels = Counter(int(label) for one in found if one.labels is not None for label in one.labels)
    return class_names[labels.most_common(1)[0][0]] if labels and len(class_names) > 1 else ""
