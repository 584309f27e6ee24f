"""Co-localisation: a spatial transformer finds what images have in common, taught by distances alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.network import StnClassifier, StnConfig
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.nn.spatial_transformer import SpatialTransformer, TransformConfig, Warp
from mistnn.ops import transforms
from mistnn.ops.losses import common_object_loss
from mistnn.records import Batch, Detections, Explanation

FILTERS, KERNEL, PADDING, UNITS = 8, 9, 4, 8
"""Of the localisation network. The paper writes "a 4 pixel stride", with which the network has 6,000 parameters, and
calls it a network of 100,000: with 4 pixels of padding and a stride of 1 it has 114,000 (S003, section 1.2)."""


@dataclass(frozen=True)
class ColocaliserConfig:
    """A localiser and the encoder that teaches it.

    Attributes:
        side: of the images, in pixels.
        encoder: the CNN that tells digits apart; the transformer reads crops of its size.
        least: the smallest window, as a share of the image's side.
        most: the largest window.
        start: the window at birth, in the middle of the image.

    The paper bounds nothing, and says neither where the window starts nor how large a random crop is. Unbounded, all
    windows end in black: what is empty is alike. So the window lies within the image, its side between two shares.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.2.
    """

    side: int = 84
    encoder: StnConfig = field(default_factory=lambda: StnConfig("cnn", 32, side=28))
    least: float = 0.1
    most: float = 0.6
    start: float = 0.5

    def __post_init__(self) -> None:
        """Refuses values that no localiser can have."""
        if self.side < KERNEL:
            raise MistError(f"model.side={self.side} is too small: give {KERNEL} px or more")
        if not 0 < self.least < self.start < self.most <= 1:
            raise MistError(
                f"model.least={self.least}, model.start={self.start} and model.most={self.most} must be shares of the "
                "image's side, each above the one before"
            )
        if self.encoder.network != "cnn" or self.encoder.transformers or self.encoder.channels != 1:
            raise MistError("model.encoder must be a plain CNN on grey images: give network cnn, no transformers")

    @property
    def channels(self) -> int:
        """Grey images."""
        return 1

    @property
    def k(self) -> int:
        """One object an image."""
        return 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """Nobody names what is in common."""
        return ()


class BoundedWindow(nn.Module):
    """The localisation network: any window of bounded size that lies within the image.

    Convention: gives what is to be added to the parameters (s, x, y) of the window at birth, in the middle of the
    image: s between the bounds, and x and y so that no side of the window is outside.
    """

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.least, self.most, self.start = config.least, config.most, config.start
        share = (config.start - config.least) / (config.most - config.least)
        self.offset = math.log(share / (1 - share))
        half = config.side // 2
        self.layers = nn.Sequential(
            nn.Conv2d(1, FILTERS, KERNEL, padding=PADDING),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(FILTERS * half * half, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, 3),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, side, side) to (batch, 3)."""
        said = self.layers(images).float()
        scale = self.least + (self.most - self.least) * torch.sigmoid(said[:, :1] + self.offset)
        return torch.cat((scale - self.start, (1 - scale) * torch.tanh(said[:, 1:])), dim=1)


class Colocaliser(nn.Module):
    """Finds one object in each image: the window of a spatial transformer of kind attention.

    Reference: S003, section 1.2 and table 2.
    """

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.config = config
        crop = config.encoder.side
        window = BoundedWindow(config)
        start = torch.tensor([[config.start, 0.0, 0.0]])
        self.transformer = SpatialTransformer(window, TransformConfig("attention"), (crop, crop), start=start)
        self.encoder = StnClassifier(config.encoder).requires_grad_(False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """It has none."""
        return ()

    @property
    def reconstructs(self) -> bool:
        """Never."""
        return False

    def most(self, height: int, width: int) -> int:
        """One, in images of the size it was built for."""
        return int(height == width == self.config.side)

    def forward(self, images: Tensor) -> Warp:
        """What the transformer reads in each image, and where."""
        return self.transformer.warp(images)

    def describe(self, crops: Tensor) -> Tensor:
        """Descriptors of crops, (n, numbers), of length 1: the encoder's two hidden layers and its logits in a row.

        Of length 1 is ours: so the margin means the same for every encoder.
        """
        done = self.encoder(crops)
        parts = [part.float().flatten(1) for part in (*done.hidden, done.logits)]
        return nn.functional.normalize(torch.cat(parts, dim=1), dim=1)

    def random_crops(self, images: Tensor, scale: float) -> Tensor:
        """A crop of each image, anywhere in it, of a side that is a share of the image's."""
        places = (torch.rand(len(images), 2, device=images.device) * 2 - 1) * (1 - scale)
        side = self.config.encoder.side
        return transforms.sample(images, transforms.translation_grid(places, side, side, scale))

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The box of each image, of score 1."""
        window = self(images).parameters[:, 0] * (self.config.side / 2)
        middle = window[:, 1:] + self.config.side / 2
        boxes = torch.cat((middle, 2 * window[:, :1].expand(-1, 2)), dim=1)
        return Explanation([Detections(box[None], box.new_ones(1), None) for box in boxes], None)


@dataclass(frozen=True)
class ColocaliseStepConfig:
    """How a localiser is trained. The paper names the margin alone.

    Attributes:
        rate: learning rate of Adam.
        margin: alpha of equation 1 (S003, section 1.2).
        crop: side of a random crop, as a share of the image's.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of that fall, in iterations.
    """

    rate: float = 3e-3
    margin: float = 1.0
    crop: float = 1 / 3
    decay: float = 1.0
    decay_steps: int = 0

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_rates(self.decay, self.decay_steps, rate=self.rate)
        if not 0 < self.margin < math.inf:
            raise MistError(f"step.margin={self.margin} must be finite and above 0")
        if not 0 < self.crop < 1:
            raise MistError(f"step.crop={self.crop} must be a share of the image's side, between 0 and 1")


class ColocaliseStep:
    """One batch: each image is paired with the one before it, and pulled away from a random crop of itself.

    The batches are shuffled anew in each epoch, so that pairs are random.
    """

    def __init__(self, model: Colocaliser, config: ColocaliseStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        weights = list(model.transformer.parameters())
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(weights, lr=config.rate, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, optimizer = self.config, self.optimizers["all"]
        share = cosine_share(iteration, config.decay, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * share
        images = batch.images.contiguous(memory_format=torch.channels_last)
        self.model.encoder.eval()
        found = self.model(images)
        crops = torch.cat((found.features, self.model.random_crops(images, config.crop)))
        own, random = self.model.describe(crops).chunk(2)
        loss = common_object_loss(own, own.roll(1, 0), random, config.margin).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), "window": found.parameters[:, 0, 0].detach().mean()}
