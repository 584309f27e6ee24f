"""What the systems for photographs share: patches of a feature map are read, photographs brought to one size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.config import Config, at_least
from mistnn.errors import MistError
from mistnn.nn.backbones import STRIDE
from mistnn.nn.blocks import ResidualBlock
from mistnn.ops.sampling import extract_patches
from mistnn.records import Detections

ONE_ANCHOR = ((112.0, 112.0),)
"""7 cells of 16 px (the papers don't say; the released code's .5 x 224 px)."""

FOUR_ANCHORS = ((56.0, 56.0), (56.0, 168.0), (168.0, 56.0), (168.0, 168.0))
"""MIST supplement, section E, on images whose shorter edge has 224 px."""


@dataclass(frozen=True)
class ReaderConfig(Config):
    """How patches are cut from the feature map and read.

    Attributes:
        anchors: width and height in pixels of the boxes around a keypoint. One patch is cut for each; see
            ``PatchReader``.
        patch_size: samples along the side of a patch. 8: a patch of 7 cells has no more to say. The released code
            takes 32, as for images, at 16 times the work.
        width: channels of the residual block (not stated; here as many as the backbone's features).
    """

    section: ClassVar[str] = "model.reader"
    anchors: tuple[tuple[float, float], ...] = ONE_ANCHOR
    patch_size: Annotated[int, at_least(1)] = 8
    width: Annotated[int, at_least(1)] = 256

    def check(self) -> None:
        """Checks the anchors.

        Raises:
            MistError: if there is none, or a side is not a finite number above 0.
        """
        if not self.anchors or not all(0 < side < math.inf for anchor in self.anchors for side in anchor):
            raise MistError(f"model.reader.anchors={self.anchors} must be widths and heights in pixels, above 0")

    @property
    def patch_cells(self) -> float:
        """The mean side of the anchors in cells: the size of a patch in the Gaussian of G."""
        return sum(side for anchor in self.anchors for side in anchor) / (2 * len(self.anchors)) / STRIDE


class Reading(NamedTuple):
    """What is read at keypoints.

    Attributes:
        probabilities: (batch, k, classes + 1), the background last.
        sizes: (batch, k, 2), width and height of the box in pixels.
    """

    probabilities: Tensor
    sizes: Tensor


class PatchReader(nn.Module):
    """T_tau for photographs: a residual block on a patch of features, global average pooling, a dense layer.

    With several anchors each keypoint has a patch for each, read by the same network, and a second dense layer gives
    each patch a confidence. After a softmax over the anchors these weigh the boxes, as the paper says; here they also
    weigh the probabilities of the classes, so that equation 9 teaches the confidences. (The paper doesn't say what
    they learn from; they would have no gradient otherwise.)

    Args:
        channels: of the features.
        classes: how many; one more, the last, is the background.
        config: anchors and sizes.

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
        """Reads around points.

        Args:
            features: (batch, channels, rows, columns).
            points: (batch, k, 2), x and y in cells; the reading is differentiable in them.
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
    """Images resized so that the shorter edge has so many pixels, and the factor; untouched where it has."""
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if shorter == edge:
        return images, 1.0
    zoom = edge / shorter
    size = sized(height, width, edge)
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1), zoom


def sized(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width of an image after its shorter edge was brought to so many pixels."""
    zoom = edge / min(height, width)
    return max(1, round(height * zoom)), max(1, round(width * zoom))


def objects_of(centres: Tensor, reading: Reading, responses: Tensor) -> list[Detections]:
    """Detections of the patches that hold an object, the best first: those that the background wins are left out.

    Args:
        centres: (batch, k, 2) in pixels.
        reading: of them, its sizes in the same pixels.
        responses: (batch, k), 0-1.
    """
    confidence, labels = reading.probabilities.max(-1)
    scores = responses * confidence
    boxes = torch.cat((centres, reading.sizes), dim=-1)
    background = reading.probabilities.shape[-1] - 1
    found = []
    for index in range(len(boxes)):
        order = scores[index].argsort(descending=True, stable=True)
        order = order[labels[index, order] != background]
        found.append(Detections(boxes[index, order], scores[index, order], labels[index, order]))
    return found


def check_classes(class_names: tuple[str, ...], k: int, shorter_edge: int) -> None:
    """Refuses classes, a K and a size that no system for photographs can have.

    Raises:
        MistError: naming the field, its value and the mend.
    """
    if not class_names or not all(class_names) or len(set(class_names)) < len(class_names):
        raise MistError(f"model.class_names={class_names} must be distinct names, at least one, none of them empty")
    if k < 1:
        raise MistError(f"model.k={k} finds nothing: give 1 or more")
    if shorter_edge < STRIDE:
        raise MistError(f"model.shorter_edge={shorter_edge} is less than a cell of the backbone: give {STRIDE} or more")
