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
START_SHARE = 0.78
"""Where between its bounds a window's size is at birth (ours)."""
REACH = 0.5
"""How far from the middle the middle of even a large window may be, as a share of half the image's side (ours): a digit
at the border is to be framed as one in the middle, and what is beyond the border is black."""


@dataclass(frozen=True)
class ColocaliserConfig:
    """A localiser and the encoder that teaches it.

    Attributes:
        side: of the images, in pixels.
        encoder: the CNN that tells digits apart; the transformer reads crops of its size.
        least: the smallest window, as a share of the image's side.
        most: the largest window in the end.
        start: the window at birth, in the middle of the image.

    The paper bounds nothing, and says neither where the window starts nor how large a random crop is. Unbounded, all
    windows end in black: what is empty is alike. So a window begins large enough to hold something wherever it is, and
    has bounds; see ``ColocaliseStepConfig``.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.2.
    """

    side: int = 84
    encoder: StnConfig = field(default_factory=lambda: StnConfig("cnn", 32, side=28))
    least: float = 0.28
    most: float = 0.42
    start: float = 0.8

    def __post_init__(self) -> None:
        """Refuses values that no localiser can have."""
        if self.side < KERNEL:
            raise MistError(f"model.side={self.side} is too small: give {KERNEL} px or more")
        if not 0 < self.least < self.most <= self.start <= 1:
            raise MistError(
                f"model.least={self.least}, model.most={self.most} and model.start={self.start} must be shares of the "
                "image's side, the least below the others and the start not below the most"
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


def widest(config: ColocaliserConfig) -> float:
    """The bound of a window at birth."""
    return config.least + (config.start - config.least) / START_SHARE


def reach(scale: Tensor) -> Tensor:
    """How far from the middle of the image the middle of a window may be, for a window's share of its side."""
    return (1 - scale).clamp(min=REACH)


class BoundedWindow(nn.Module):
    """The localisation network: a window of bounded size and place.

    Convention: gives what is to be added to the parameters (s, x, y) of the window at birth, in the middle of the
    image: s between ``least`` and ``bound``, and x and y so that the window's middle is inside of ``REACH``, or no side
    of the window outside of the image.

    Attributes:
        bound: the largest window now; a step lets it fall.
        fixed: whether the size of the window is not taught now.
    """

    bound: Tensor

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.least, self.start = config.least, config.start
        self.offset = math.log(START_SHARE / (1 - START_SHARE))
        self.fixed = False
        self.register_buffer("bound", torch.tensor(widest(config)))
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
        size = said[:, :1].detach() if self.fixed else said[:, :1]
        scale = self.least + (self.bound - self.least) * torch.sigmoid(size + self.offset)
        return torch.cat((scale - self.start, reach(scale) * torch.tanh(said[:, 1:])), dim=1)


class Colocaliser(nn.Module):
    """Finds one object in each image: the window of a spatial transformer of kind attention.

    Reference: S003, section 1.2 and table 2.
    """

    length: Tensor

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.config = config
        crop = config.encoder.side
        window = BoundedWindow(config)
        start = torch.tensor([[config.start, 0.0, 0.0]])
        self.transformer = SpatialTransformer(window, TransformConfig("attention"), (crop, crop), start=start)
        self.encoder = StnClassifier(config.encoder).requires_grad_(False)
        self.register_buffer("length", torch.ones(()))

    @property
    def window(self) -> BoundedWindow:
        """The localisation network."""
        assert isinstance(self.transformer.localisation, BoundedWindow)
        return self.transformer.localisation

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

    def activations(self, crops: Tensor) -> Tensor:
        """(n, numbers): the encoder's two hidden layers and its logits in a row."""
        done = self.encoder(crops)
        return torch.cat([part.float().flatten(1) for part in (*done.hidden, done.logits)], dim=1)

    @torch.no_grad()
    def measure(self, digits: Tensor) -> None:
        """Takes the length that activations usually have from whole digits, (n, 1, side, side)."""
        self.length.copy_(self.activations(digits).square().sum(1).mean().sqrt())

    def describe(self, crops: Tensor, opening: bool) -> Tensor:
        """Descriptors of crops, (n, numbers).

        Args:
            crops: of the encoder's size.
            opening: every descriptor has length 1; otherwise the descriptors of whole digits have it on average.
        """
        values = self.activations(crops)
        return nn.functional.normalize(values, dim=1) if opening else values / self.length

    def random_crops(self, images: Tensor, scales: Tensor) -> Tensor:
        """A crop of each image, anywhere a window may be, of a side that is a share of the image's, (n,)."""
        places = (torch.rand(len(images), 2, device=images.device) * 2 - 1) * reach(scales[:, None])
        side = self.config.encoder.side
        window = torch.cat((scales[:, None], places), dim=1)
        return transforms.sample(images, transforms.attention_grid(window, side, side))

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The box of each image, of score 1."""
        window = self(images).parameters[:, 0] * (self.config.side / 2)
        middle = window[:, 1:] + self.config.side / 2
        boxes = torch.cat((middle, 2 * window[:, :1].expand(-1, 2)), dim=1)
        return Explanation([Detections(box[None], box.new_ones(1), None) for box in boxes], None)


@dataclass(frozen=True)
class ColocaliseStepConfig:
    """How a localiser is trained. The paper names the margin alone, 1, and no length of the descriptors.

    What had to be found: activations as they are have their least loss where the digits are, framed as the encoder
    knows them, but from afar a window on nothing is nearer, and all of them end there. So training opens with a large
    window of one size, which holds something wherever it is, and with descriptors of length 1: this brings the digit to
    the same place of each window. Then come the activations, and the window closes in. A random crop is as large as
    the window it stands against, and its gradient reaches that size: else large windows, in which all digits are small
    and alike, would be best.

    Attributes:
        rate: learning rate of Adam.
        margin: alpha of equation 1; the paper's 1 is of activations whose length is not known.
        opening: iterations with descriptors of length 1 and a window of one size.
        closing: iterations after these over which the largest window falls to ``ColocaliserConfig.most``.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of that fall, in iterations.
    """

    rate: float = 3e-3
    margin: float = 1.5
    opening: int = 60
    closing: int = 150
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
        for name, value in (("opening", self.opening), ("closing", self.closing)):
            if value < 0:
                raise MistError(f"step.{name}={value} is negative: give 0 or more")


class ColocaliseStep:
    """One batch: all pairs of its images, each image against a random crop of itself."""

    def __init__(self, model: Colocaliser, config: ColocaliseStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        weights = list(model.transformer.parameters())
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(weights, lr=config.rate, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, model, optimizer = self.config, self.model, self.optimizers["all"]
        share = cosine_share(iteration, config.decay, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * share
        opens = iteration < config.opening
        closed = 1.0 if config.closing == 0 else min(1.0, max(0, iteration - config.opening) / config.closing)
        first = widest(model.config)
        model.window.fixed = opens
        model.window.bound.fill_(first + (model.config.most - first) * (0.0 if opens else closed))
        images = batch.images.contiguous(memory_format=torch.channels_last)
        model.encoder.eval()
        window = model(images)
        scales = window.parameters[:, 0, 0]
        crops = torch.cat((window.features, model.random_crops(images, scales)))
        found, random = model.describe(crops, opens).chunk(2)
        loss = common_object_loss(found, random, config.margin).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), "window": scales.detach().mean()}
