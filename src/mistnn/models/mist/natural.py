"""MIST on photographs: the heat map, the offsets and the patches are all of a pretrained backbone's features.

Keypoints are in cells of the feature map, see ``mistnn.nn.backbones``; boxes are in pixels of the images given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.nn.backbones import STRIDE, Backbone, BackboneConfig
from mistnn.nn.feature_patches import PatchReader, ReaderConfig, check_classes, objects_of, sized, to_shorter_edge
from mistnn.ops.coordinates import centre_of, pixel_of
from mistnn.ops.keypoint_maps import read_offsets
from mistnn.ops.topk import TopK, top_k
from mistnn.records import Detections, Explanation

RELEASED_WIDTH = 32
"""Channels between the two convolutions of the released code's head."""


@dataclass(frozen=True)
class NaturalMistConfig:
    """Everything that shapes a MIST network for photographs.

    Attributes:
        class_names: one name a class; the background is one more, without a name.
        k: K, an upper bound on the objects of an image (MIST, section 5.2); can be changed at prediction.
        shorter_edge: in pixels, that photographs are resized to (paper: 224).
        nms_window: side of the non-maximum suppression in cells (not stated; value of the released code).
        head: "paper": a 1x1 convolution from the features to response and offsets. "released": a 3x3 convolution to
            32 channels and ReLU before it.
        backbone: whose features are used.
        reader: how patches are cut and read.
    """

    class_names: tuple[str, ...] = ("object",)
    k: int = 2
    shorter_edge: int = 224
    nms_window: int = 5
    head: Literal["paper", "released"] = "paper"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_classes(self.class_names, self.k, self.shorter_edge)
        if not 1 <= self.nms_window <= 255 or self.nms_window % 2 == 0:
            raise MistError(f"model.nms_window={self.nms_window} must be odd, to have a centre: 1, 3, 5, ... 255")
        if self.head not in ("paper", "released"):
            raise MistError(f"model.head={self.head!r} is unknown: use paper or released")


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


class NaturalMist(nn.Module):
    """Finds up to K objects in a photograph and reads them.

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
        with torch.no_grad():  # offsets begin in the middle of their cells
            last.weight[1:].zero_()
            assert last.bias is not None
            last.bias.zero_()
        self.head.append(last)
        self.task_network = PatchReader(channels, len(config.class_names), config.reader)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, without the background."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Never: photographs are no sum of patches."""
        return False

    def most(self, height: int, width: int) -> int:
        """How many objects it can find in an image of this size: one a cell."""
        rows, columns = sized(height, width, self.config.shorter_edge)
        return -(-rows // STRIDE) * -(-columns // STRIDE)

    def forward(self, images: Tensor, k: int | None = None) -> NaturalOutput:
        """Features, heat map, top-K, patches, classes: no gradient passes from the classes to the heat map.

        Args:
            images: (batch, 3, height, width) in [0, 1], of the size that photographs are seen at.
            k: how many patches; the K of the configuration if not given.
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
        """E_K: the K best local maxima of the response, each moved by the offset at its cell, within that cell.

        Args:
            maps: of the features.
            k: how many; the K of the configuration if not given.
            inside: (batch, rows, columns), the cells that may be chosen; all if not given.
        """
        best = top_k(maps.response, self.config.k if k is None else k, self.config.nms_window, inside)
        cells = pixel_of(best.points, *maps.response.shape[-2:])
        offsets = read_offsets(maps.offsets.detach(), best.points).clamp(-0.5, 0.5)
        return TopK(centre_of(cells, offsets.dtype) + offsets, best.responses)

    @torch.no_grad()
    def detect(self, images: Tensor, k: int | None = None) -> list[Detections]:
        """Up to K objects of each image, the best first; patches of the background are left out.

        Args:
            images: (batch, 3, height, width) in [0, 1]; any size, for they are resized here.
            k: how many patches; the K of the configuration if not given.
        """
        seen, zoom = to_shorter_edge(images, self.config.shorter_edge)
        features = self.backbone(seen)
        found = self.keypoints(self.maps(features), k)
        reading = self.task_network(features, found.points)
        reading = reading._replace(sizes=reading.sizes / zoom)
        return objects_of(self.backbone.to_pixels(found.points) / zoom, reading, found.responses.clamp(0, 1))

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """As ``detect``; nothing is redrawn."""
        return Explanation(self.detect(images, k), None)
