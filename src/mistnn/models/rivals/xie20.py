"""Xie20: SOFT top-K as a mask on the classification of every place (MIST, section 5.2, and supplement C.2).

A mask can't leave patches out, so all places of the heat map are read, and all stay in memory: the heat map is coarse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.rivals.common import Rival, best_of, check_patches, check_size
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig, PaperHeatmapNetwork
from mistnn.nn.task import TaskNetwork
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import masked_class_proportions, soft_topk
from mistnn.records import Batch, Explanation


@dataclass(frozen=True)
class Xie20Config:
    """The network.

    Attributes:
        class_names: one name a class.
        k: K of the mask in training; can be changed at prediction.
        channels: of the images, 1 or 3.
        stride: pixels between two places (not stated in the paper; 8 and 4 are reported).
        epsilon: strength of the entropy in the transport problem (not stated; 0.1 in the official code).
        box_size: side in pixels of the box at each place, and of the square that is cut out.
        patch_size: side of the resampled patch in patch pixels.
        heatmap: the network of the paper, its features averaged over stride x stride pixels before they are scored.
        encoder: the patch encoder.
    """

    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    k: int = 9
    channels: int = 1
    stride: int = 8
    epsilon: float = 0.1
    box_size: float = 20.0
    patch_size: int = 32
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        for name in ("k", "stride"):
            if getattr(self, name) < 1:
                raise MistError(f"model.{name}={getattr(self, name)} must be 1 or more")
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if self.heatmap.network != "paper":
            raise MistError(f"model.heatmap.network={self.heatmap.network}: an Xie20 model takes the network paper")
        if not self.class_names:
            raise MistError("model.class_names is empty: Xie20 masks a classification; name the classes")
        check_size("epsilon", self.epsilon)
        check_size("box_size", self.box_size)
        check_patches(self.class_names, self.patch_size, 0, self.encoder)


class Xie20(Rival):
    """Scores at every place of a coarse grid, a class at every place, and a soft mask between them."""

    def __init__(self, config: Xie20Config) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = PaperHeatmapNetwork(config.channels, config.heatmap)
        self.task_network = TaskNetwork(config.channels, config.patch_size, len(config.class_names), config.encoder, 0)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Never: the paper found it too large for generative tasks."""
        return False

    def most(self, height: int, width: int) -> int:
        """How many places an image of this size has."""
        return (height // self.config.stride) * (width // self.config.stride)

    def places(self, images: Tensor) -> Tensor:
        """The boxes of all N places, (batch, n, 4), row by row: the middles of stride x stride squares."""
        stride = self.config.stride
        rows, columns = images.shape[-2] // stride, images.shape[-1] // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        points = (torch.stack((x, y), dim=-1).reshape(-1, 2).to(images) + 0.5) * stride
        return boxes_at(points, self.config.box_size).expand(len(images), -1, -1)

    def scores(self, images: Tensor) -> Tensor:
        """(batch, n), between the anchors 0 and 1 of the transport problem."""
        return self.heatmap_network.maps(images, self.config.stride).flatten(1).sigmoid()

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 12 of each image."""
        if batch.counts is None:
            raise MistError("this model has classes: its training images need class counts, and these have none")
        k = self.config.k
        mask = soft_topk(self.scores(batch.images), k, epsilon=self.config.epsilon).mask
        patches = extract_patches(batch.images, self.places(batch.images), self.config.patch_size)
        proportions = masked_class_proportions(self.task_network.classify(patches).softmax(-1), mask, k)
        target = batch.counts / batch.counts.sum(1, keepdim=True).clamp(min=1)
        return {"task": (target - proportions).square().sum(1), "mask_peak": mask.amax(1)}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The K best places, each read."""
        best = self.scores(images).topk(k, dim=1)
        boxes = self.places(images).gather(1, best.indices[..., None].expand(-1, -1, 4))
        patches = extract_patches(images, boxes, self.config.patch_size)
        confidence, labels = self.task_network.classify(patches).softmax(-1).max(-1)
        return Explanation(best_of(boxes, best.values * confidence, labels, k), None)
