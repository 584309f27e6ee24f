"""Channel-wise: one heat map for each of K keypoints, its place the soft-argmax (MIST, section 5.1, baseline 2).

Every step is differentiable, so the heat maps learn from the task loss by its gradient to the places. Each channel has
one keypoint, so nothing lets two channels share several objects that look alike.
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
from mistnn.nn.task import TaskNetwork, TaskOutput, counted_loss, relative_reconstruction_loss
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.landmarks import soft_argmax
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Batch, Explanation


@dataclass(frozen=True)
class ChannelwiseConfig:
    """The network.

    Attributes:
        class_names: one name a class; empty for a model that only reconstructs.
        k: K, how many channels: it can't be changed later.
        channels: of the images, 1 or 3.
        box_size: side in pixels of the box around a keypoint, and of the square that is cut out (the scale of a channel
            is not stated in the paper; fixed here).
        patch_size: side of the resampled patch in patch pixels.
        heatmap: the network of the paper, with K outputs; it starts at random, since K equal maps would stay equal.
        encoder: the patch encoder.
        decoder: width of the decoder; 0 for none.
        strength: of the softmax over the pixels (not stated). At 1 all channels begin at the middle of the image, on
            top of each other, and black is all that their patches learn to redraw; at 30 they begin apart.
    """

    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    k: int = 9
    channels: int = 1
    box_size: float = 20.0
    patch_size: int = 32
    heatmap: HeatmapConfig = field(default_factory=lambda: HeatmapConfig(start="random"))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: int = 0
    strength: float = 30.0

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.k < 1:
            raise MistError(f"model.k={self.k} finds nothing: give 1 or more")
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if self.heatmap.network != "paper" or self.heatmap.start != "random":
            raise MistError("model.heatmap of a channel-wise model must be the network paper with the start random")
        check_size("box_size", self.box_size)
        check_size("strength", self.strength)
        check_patches(self.class_names, self.patch_size, self.decoder, self.encoder)


class Channelwise(Rival):
    """K heat maps, K places, K patches."""

    def __init__(self, config: ChannelwiseConfig) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = PaperHeatmapNetwork(config.channels, config.heatmap, outputs=config.k)
        self.task_network = TaskNetwork(
            config.channels, config.patch_size, len(config.class_names), config.encoder, config.decoder
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class; empty for a model without classes."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Whether it can draw an image again from its parts."""
        return self.config.decoder > 0

    def most(self, height: int, width: int) -> int:
        """K, whatever the size."""
        return self.config.k

    def forward(self, images: Tensor) -> tuple[Tensor, TaskOutput, Tensor | None]:
        """(batch, channels, height, width) to boxes (batch, k, 4), the task network's output and the images redrawn."""
        points = soft_argmax(self.config.strength * self.heatmap_network.maps(images))
        boxes = boxes_at(points, self.config.box_size)
        task = self.task_network(extract_patches(images, boxes, self.config.patch_size))
        rebuilt = None
        if task.decoded is not None:
            window = int(self.config.box_size * (1 + 1 / self.config.patch_size)) + 2
            rebuilt = place_patches(task.decoded, boxes, images.shape[-2], images.shape[-1], window)
        return boxes, task, rebuilt

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Equation 9, or equation 8 per unit of the image's energy, or their sum where it has both."""
        _, task, rebuilt = self(batch.images)
        terms: dict[str, Tensor] = {}
        if task.logits is not None:
            terms["classification"] = counted_loss(task.logits, batch.counts)
        if rebuilt is not None:
            terms["reconstruction"] = relative_reconstruction_loss(batch.images, rebuilt)
        return {"task": torch.stack(list(terms.values())).sum(0), **terms}

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """One box a channel, by its class's probability; the K best of them."""
        boxes, task, rebuilt = self(images)
        scores, labels = boxes.new_ones(boxes.shape[:2]), None
        if task.logits is not None:
            scores, labels = task.logits.softmax(-1).max(-1)
        return Explanation(best_of(boxes, scores, labels, k), rebuilt)
