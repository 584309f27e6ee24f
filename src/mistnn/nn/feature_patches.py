"""Shared by the systems for photographs: classification of patches of a feature map, and resizing of photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mistnn.config import Config, at_least
from mistnn.errors import MistError
from mistnn.nn.backbones import STRIDE
from mistnn.nn.blocks import ResidualBlock
from mistnn.nn.preparation import resized, zoomed
from mistnn.ops.sampling import extract_patches
from mistnn.records import Detections

ONE_ANCHOR = ((112.0, 112.0),)
"""7 cells of 16 px (not stated in the papers; .5 x 224 px in the released code)."""

FOUR_ANCHORS = ((56.0, 56.0), (56.0, 168.0), (168.0, 56.0), (168.0, 168.0))
"""MIST supplement, section E, for images with a shorter edge of 224 px."""


@dataclass(frozen=True)
class ReaderConfig(Config):
    """How patches are cut from the feature map and classified.

    Attributes:
        anchors: width and height in pixels of the boxes around a keypoint, one patch each; see ``PatchReader``.
        patch_size: samples along the side of a patch; 8 suffice for 7 cells. The released code has 32, as for images,
            at 16 times the cost.
        width: channels of the residual block (not stated; here equal to the backbone's features).
    """

    section: ClassVar[str] = "model.reader"
    anchors: tuple[tuple[float, float], ...] = ONE_ANCHOR
    patch_size: Annotated[int, at_least(1)] = 8
    width: Annotated[int, at_least(1)] = 256

    def check(self) -> None:
        """See ``Config.check``."""
        if not self.anchors or not all(0 < side < math.inf for anchor in self.anchors for side in anchor):
            raise MistError(f"model.reader.anchors={self.anchors} must be widths and heights in pixels, above 0")

    @property
    def patch_cells(self) -> float:
        """The mean side of the anchors in cells: the patch size of the Gaussian in G."""
        return sum(side for anchor in self.anchors for side in anchor) / (2 * len(self.anchors)) / STRIDE


class Reading(NamedTuple):
    """The classification of keypoints.

    Attributes:
        probabilities: (batch, k, classes + 1), the background last.
        sizes: (batch, k, 2), width and height of the boxes in pixels.
    """

    probabilities: Tensor
    sizes: Tensor


class PatchReader(nn.Module):
    """T_tau for photographs: a residual block on a patch of features, global average pooling, a dense layer.

    With several anchors, the same network classifies one patch per anchor, and a second dense layer gives each patch a
    confidence. The softmax of the confidences over the anchors weights the boxes, as in the paper. Here it also weights
    the class probabilities, so that equation 9 trains the confidences. (The paper does not state what trains them;
    otherwise they would have no gradient.)

    The background is added to the classes as the last.

    Reference: MIST supplement, section C.1, "MIST classification network for PASCAL+COCO dataset", and section E.
    """

    anchors: Tensor

    def __init__(self, channels: int, classes: int, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.block = ResidualBlock(channels, config.width, "before")
        self.classes = nn.Linear(config.width, classes + 1)
        self.confidence = nn.Linear(config.width, 1) if len(config.anchors) > 1 else None
        self.register_buffer("anchors", torch.tensor(config.anchors), persistent=False)

    def forward(self, features: Tensor, points: Tensor) -> Reading:
        """Classifies the patches of features (batch, channels, rows, columns) around points.

        Convention: points are (batch, k, 2), x and y in cells; the result is differentiable in them.
        """
        batch, k = points.shape[:2]
        many = len(self.anchors)
        sides = (self.anchors / STRIDE).to(points).expand(batch, k, many, 2)
        boxes = torch.cat((points.unsqueeze(2).expand(batch, k, many, 2), sides), dim=-1).flatten(1, 2)
        patches = extract_patches(features, boxes, self.config.patch_size).flatten(0, 1)
        code = self.block(patches.contiguous(memory_format=torch.channels_last)).mean((-2, -1)).view(batch, k, many, -1)
        probabilities = self.classes(code).softmax(-1)
        if self.confidence is None:
            return Reading(probabilities.squeeze(2), self.anchors.to(points).expand(batch, k, 2))
        weights = self.confidence(code).softmax(2)
        return Reading((weights * probabilities).sum(2), (weights * self.anchors).sum(2))


def to_shorter_edge(images: Tensor, edge: int) -> tuple[Tensor, float]:
    """Resizes images to a shorter edge of ``edge`` pixels; returns them and the factor."""
    zoom = edge / min(images.shape[-2:])
    return resized(images, zoom), zoom


def sized(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width of an image after resizing its shorter edge to ``edge`` pixels."""
    return zoomed(height, width, edge / min(height, width))


def objects_of(centres: Tensor, reading: Reading, responses: Tensor) -> list[Detections]:
    """The patches that are not background as detections, best first. Scores are response x class probability.

    Convention: centres are (batch, k, 2), in the same pixels as the sizes; responses (batch, k), in [0, 1].
    """
    confidence, labels = reading.probabilities.max(-1)
    scores = responses * confidence
    boxes = torch.cat((centres, reading.sizes), dim=-1)
    background = reading.probabilities.shape[-1] - 1
    found = []
    for index, order in enumerate(scores.argsort(dim=1, descending=True, stable=True)):
        kept = order[labels[index, order] != background]
        found.append(Detections(boxes[index, kept], scores[index, kept], labels[index, kept]))
    return found
