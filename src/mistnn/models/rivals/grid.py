"""Grid: a fixed grid of cells, the same auto-encoder in every cell (MIST, CVPR 2021, section 5.1, baseline 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.rivals.common import Rival, check_patches
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.task import TaskNetwork, relative_reconstruction_loss
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Batch, Detections, Explanation


@dataclass(frozen=True)
class GridConfig:
    """The grid and its auto-encoder.

    Attributes:
        cells: rows and columns of the grid (paper: 3).
        channels: of the images, 1 or 3.
        patch_size: side of a resampled cell in patch pixels.
        encoder: the patch encoder.
        decoder: width of the decoder.
    """

    cells: int = 3
    channels: int = 1
    patch_size: int = 32
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: int = 8

    def __post_init__(self) -> None:
        """Refuses values that no grid can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.cells < 1:
            raise MistError(f"model.cells={self.cells} is no grid: give 1 or more")
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        check_patches((), self.patch_size, self.decoder, self.encoder)

    @property
    def k(self) -> int:
        """How many cells."""
        return self.cells**2

    @property
    def class_names(self) -> tuple[str, ...]:
        """It has none."""
        return ()


class Grid(Rival):
    """Redraws an image cell by cell; it learns no notion of an object, and its boxes are the cells."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        self.config = config
        self.task_network = TaskNetwork(config.channels, config.patch_size, 0, config.encoder, config.decoder)

    @property
    def class_names(self) -> tuple[str, ...]:
        """It has none."""
        return ()

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    def most(self, height: int, width: int) -> int:
        """K, whatever the size."""
        return self.config.k

    def boxes(self, images: Tensor) -> Tensor:
        """The cells of each image, (batch, cells^2, 4), row by row."""
        height, width, cells = images.shape[-2], images.shape[-1], self.config.cells
        place = (torch.arange(cells, device=images.device, dtype=images.dtype) + 0.5) / cells
        y, x = torch.meshgrid(place * height, place * width, indexing="ij")
        size = torch.tensor((width / cells, height / cells), device=images.device, dtype=images.dtype)
        cell = torch.cat((torch.stack((x, y), dim=-1).reshape(-1, 2), size.expand(cells**2, 2)), dim=-1)
        return cell.expand(len(images), -1, -1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to the images redrawn, of the same shape."""
        boxes = self.boxes(images)
        decoded = self.task_network(extract_patches(images, boxes, self.config.patch_size)).decoded
        assert decoded is not None
        height, width = images.shape[-2:]
        largest = math.ceil(max(height, width) / self.config.cells * (1 + 1 / self.config.patch_size)) + 1
        return place_patches(decoded, boxes, height, width, largest)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 8 of each image, per unit of its energy."""
        loss = relative_reconstruction_loss(batch.images, self(batch.images))
        return {"task": loss, "reconstruction": loss}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The cells as boxes of score 1, the first K of them, and the redrawn images."""
        boxes = self.boxes(images)[:, :k]
        found = [Detections(one, one.new_ones(len(one)), None) for one in boxes]
        return Explanation(found, self(images))
