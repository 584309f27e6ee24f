"""SPAIR: the objects of every cell, rendered over a background (Crawford and Pineau, AAAI 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.spair.cells import Backbone, Cells, Latents
from mistnn.models.spair.config import SpairConfig
from mistnn.nn.dense import dense_network
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision, half_precision
from mistnn.ops.render import render_objects
from mistnn.records import Detections, Explanation


class Drawn(NamedTuple):
    """The objects of every cell, and the reconstruction.

    Attributes:
        latents: z of every cell, in reading order.
        appearance: (batch, cells, channels, size, size), the objects' colours o.
        alpha: (batch, cells, 1, size, size), their transparency.
        rebuilt: (batch, channels, height, width), the reconstruction.
    """

    latents: Latents
    appearance: Tensor
    alpha: Tensor
    rebuilt: Tensor


class Spair(Finder):
    """Backbone, cells, object decoder, renderer.

    Attributes:
        shared: (channels, side, side), the picture behind all images, if ``background`` is "shared".
    """

    shared: Tensor

    def __init__(self, config: SpairConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.cells = Cells(config)
        maps = (config.channels + 1) * config.object_size**2
        self.object_decoder = dense_network(config.attributes, config.decoder, maps)
        side = config.background_side
        if side:
            self.register_buffer("shared", torch.zeros(config.channels, side, side))

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @property
    def counts_itself(self) -> bool:
        """Always, by z_pres."""
        return True

    def most(self, height: int, width: int) -> int:
        """The number of whole cells."""
        return height // self.config.cell * (width // self.config.cell)

    def limit(self, height: int, width: int) -> int:
        """One object in each cell."""
        return self.most(height, width)

    def refusal(self, height: int, width: int) -> str | None:
        """See ``Finder.refusal``: images must be made of whole cells, or have the size of the shared background."""
        cell, side = self.config.cell, self.config.background_side
        if side and (height, width) != (side, side):
            return f"has {width} x {height} pixels, and the shared background has {side} x {side}: crop it"
        if height >= 1 and width >= 1 and not height % cell and not width % cell:
            return None
        return (
            f"has {width} x {height} pixels and is not made of cells of {cell} x {cell}: crop or pad it to multiples "
            f"of {cell}"
        )

    def background_of(self, images: Tensor) -> Tensor:
        """x_bg: black, the median colour of each image, or the shared picture, which only has one size."""
        if self.config.background == "black":
            return torch.zeros_like(images)
        if self.config.background == "shared":
            if images.shape[1:] != self.shared.shape:
                raise MistError(f"an image {self.refusal(*images.shape[2:])}")
            return self.shared.expand_as(images)
        return images.flatten(2).median(2).values[..., None, None].expand_as(images)

    def learn_background(self, images: Tensor) -> None:
        """Sets the shared background to the median of many images, (n, channels, side, side), pixel by pixel.

        At any one pixel few images show an object, so the median ignores objects (S004, section C: "a fixed image
        calculated from the dataset").
        """
        self.shared.copy_(images.median(0).values)

    def infer(self, images: Tensor, held: bool = False, precision: Precision = "float32") -> Latents:
        """q(z | x); see ``forward``."""
        self.config.grid(images.shape[-2], images.shape[-1])
        with half_precision(precision, images.device):
            features = self.backbone(images).float()
        return self.cells(images, features, held, precision)

    def decode(self, what: Tensor, precision: Precision = "float32") -> tuple[Tensor, Tensor]:
        """z_what (batch, cells, A) to the objects' colours and transparency."""
        config = self.config
        shape = (*what.shape[:2], config.channels + 1, config.object_size, config.object_size)
        with half_precision(precision, what.device):
            maps = self.object_decoder(what).to(what.dtype)
        colour, alpha = maps.view(shape).split((config.channels, 1), dim=2)
        return (config.colour_gain * colour).sigmoid(), (config.alpha_gain * alpha + config.alpha_start).sigmoid()

    def forward(
        self, images: Tensor, background: Tensor | None = None, held: bool = False, precision: Precision = "float32"
    ) -> Drawn:
        """Infers the objects and renders them.

        Args:
            images: (batch, channels, height, width), with sides that are multiples of a cell.
            background: x_bg, of the same shape; by default ``background_of(images)``.
            held: training wheels are on: boxes, depths and presences get no gradient.
            precision: precision of the backbone and of the object encoder and decoder.

        Raises:
            MistError: if the images are not made of whole cells, don't have the size of the shared background, have
                another number of channels, or are not floating-point.
            ValueError: if the background doesn't have the shape of the images.
        """
        if images.dim() != 4 or images.shape[1] != self.config.channels or not images.is_floating_point():
            raise MistError(
                f"this model takes images of {self.config.channels} channels in [0, 1], (batch, channels, height, "
                f"width), and got {images.dtype} of shape {tuple(images.shape)}: convert them, or train with "
                "--model.channels"
            )
        if background is None:
            background = self.background_of(images)
        if background.shape != images.shape:
            raise ValueError(
                f"the background must be {tuple(images.shape)}, as the images, got {tuple(background.shape)}: crop or "
                "resize it"
            )
        z, config = self.infer(images, held, precision), self.config
        appearance, alpha = self.decode(z.what.sample, precision)
        depth = z.depth.sample.squeeze(-1)
        rebuilt = render_objects(
            appearance, alpha, z.boxes, z.presence, depth, background, config.importance, config.edge
        )
        return Drawn(z, appearance, alpha, rebuilt)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the most probable objects, only those present without ``k``.

        The reconstruction always consists of the objects present.
        """
        drawn = self(images)
        z = drawn.latents
        present = (z.presence_logits > 0).sum(1)
        counts = self.counts_for(images, present if k is None else k)
        found = []
        for boxes, logits, count in zip(z.boxes, z.presence_logits, counts, strict=True):
            chosen = logits.argsort(descending=True, stable=True)[:count]
            found.append(Detections(boxes[chosen], logits[chosen].sigmoid(), None))
        return Explanation(found, drawn.rebuilt)
