"""Xie20 on photographs: SOFT top-K as a mask on the classification of every cell of a backbone's features.

As in equation 12, all patches are classified and stay in memory: 196 for an image of 224 x 224 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.rivals.common import Rival, centres, masked_losses
from mistnn.models.rivals.config import NaturalXie20Config
from mistnn.nn.backbones import STRIDE, Backbone
from mistnn.nn.feature_patches import PatchReader, Reading, objects_of, sized, to_shorter_edge
from mistnn.nn.task import required
from mistnn.ops.losses import with_background
from mistnn.ops.selection import soft_topk
from mistnn.records import Batch, Explanation


class NaturalXie20(Rival):
    """A score and a class at every place of the features, joined by a soft mask.

    The places are the centres of the cells, since a mask has no gradient that could learn offsets (MIST supplement,
    section C.2 and equation 12; section 5.2, Table 4).
    """

    def __init__(self, config: NaturalXie20Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Conv2d(self.backbone.channels, 1, 1)
        self.task_network = PatchReader(self.backbone.channels, len(config.class_names), config.reader)

    def most(self, height: int, width: int) -> int:
        """The number of places in an image of this size."""
        rows, columns = sized(height, width, self.config.shorter_edge)
        return (-(-rows // STRIDE) // self.config.cells) * (-(-columns // STRIDE) // self.config.cells)

    def scores(self, features: Tensor) -> Tensor:
        """(batch, n), between the anchors 0 and 1 of the transport problem, row by row."""
        scores = self.head(features)
        return F.avg_pool2d(scores, self.config.cells).flatten(1).sigmoid()

    def places(self, features: Tensor) -> Tensor:
        """The centres of the places, (batch, n, 2), in cells, in the order of the scores."""
        return centres(features, self.config.cells).expand(len(features), -1, -1)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 12 of each image, with a background class for the places without an object."""
        counts, features = required(batch.counts), self.backbone(batch.images)
        if batch.sizes is None:
            return self._losses(features, counts)
        # The number of places depends on the image's size, so padded images are masked one by one.
        ends = self.backbone.cells_of(batch.sizes).tolist()
        parts = [self._losses(features[[i], :, :rows, :columns], counts[[i]]) for i, (rows, columns) in enumerate(ends)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _losses(self, features: Tensor, counts: Tensor) -> dict[str, Tensor]:
        k = self.config.k
        mask = soft_topk(self.scores(features), k, epsilon=self.config.epsilon).mask
        probabilities = self.task_network(features, self.places(features)).probabilities
        return masked_losses(probabilities, mask, with_background(counts, k).to(probabilities.dtype), k)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the K places with the highest scores, without those classified as background."""
        counts = self.counts_for(images, k)
        seen, zoom = to_shorter_edge(images, self.config.shorter_edge)
        features = self.backbone(seen)
        best = self.scores(features).topk(max(counts, default=1), dim=1)
        points = self.places(features).gather(1, best.indices[..., None].expand(-1, -1, 2))
        reading = self.task_network(features, points)
        pixels = self.backbone.to_pixels(points) / zoom
        found = []
        for index, count in enumerate(counts):
            own = (slice(index, index + 1), slice(count))
            one = Reading(reading.probabilities[own], reading.sizes[own] / zoom)
            found += objects_of(pixels[own], one, best.values[own])
        return Explanation(found, None)
