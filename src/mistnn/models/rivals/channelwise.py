"""Channel-wise: one heat map for each of K keypoints, located by a soft-argmax (MIST, section 5.1, baseline 2).

Every operation is differentiable, so the heat maps learn from the gradient of the task loss with respect to the places.
Each channel has one keypoint. Nothing lets two channels share several objects that look alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mistnn.models.rivals.common import Rival, best_of
from mistnn.models.rivals.config import ChannelwiseConfig
from mistnn.nn.heatmap import PaperHeatmapNetwork
from mistnn.nn.task import TaskNetwork, TaskOutput, counted_loss, relative_reconstruction_loss
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.landmarks import soft_argmax
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Batch, Explanation


class Channelwise(Rival):
    """K heat maps, K places, K patches."""

    def __init__(self, config: ChannelwiseConfig) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = PaperHeatmapNetwork(config.channels, config.heatmap, outputs=config.k)
        self.task_network = TaskNetwork(
            config.channels, config.patch_size, len(config.class_names), config.encoder, config.decoder
        )

    @property
    def reconstructs(self) -> bool:
        """Whether there is a decoder."""
        return self.config.decoder > 0

    def most(self, height: int, width: int) -> int:
        """K, for images of any size."""
        return self.config.k

    def forward(self, images: Tensor) -> tuple[Tensor, TaskOutput, Tensor | None]:
        """(batch, channels, height, width) to boxes (batch, k, 4), task output, and reconstruction."""
        points = soft_argmax(self.config.strength * self.heatmap_network.maps(images))
        boxes = boxes_at(points, self.config.box_size)
        task = self.task_network(extract_patches(images, boxes, self.config.patch_size))
        rebuilt = None
        if task.decoded is not None:
            window = int(self.config.box_size * (1 + 1 / self.config.patch_size)) + 2
            rebuilt = place_patches(task.decoded, boxes, images.shape[-2], images.shape[-1], window)
        return boxes, task, rebuilt

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 9, or equation 8 relative to the image's energy, or their sum if the model does both."""
        _, task, rebuilt = self(batch.images)
        terms = {}
        if task.logits is not None:
            terms["classification"] = counted_loss(task.logits, batch.counts)
        if rebuilt is not None:
            terms["reconstruction"] = relative_reconstruction_loss(batch.images, rebuilt)
        return {"task": torch.stack(list(terms.values())).sum(0), **terms}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: one box per channel; its score is the probability of its class, or 1."""
        boxes, task, rebuilt = self(images)
        scores, labels = boxes.new_ones(boxes.shape[:2]), None
        if task.logits is not None:
            scores, labels = task.logits.softmax(-1).max(-1)
        return Explanation(best_of(boxes, scores, labels, self.counts_for(images, k)), rebuilt)
