"""Grid: a fixed grid of cells with the same auto-encoder in every cell (MIST, CVPR 2021, section 5.1, baseline 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mistnn.models.rivals.common import Rival
from mistnn.models.rivals.config import GridConfig
from mistnn.nn.task import TaskNetwork, relative_reconstruction_loss
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Batch, Detections, Explanation


class Grid(Rival):
    """Reconstructs an image cell by cell. It learns no notion of an object: its boxes are the cells."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        self.config = config
        self.task_network = TaskNetwork(config.channels, config.patch_size, 0, config.encoder, config.decoder)

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    def most(self, height: int, width: int) -> int:
        """The number of cells."""
        return self.config.k

    def boxes(self, images: Tensor) -> Tensor:
        """The cells of each image, (batch, cells^2, 4), row by row."""
        height, width, cells = *images.shape[-2:], self.config.cells
        place = (torch.arange(cells, device=images.device, dtype=images.dtype) + 0.5) / cells
        y, x = torch.meshgrid(place * height, place * width, indexing="ij")
        size = images.new_tensor((width / cells, height / cells))
        cell = torch.cat((torch.stack((x, y), dim=-1).reshape(-1, 2), size.expand(cells**2, 2)), dim=-1)
        return cell.expand(len(images), -1, -1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to the reconstruction, of the same shape."""
        boxes = self.boxes(images)
        decoded = self.task_network(extract_patches(images, boxes, self.config.patch_size)).decoded
        assert decoded is not None
        height, width = images.shape[-2:]
        largest = math.ceil(max(height, width) / self.config.cells * (1 + 1 / self.config.patch_size)) + 1
        return place_patches(decoded, boxes, height, width, largest)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 8 of each image, relative to its energy."""
        loss = relative_reconstruction_loss(batch.images, self(batch.images))
        return {"task": loss, "reconstruction": loss}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the first K cells, each with score 1."""
        chosen = [boxes[:k] for boxes, k in zip(self.boxes(images), self.counts_for(images, k), strict=True)]
        return Explanation([Detections(boxes, torch.ones_like(boxes[:, 0])) for boxes in chosen], self(images))
