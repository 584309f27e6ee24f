"""SPAIR: objects of every cell, drawn over a background (Crawford and Pineau, AAAI 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.spair.cells import Backbone, Cells, Latents
from mistnn.models.spair.config import SpairConfig
from mistnn.nn.dense import dense_network
from mistnn.nn.mixed_precision import Precision, half_precision
from mistnn.ops.render import render_objects
from mistnn.records import Detections, Explanation


class Drawn(NamedTuple):
    """Images as SPAIR explains them.

    Attributes:
        latents: z of every cell, in reading order.
        appearance: (batch, cells, channels, size, size), the objects' colours o.
        alpha: (batch, cells, 1, size, size), their transparency.
        rebuilt: (batch, channels, height, width), the picture.
    """

    latents: Latents
    appearance: Tensor
    alpha: Tensor
    rebuilt: Tensor


class Spair(nn.Module):
    """Backbone, cells, object decoder, renderer.

    Attributes:
        shared: (channels, side, side), the picture behind all images, where ``background`` is "shared".
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
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @property
    def counts_itself(self) -> bool:
        """Always: z_pres says how many objects there are."""
        return True

    def most(self, height: int, width: int) -> int:
        """As many objects as whole cells."""
        return height // self.config.cell * (width // self.config.cell)

    def refusal(self, height: int, width: int) -> str | None:
        """Why an image of this size can't be seen: it is not made of whole cells."""
        cell, side = self.config.cell, self.config.background_side
        if side and (height, width) != (side, side):
            return f"has {width} x {height} pixels, and the background that it shares has {side} x {side}: crop it"
        if height >= 1 and width >= 1 and not height % cell and not width % cell:
            return None
        return (
            f"has {width} x {height} pixels and is not made of cells of {cell} x {cell}: crop or pad it to multiples "
            f"of {cell}"
        )

    def background_of(self, images: Tensor) -> Tensor:
        """x_bg: black, each image's median colour, or the picture that all share.

        Raises:
            MistError: if images have another size than what they share.
        """
        if self.config.background == "black":
            return torch.zeros_like(images)
        if self.config.background == "shared":
            if images.shape[1:] != self.shared.shape:
                raise MistError(f"an image {self.refusal(*images.shape[2:])}")
            return self.shared.expand_as(images)
        return images.flatten(2).median(2).values[..., None, None].expand_as(images)

    def learn_background(self, images: Tensor) -> None:
        """Takes what all images share from many, (n, channels, side, side): the median at each pixel and channel.

        An object is in few images at any one pixel; the median doesn't see it (S004, section C: "a fixed image
        calculated from the dataset").
        """
        self.shared.copy_(images.median(0).values)

    def infer(self, images: Tensor, held: bool = False, precision: Precision = "float32") -> Latents:
        """q(z | x); see ``forward``."""
        self.config.grid(images.shape[-2], images.shape[-1])
        with half_precision(precision, images.device):
            features = self.backbone(images).float()
        return self.cells(images, features, held)

    def decode(self, what: Tensor) -> tuple[Tensor, Tensor]:
        """z_what (batch, cells, A) to the objects' colours and transparency."""
        config = self.config
        shape = (*what.shape[:2], config.channels + 1, config.object_size, config.object_size)
        colour, alpha = self.object_decoder(what).view(shape).split((config.channels, 1), dim=2)
        return (config.colour_gain * colour).sigmoid(), (config.alpha_gain * alpha + config.alpha_start).sigmoid()

    def forward(
        self, images: Tensor, background: Tensor | None = None, held: bool = False, precision: Precision = "float32"
    ) -> Drawn:
        """(batch, channels, height, width) to objects and the images redrawn.

        Args:
            images: sides that are multiples of a cell.
            background: x_bg, of the shape of the images; see ``background_of`` if not given.
            held: training wheels: boxes, depths and presences get no gradient.
            precision: of the backbone.

        Raises:
            MistError: if an image is not made of whole cells, or is no floating-point image of the model's channels.
            ValueError: if the background has another shape than the images.
        """
        if images.dim() != 4 or images.shape[1] != self.config.channels or not images.is_floating_point():
            raise MistError(
                f"this model sees images of {self.config.channels} channels in [0, 1], (batch, {self.config.channels}, "
                f"height, width), and got {images.dtype} of shape {tuple(images.shape)}: convert them, or train with "
                "--model.channels"
            )
        if background is None:
            background = self.background_of(images)
        if background.shape != images.shape:
            raise ValueError(
                f"the background must be {tuple(images.shape)} as the images, got {tuple(background.shape)}: crop or "
                "resize it to their size"
            )
        z = self.infer(images, held, precision)
        appearance, alpha = self.decode(z.what.sample)
        rebuilt = render_objects(
            appearance,
            alpha,
            z.boxes,
            z.presence,
            z.depth.sample.squeeze(-1),
            background,
            self.config.importance,
            self.config.edge,
        )
        return Drawn(z, appearance, alpha, rebuilt)

    @torch.no_grad()
    def detect(self, images: Tensor, counts: Tensor | None = None) -> Explanation:
        """The objects that are present in each image, the likeliest first, and the images redrawn.

        Args:
            images: as in ``forward``.
            counts: not used: SPAIR says itself how many there are.
        """
        drawn = self(images)
        z = drawn.latents
        return Explanation(
            [
                _best(one, logits, int((logits > 0).sum()))
                for one, logits in zip(z.boxes, z.presence_logits, strict=True)
            ],
            drawn.rebuilt,
        )

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The K likeliest objects of each image, present or not, and the images redrawn from those present."""
        drawn = self(images)
        z = drawn.latents
        found = [_best(one, logits, k) for one, logits in zip(z.boxes, z.presence_logits, strict=True)]
        return Explanation(found, drawn.rebuilt)


def _best(boxes: Tensor, logits: Tensor, k: int) -> Detections:
    """The k boxes of one image with the highest logits."""
    chosen = logits.argsort(descending=True, stable=True)[:k]
    return Detections(boxes[chosen], logits[chosen].sigmoid(), None)
