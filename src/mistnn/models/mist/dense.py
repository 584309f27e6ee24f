"""MIST with one set of features for all cells of an image: heat map and classes are read from the same maps. Ours.

The paper has a heat-map network, and a task network that sees one patch for each keypoint. Here both are the last
layers of one convolutional network, so that every cell has a class and not only the keypoints. The classes can then be
learned before any keypoint is right, see ``mistnn.models.mist.dense_step``.

Convention: cell (row i, column j) is centred at (4 (j + 0.5), 4 (i + 0.5)) in pixels. It sees 34 px around its centre
with two blocks, about a digit: entry 4, convolution 8, pooling 10, three convolutions of 8 px each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.mist.dense_config import CELL, DenseMistConfig
from mistnn.nn.blocks import layer_norm
from mistnn.nn.finder import Finder, shared_k
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.peaks import gaussian_blur, refined_peaks
from mistnn.ops.topk import top_k
from mistnn.records import Detections, Explanation

FAINTEST = 0.05
"""The standard deviation of a region, with values in [0, 1], below which its contrast is not fully normalised (ours).
"""
SMOOTH = 1.0
"""Standard deviation in cells of the Gaussian by which heat map and classes are blurred before they are read (ours)."""

RARE = -3.0
"""The heat map of an untrained network before the logistic function: few cells hold an object (our choice)."""


class DenseMaps(NamedTuple):
    """What the network says about each cell.

    Attributes:
        heatmap: (batch, rows, columns), H_eta(I) before the logistic function.
        classes: (batch, classes, rows, columns), T_tau before the softmax.
    """

    heatmap: Tensor
    classes: Tensor


class DenseMist(Finder):
    """Finds the K best maxima of a heat map; each has the class of its cell."""

    def __init__(self, config: DenseMistConfig) -> None:
        super().__init__()
        self.config = config
        half, width = config.width // 2, config.width

        def same(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")

        self.entry = nn.Conv2d(config.channels, half, 4, stride=2)
        self.second, self.third = same(half, half), same(half, width)
        self.blocks = nn.ModuleList(same(width, width) for _ in range(config.blocks))
        self.norms = nn.ModuleList(layer_norm(size) for size in (half, width, *[width] * config.blocks))
        self.dropout = nn.Dropout2d(config.dropout)
        self.heatmap = nn.Conv2d(width, 1, 1)
        assert self.heatmap.bias is not None
        nn.init.constant_(self.heatmap.bias, RARE)
        self.classes = nn.Conv2d(width, len(config.class_names), 1)

    def forward(self, images: Tensor) -> DenseMaps:
        """(batch, channels, height, width) in [0, 1] to maps of one value for each 4 x 4 px."""
        return self.maps(levelled(images, self.config.level_window))

    def maps(self, levelled_images: Tensor) -> DenseMaps:
        """The maps of images that are levelled already."""
        height, width = levelled_images.shape[-2:]
        down, across = -height % CELL, -width % CELL
        hidden = F.relu(self.entry(F.pad(levelled_images, (1, 1 + across, 1, 1 + down), mode="replicate")))
        hidden = F.max_pool2d(F.relu(self.norms[0](self.second(hidden))), 2)
        hidden = F.relu(self.norms[1](self.third(hidden)))
        for block, norm in zip(self.blocks, self.norms[2:], strict=True):
            hidden = hidden + F.relu(norm(block(hidden)))
        hidden = self.dropout(hidden)
        return DenseMaps(self.heatmap(hidden).float().squeeze(1), self.classes(hidden).float())

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """The K best objects of each image; ``k`` is one for all images. Scores are heat map x class probability."""
        config, maps = self.config, self(images)
        response = self.response(maps)
        wanted = config.k if shared_k(k) is None else shared_k(k)
        assert wanted is not None
        found = top_k(response, min(wanted, response[0].numel()), config.window)
        probabilities = gaussian_blur(maps.classes.softmax(1), SMOOTH)
        cells = (found.points - 0.5).round().long()
        places = cells[..., 1] * response.shape[-1] + cells[..., 0]
        among = probabilities.flatten(2).gather(2, places[:, None].expand(-1, probabilities.shape[1], -1))
        confidence, labels = among.max(1)
        image = torch.arange(len(cells), device=cells.device)[:, None, None].expand(*cells.shape[:2], 1)
        centres = refined_peaks(response, torch.cat((image, cells.flip(2)), 2).flatten(0, 1))
        boxes = boxes_at(CELL * centres.view(cells.shape), config.box_size)
        scores = (found.responses * confidence).clamp(0, 1)
        order = scores.argsort(dim=1, descending=True, stable=True)
        rows = zip(boxes, scores, labels, order, strict=True)
        return Explanation([Detections(box[best], score[best], label[best]) for box, score, label, best in rows], None)

    def response(self, maps: DenseMaps) -> Tensor:
        """By which objects are found, in [0, 1]: (batch, rows, columns)."""
        return gaussian_blur(maps.heatmap.sigmoid()[:, None], SMOOTH)[:, 0]

    def most(self, height: int, width: int) -> int:
        """See ``Finder.most``: one object for each cell."""
        return -(-height // CELL) * -(-width // CELL)

    def shown_heatmap(self, images: Tensor) -> Tensor:
        """See ``Finder.shown_heatmap``."""
        return self.response(self(images))


def levelled(images: Tensor, window: int) -> Tensor:
    """Images less the mean of a window around each pixel, divided by the standard deviation there, over all channels.

    Convention: images are continued with their nearest pixel; ``window`` is the side in pixels, odd. A pixel's own
    variance is raised by the square of ``FAINTEST``, so that a flat wall stays flat.
    """
    mean = window_mean(images.mean(1, keepdim=True), window)
    square = window_mean(images.square().mean(1, keepdim=True), window)
    return (images - mean) / ((square - mean.square()).clamp(min=0) + FAINTEST**2).sqrt()


def window_mean(maps: Tensor, window: int) -> Tensor:
    """The mean of (batch, channels, height, width) over a square window around each pixel; edges are continued."""
    reach = window // 2
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (1, window), 1), (window, 1), 1)
