"""Xie20: SOFT top-K as a mask on the classification of every place (MIST, section 5.2, and supplement C.2).

The mask only weights patches, so all places are classified and all stay in memory. The heat map is therefore coarse.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mistnn.models.rivals.common import Rival, best_of, centres, masked_losses
from mistnn.models.rivals.config import Xie20Config
from mistnn.nn.heatmap import PaperHeatmapNetwork
from mistnn.nn.task import TaskNetwork, required
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import soft_topk
from mistnn.records import Batch, Explanation


class Xie20(Rival):
    """A score and a class at every place of a coarse grid, joined by a soft mask; too large to reconstruct (paper)."""

    def __init__(self, config: Xie20Config) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = PaperHeatmapNetwork(config.channels, config.heatmap)
        self.task_network = TaskNetwork(config.channels, config.patch_size, len(config.class_names), config.encoder, 0)

    def most(self, height: int, width: int) -> int:
        """The number of places in an image of this size."""
        return (height // self.config.stride) * (width // self.config.stride)

    def places(self, images: Tensor) -> Tensor:
        """The boxes of all N places, (batch, n, 4), row by row, centred in squares of stride x stride pixels."""
        return boxes_at(centres(images, self.config.stride), self.config.box_size).expand(len(images), -1, -1)

    def scores(self, images: Tensor) -> Tensor:
        """(batch, n), between the anchors 0 and 1 of the transport problem."""
        return self.heatmap_network.maps(images, self.config.stride).flatten(1).sigmoid()

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 12 of each image."""
        counts, k = required(batch.counts), self.config.k
        mask = soft_topk(self.scores(batch.images), k, epsilon=self.config.epsilon).mask
        patches = extract_patches(batch.images, self.places(batch.images), self.config.patch_size)
        return masked_losses(self.task_network.classify(patches).softmax(-1), mask, counts, k)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the K places with the highest scores, classified."""
        counts = self.counts_for(images, k)
        best = self.scores(images).topk(max(counts, default=1), dim=1)
        boxes = self.places(images).gather(1, best.indices[..., None].expand(-1, -1, 4))
        patches = extract_patches(images, boxes, self.config.patch_size)
        confidence, labels = self.task_network.classify(patches).softmax(-1).max(-1)
        scores, found = best.values * confidence, []
        for index, count in enumerate(counts):
            found += best_of(boxes[[index], :count], scores[[index], :count], labels[[index], :count], [count])
        return Explanation(found, None)
