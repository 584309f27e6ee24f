"""Xie20: SOFT top-K as a mask on the classification of every place (MIST, section 5.2, and supplement C.2).

The mask only weights patches, so all places are classified and all stay in memory. The heat map is therefore coarse:
"an architecture similar to the region proposal network" (section 5.2) scores places ``stride`` pixels apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mistnn.models.rivals.common import Rival, best_of, centres, masked_losses
from mistnn.models.rivals.config import Xie20Config
from mistnn.nn.heatmap import PaperHeatmapNetwork
from mistnn.nn.task import TaskNetwork, required
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import soft_topk
from mistnn.records import Batch, Explanation


class ProposalNetwork(nn.Module):
    """Scores of places, like a region proposal network: strided convolutions, then a small head at each place.

    Each 4 x 4 convolution of stride 2 doubles the channels; the head is a 3 x 3 convolution and a 1 x 1 convolution to
    one score. The papers give no sizes. With kernels of 4 and a border of 1, a place is at the centre of the square of
    stride x stride pixels that it stands for; borders are padded with the nearest pixel.

    Args:
        channels: of the images.
        width: channels of the first convolution.
        stride: a power of two.

    Reference: MIST (CVPR 2021), section 5.2; Ren et al. (2015).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        halvings = stride.bit_length() - 1
        widths = [channels, *(width * 2**level for level in range(halvings))]
        layers: list[nn.Module] = []
        for fine, coarse in itertools.pairwise(widths):
            layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1, padding_mode="replicate"), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], widths[-1], 3, padding=1, padding_mode="replicate")
        self.score = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, 1, height // stride, width // stride)."""
        return self.score(self.head(self.features(images)).relu())


class Xie20(Rival):
    """A score and a class at every place of a coarse grid, joined by a soft mask; too large to reconstruct (paper)."""

    def __init__(self, config: Xie20Config) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = (
            ProposalNetwork(config.channels, config.head_channels, config.stride)
            if config.head == "rpn"
            else PaperHeatmapNetwork(config.channels, config.heatmap)
        )
        self.task_network = TaskNetwork(config.channels, config.patch_size, len(config.class_names), config.encoder, 0)

    def most(self, height: int, width: int) -> int:
        """The number of places in an image of this size."""
        return (height // self.config.stride) * (width // self.config.stride)

    def places(self, images: Tensor) -> Tensor:
        """The boxes of all N places, (batch, n, 4), row by row, centred in squares of stride x stride pixels."""
        return boxes_at(centres(images, self.config.stride), self.config.box_size).expand(len(images), -1, -1)

    def scores(self, images: Tensor) -> Tensor:
        """(batch, n), between the anchors 0 and 1 of the transport problem."""
        network, stride = self.heatmap_network, self.config.stride
        maps = network.maps(images, stride) if isinstance(network, PaperHeatmapNetwork) else network(images)
        return maps.flatten(1).sigmoid()

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
