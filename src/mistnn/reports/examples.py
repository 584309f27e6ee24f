"""Images on a page about counting: shrunk for the page, with their predictions in words and their heat maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.inference import Predictor
from mistnn.inference.judged import JudgedScene
from mistnn.records import Detections

LONGEST_SIDE = 480
"""Maximum height and width in pixels of an image on a page."""


class Example(NamedTuple):
    """An image and its predictions.

    Attributes:
        name: of the file.
        scene: in pixels of the image.
        words: the predicted counts, in words.
        verdict: the comparison with the true counts; empty if they are unknown.
        good: whether the counts are correct; ``None`` if unknown.
        heatmap: of the image; ``None`` to show none.
    """

    name: str
    scene: JudgedScene
    words: str
    verdict: str = ""
    good: bool | None = None
    heatmap: Float[Tensor, "rows columns"] | None = None


def shrunk(scene: JudgedScene) -> JudgedScene:
    """The image, and its boxes, shrunk to ``LONGEST_SIDE``."""
    height, width = scene.image.shape[-2:]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return scene
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    found = scene.detections
    return scene._replace(
        image=F.interpolate(scene.image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1),
        detections=found._replace(boxes=found.boxes * factor),
        boxes=None if scene.boxes is None else scene.boxes * factor,
    )


def heatmap_of(
    predictor: Predictor, image: Float[Tensor, "channels height width"]
) -> Float[Tensor, "rows columns"] | None:
    """The heat map of an image, shrunk to ``LONGEST_SIDE``.

    ``None`` for a model without heat maps, and for an image so large that it would be processed in tiles.
    """
    model: Any = predictor.model
    if not model.in_tiles:
        return None
    with torch.inference_mode():
        seen = model.prepare(image[None].to(predictor.device))
        if seen.shape[-2] * seen.shape[-1] > predictor.max_pixels:
            return None
        heatmap = model.heatmaps(seen).sum(1)[0].cpu()
    factor = LONGEST_SIDE / max(heatmap.shape)
    if factor >= 1:
        return heatmap
    # Peaks are one or two pixels wide: a mean would dim them, so each cell shows its maximum.
    size = (max(1, round(heatmap.shape[0] * factor)), max(1, round(heatmap.shape[1] * factor)))
    return F.adaptive_max_pool2d(heatmap[None], size)[0]


def in_words(counts: Sequence[int], names: Sequence[str]) -> str:
    """Counts in words, such as ``12 RBC, 1 WBC``; ``nothing`` if all are 0."""
    return ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True) if count) or "nothing"


def compared_in_words(counted: Sequence[int], true: Sequence[int], names: Sequence[str]) -> str:
    """The difference between predicted and true counts, in words."""
    parts = []
    for name, own, wanted in zip(names, counted, true, strict=True):
        if own != wanted:
            parts.append(f"{name}: {abs(own - wanted)} too {'many' if own > wanted else 'few'}")
    return ", ".join(parts) or "all correct"


def commonest(found: Sequence[Detections], class_names: Sequence[str]) -> str:
    """The most frequent of several classes, whose boxes need no name; "" for a single class."""
    labels = Counter(int(label) for one in found if one.labels is not None for label in one.labels)
    return class_names[labels.most_common(1)[0][0]] if labels and len(class_names) > 1 else ""
