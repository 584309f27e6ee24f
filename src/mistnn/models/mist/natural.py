"""MIST on photographs: heat map, offsets and patches come from the features of a pretrained backbone.

Convention: keypoints are in cells of the feature map, see ``mistnn.nn.backbones``; boxes are in pixels of the input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mistnn.models.mist.config import NaturalMistConfig
from mistnn.nn.backbones import STRIDE, Backbone
from mistnn.nn.feature_patches import PatchReader, objects_of, sized, to_shorter_edge
from mistnn.nn.finder import Finder, shared_k
from mistnn.ops.coordinates import centre_of, pixel_of
from mistnn.ops.keypoint_maps import read_offsets
from mistnn.ops.topk import TopK, top_k
from mistnn.records import Explanation

RELEASED_WIDTH = 32
"""Channels between the two convolutions of the released code's head."""


class NaturalMaps(NamedTuple):
    """H_eta(I).

    Attributes:
        response: (batch, rows, columns), any value; it learns to be 1 at keypoints and 0 far from them.
        offsets: (batch, 2, rows, columns), x and y of the keypoint from the middle of its cell, in cells.
    """

    response: Tensor
    offsets: Tensor


class NaturalOutput(NamedTuple):
    """Everything between photographs and their objects.

    Attributes:
        response: see ``NaturalMaps``.
        offsets: see ``NaturalMaps``.
        keypoints: (batch, k, 2) in cells, E_K and the offsets there.
        responses: (batch, k) at the keypoints.
        probabilities: (batch, k, classes + 1), the background last.
        boxes: (batch, k, 4) in pixels.
    """

    response: Tensor
    offsets: Tensor
    keypoints: Tensor
    responses: Tensor
    probabilities: Tensor
    boxes: Tensor


class NaturalMist(Finder):
    """Finds up to K objects in a photograph and classifies them.

    Reference: MIST (CVPR 2021), section 5.2, "PASCAL + COCO"; supplement, sections A, B and C.1.
    """

    def __init__(self, config: NaturalMistConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        channels = self.backbone.channels
        self.head = nn.Sequential()
        if config.head == "released":
            self.head.extend((nn.Conv2d(channels, RELEASED_WIDTH, 3, padding=1), nn.ReLU()))
        last = nn.Conv2d(RELEASED_WIDTH if config.head == "released" else channels, 3, 1)
        with torch.no_grad():  # initial offsets: the centres of the cells
            last.weight[1:].zero_()
            assert last.bias is not None
            last.bias.zero_()
        self.head.append(last)
        self.task_network = PatchReader(channels, len(config.class_names), config.reader)

    def most(self, height: int, width: int) -> int:
        """The largest number of objects that can be found in an image of this size: one per cell."""
        rows, columns = sized(height, width, self.config.shorter_edge)
        return -(-rows // STRIDE) * -(-columns // STRIDE)

    def forward(self, images: Tensor, k: int | None = None) -> NaturalOutput:
        """Features, heat map, top-K, patches, classes; no gradient passes from the classes to the heat map.

        Args:
            images: (batch, 3, height, width) in [0, 1]; not resized here.
            k: by default the K of the configuration.
        """
        features = self.backbone(images)
        maps = self.maps(features)
        found = self.keypoints(maps, k)
        reading = self.task_network(features, found.points)
        boxes = torch.cat((self.backbone.to_pixels(found.points), reading.sizes), dim=-1)
        return NaturalOutput(*maps, *found, reading.probabilities, boxes)

    def maps(self, features: Tensor) -> NaturalMaps:
        """H_eta: (batch, channels, rows, columns) to response and offsets."""
        scores = self.head(features)
        return NaturalMaps(scores[:, 0], scores[:, 1:])

    def keypoints(self, maps: NaturalMaps, k: int | None = None, inside: Tensor | None = None) -> TopK:
        """E_K: the K best local maxima of the response, each moved by the offset of its cell, within that cell.

        Args:
            k: by default the K of the configuration.
            inside: (batch, rows, columns), the cells that may be selected; by default all.
        """
        best = top_k(maps.response, self.config.k if k is None else k, self.config.nms_window, inside)
        cells = pixel_of(best.points, *maps.response.shape[-2:])
        offsets = read_offsets(maps.offsets.detach(), best.points).clamp(-0.5, 0.5)
        return TopK(centre_of(cells, offsets.dtype) + offsets, best.responses)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """Up to K objects of each image, best first, without patches of the background; no reconstruction.

        Images have any size: they are resized here. ``k`` is one for all images.
        """
        seen, zoom = to_shorter_edge(images, self.config.shorter_edge)
        features = self.backbone(seen)
        found = self.keypoints(self.maps(features), shared_k(k))
        reading = self.task_network(features, found.points)
        reading = reading._replace(sizes=reading.sizes / zoom)
        centres = self.backbone.to_pixels(found.points) / zoom
        return Explanation(objects_of(centres, reading, found.responses.clamp(0, 1)), None)
