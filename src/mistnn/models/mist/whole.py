"""MIST as one module of tensors, for an export: preparation, heat map, top-K, patches, classes and the count."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mistnn.models.mist.network import Mist
from mistnn.nn.finder import WholeDetector

LEAST = 16
"""The smallest side of an image that an export takes, in pixels of the network's input (our choice)."""


class WholeMist(WholeDetector):
    """See ``WholeDetector``. Results are those of ``Mist.detect`` for an image in one piece."""

    def __init__(self, model: Mist) -> None:
        super().__init__()
        self.model = model
        # A border is mirrored, and the image is resized to the largest scale: neither may be larger than the image.
        self.least = math.ceil(max(LEAST, model.margin + 1) * max(1.0, *model.config.scales) / min(1.0, model.zoom)) + 1

    def forward(self, image: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``WholeDetector.forward``."""
        model, task = self.model, self.model.task_network
        images = model.prepare(image)
        most = images.shape[-2] * images.shape[-1]
        number: Any = torch.where(k > 0, k, model.config.k).clamp(max=most).item()
        torch._check(number >= 1)
        torch._check(number <= most)
        found = model.keypoints(model.heatmaps(images), number)
        boxes, scores = model.boxes(found.keypoints)[0] / model.zoom, found.responses[0].clamp(0, 1)
        labels = torch.zeros_like(scores, dtype=torch.int64)
        if task.head is not None:
            patches = (model.cut(images, found.keypoints) * task.window).flatten(0, 1)
            logits = task.head(task.encoder(patches).relu())
            confidence, labels = logits.softmax(-1)[:, : len(model.class_names)].max(-1)
            scores = scores * confidence
        order = scores.topk(number).indices
        boxes, scores, labels = boxes[order], scores[order], labels[order]
        if model.threshold:
            kept = (scores.double() >= model.threshold) | (k > 0)
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        return boxes, scores, labels
