"""Xie20 on photographs: SOFT top-K as a mask on the classification of every cell of a backbone's features.

All patches are read and stay in memory, as equation 12 asks: 196 of an image of 224 x 224 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.rivals.common import Rival, check_size
from mistnn.nn.backbones import STRIDE, Backbone, BackboneConfig
from mistnn.nn.feature_patches import PatchReader, ReaderConfig, check_classes, objects_of, sized, to_shorter_edge
from mistnn.ops.losses import with_background
from mistnn.ops.selection import masked_class_proportions, soft_topk
from mistnn.records import Batch, Explanation


@dataclass(frozen=True)
class NaturalXie20Config:
    """The network.

    Attributes:
        class_names: one name a class; the background is one more, without a name.
        k: K of the mask, an upper bound on the objects; can be changed at prediction.
        shorter_edge: in pixels, that photographs are resized to (paper: 224).
        cells: between two places, along a side (not stated); 1 reads every cell, 2 a quarter of them.
        epsilon: strength of the entropy in the transport problem (not stated; 0.1 in the official code).
        backbone: whose features are used.
        reader: how patches are cut and read.
    """

    class_names: tuple[str, ...] = ("object",)
    k: int = 2
    shorter_edge: int = 224
    cells: int = 1
    epsilon: float = 0.1
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_classes(self.class_names, self.k, self.shorter_edge)
        check_size("epsilon", self.epsilon)
        most = self.shorter_edge // STRIDE
        if not 1 <= self.cells <= most:
            raise MistError(f"model.cells={self.cells} must be from 1 to {most}, the cells along the shorter edge")
        if self.k >= (most // self.cells) ** 2:
            raise MistError(
                f"model.k={self.k} must be below the {(most // self.cells) ** 2} places that model.cells={self.cells} "
                "leaves: give a smaller one of the two"
            )


class NaturalXie20(Rival):
    """Scores at every place of the features, a class at every place, and a soft mask between them.

    The places are the middles of the cells: a mask has no gradient that would teach offsets.

    Reference: MIST supplement, section C.2 and equation 12; section 5.2, Table 4.
    """

    def __init__(self, config: NaturalXie20Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Conv2d(self.backbone.channels, 1, 1)
        self.task_network = PatchReader(self.backbone.channels, len(config.class_names), config.reader)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, without the background."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Never: photographs are no sum of patches."""
        return False

    def most(self, height: int, width: int) -> int:
        """How many places an image of this size has."""
        rows, columns = sized(height, width, self.config.shorter_edge)
        return (-(-rows // STRIDE) // self.config.cells) * (-(-columns // STRIDE) // self.config.cells)

    def scores(self, features: Tensor) -> Tensor:
        """(batch, n), between the anchors 0 and 1 of the transport problem; row by row."""
        scores = self.head(features)
        return F.avg_pool2d(scores, self.config.cells).flatten(1).sigmoid()

    def places(self, features: Tensor) -> Tensor:
        """(batch, n, 2), the middles of the places in cells, in the order of the scores."""
        cells = self.config.cells
        rows, columns = features.shape[-2] // cells, features.shape[-1] // cells
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        points = (torch.stack((x, y), dim=-1).reshape(-1, 2).to(features) + 0.5) * cells
        return points.expand(len(features), -1, -1)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 12 of each image, with a background for the places that it has no object for."""
        if batch.counts is None:
            raise MistError("this model has classes: its training images need class counts, and these have none")
        features = self.backbone(batch.images)
        if batch.sizes is None:
            return self._losses(features, batch.counts)
        # Images have as many places as cells, so padded ones of different sizes are masked one by one.
        ends = self.backbone.cells_of(batch.sizes).tolist()
        parts = [
            self._losses(features[[index], :, :rows, :columns], batch.counts[[index]])
            for index, (rows, columns) in enumerate(ends)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _losses(self, features: Tensor, counts: Tensor) -> dict[str, Tensor]:
        k = self.config.k
        mask = soft_topk(self.scores(features), k, epsilon=self.config.epsilon).mask
        probabilities = self.task_network(features, self.places(features)).probabilities
        wanted = with_background(counts, k).to(probabilities.dtype)
        target = wanted / wanted.sum(1, keepdim=True)
        proportions = masked_class_proportions(probabilities, mask, k)
        return {"task": (target - proportions).square().sum(1), "mask_peak": mask.amax(1)}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The K best places, each read; those of the background are left out."""
        seen, zoom = to_shorter_edge(images, self.config.shorter_edge)
        features = self.backbone(seen)
        best = self.scores(features).topk(k, dim=1)
        points = self.places(features).gather(1, best.indices[..., None].expand(-1, -1, 2))
        reading = self.task_network(features, points)
        reading = reading._replace(sizes=reading.sizes / zoom)
        return Explanation(objects_of(self.backbone.to_pixels(points) / zoom, reading, best.values), None)
