"""Co-localisation: a spatial transformer finds what images have in common, taught by distances alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.network import StnClassifier, StnConfig, start
from mistnn.nn.blocks import PooledConvolution
from mistnn.nn.mixed_precision import Precision, check_precision, half_precision
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
MEMORY = 0.95
"""Share of the old in the running mean and spread of what the localisation network says of places (ours)."""
SLOPE = 0.2
"""Of the localisation network's units below 0 (ours; Maas et al., 2013). S003 has rectified ones: three to six of the
sixteen hidden units were then dead after a few hundred steps, and a place was told by what was left."""
LENGTHS = (1.0, 1.1, 0.85)
"""Of the three parts of a descriptor, the paper names none: the hidden layers, then the logits (ours)."""
OPENNESS = (
    *((0.06, 1.0), (0.40, 0.0)),
    *((0.44, 0.0), (0.44, 0.5), (0.48, 0.5), (0.59, 0.0)),
    *((0.66, 0.0), (0.66, 0.5), (0.70, 0.5), (0.81, 0.0)),
)
"""Of windows over a training, see ``ColocaliseStepConfig`` (ours)."""
CLIP, MOMENTUM = 1.0, 0.9
"""Of the descent (ours): the largest norm of a gradient, which may be sixty times that at first."""


@dataclass(frozen=True)
class ColocaliserConfig:
    """A localiser and the encoder that teaches it.

    Attributes:
        side: of the images, in pixels.
        encoder: the CNN that tells digits apart; the transformer reads crops of its size.
        least: the smallest window, as a share of the image's side.
        most: the largest window in the end.
        start: the window at first.

    The paper bounds nothing, and says neither where the window starts nor how large a random crop is; see
    ``ColocaliseStepConfig``.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.2.
    """

    side: int = 84
    encoder: StnConfig = field(default_factory=lambda: StnConfig("cnn", 32, side=60))
    least: float = 0.33
    most: float = 0.38
    start: float = 0.83

    def __post_init__(self) -> None:
        """Refuses values that no localiser can have."""
        if self.side < KERNEL:
            raise MistError(f"model.side={self.side} is too small: give {KERNEL} px or more")
        if not 0 < self.least < self.most <= self.start < 1:
            raise MistError(
                f"model.least={self.least}, model.most={self.most} and model.start={self.start} must be shares of the "
                "image's side below 1, the least below the others and the start not below the most"
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


class BoundedWindow(nn.Module):
    """The localisation network: a window of bounded size, inside the image.

    What the paper's network says of a place is normalised, by mean and spread over the batch while it learns and by
    running ones later: the middles of the windows have the mean and the spread that middles of random crops have. So
    all windows can't go to the same place, nor to the edges, where they would be as far from random crops as can be;
    all that is left to learn is which image's window is where. The mean stays so to the end.

    Equation 1 hardly tells whether all windows frame their digits alike, but all too far left, and a hundred digits are
    not exactly where random crops are in the mean. So in the end all windows are moved together (``shift``), until the
    mean of what they show has its mass in the middle.

    Convention: gives what is to be added to the parameters (s, x, y) of a window of the size at birth, in the middle of
    the image: s between ``least`` and ``bound``, and x and y so that no side of the window is outside of the image.

    Attributes:
        bound: the largest window now, which a step sets.
        closed: whether windows have closed in. Then their sizes are taught, and the spread of their places isn't any
            more; before, all have one size.
        mean: running mean of what is said of x and y.
        spread: running standard deviation of it.
        shift: (x, y), by which all windows are moved, in halves of the image's side.
    """

    bound: Tensor
    closed: Tensor
    mean: Tensor
    spread: Tensor
    shift: Tensor

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.least, self.start = config.least, config.start
        self.offset = math.log(START_SHARE / (1 - START_SHARE))
        self.register_buffer("bound", torch.tensor(widest(config)))
        self.register_buffer("closed", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("spread", torch.ones(2))
        self.register_buffer("shift", torch.zeros(2))
        half = config.side // 2
        self.layers = nn.Sequential(
            PooledConvolution(1, FILTERS, KERNEL, PADDING),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(FILTERS * half * half, UNITS),
            nn.LeakyReLU(SLOPE),
            nn.Linear(UNITS, UNITS),
            nn.LeakyReLU(SLOPE),
            nn.Linear(UNITS, 3),
        )
        start(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, side, side) to (batch, 3)."""
        said = self.layers(images).float()
        size = said[:, :1] if self.closed else torch.zeros_like(said[:, :1])
        scale = self.least + (self.bound - self.least) * torch.sigmoid(size + self.offset)
        room = 1 - scale
        place = (self._normalised(said[:, 1:]) * (room / math.sqrt(3)) + self.shift).clamp(-room, room)
        return torch.cat((scale - self.start, place), dim=1)

    @torch.no_grad()
    def wake(self, images: Tensor) -> None:
        """Scales and shifts each hidden unit so that what it says of these images has mean 0 and spread 1.

        As they are born most say the same of every image, and learn little.

        Reference: Salimans and Kingma, 2016; Kraehenbuehl et al., 2016.
        """
        seen = images
        for layer in self.layers[:-1]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                said = layer(seen).float()
                over = [axis for axis in range(said.dim()) if axis != 1]
                mean, spread = said.mean(over), said.std(over) + 1e-4
                layer.weight.div_(spread.view(-1, *[1] * (layer.weight.dim() - 1)))
                assert layer.bias is not None
                layer.bias.copy_((layer.bias - mean) / spread)
            seen = layer(seen)

    @torch.no_grad()
    def centre(self, windows: Tensor, scale: Tensor) -> None:
        """Moves all windows a little way to the middle of what is in common in them.

        Args:
            windows: (batch, 1, side, side), what they show.
            scale: (batch,), their sizes as shares of the image's side.
        """
        self.shift += (1 - MEMORY) * scale.mean() * middle_of(windows.float().mean(0)[0])

    def _normalised(self, place: Tensor) -> Tensor:
        if not self.training or len(place) < 2:
            return (place - self.mean) / self.spread
        mean = place.mean(0)
        self.mean.lerp_(mean.detach(), 1 - MEMORY)
        if self.closed:
            return (place - mean) / self.spread
        spread = place.std(0) + 1e-4
        self.spread.lerp_(spread.detach(), 1 - MEMORY)
        return (place - mean) / spread


def middle_of(picture: Tensor) -> Tensor:
    """(side, side) to the centre of mass (x, y), from -1 to 1; 0 of a black picture."""
    side = len(picture)
    places = (2 * torch.arange(side, device=picture.device, dtype=picture.dtype) + 1) / side - 1
    mass = picture.sum().clamp(min=1e-6)
    return torch.stack(((picture.sum(0) * places).sum(), (picture.sum(1) * places).sum())) / mass


class Colocaliser(nn.Module):
    """Finds one object in each image: the window of a spatial transformer of kind attention.

    Reference: S003, section 1.2 and table 2.
    """

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.config = config
        crop = config.encoder.side
        window = BoundedWindow(config)
        birth = torch.tensor([[config.start, 0.0, 0.0]])
        self.transformer = SpatialTransformer(window, TransformConfig("attention"), (crop, crop), start=birth)
        last = window.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.kaiming_normal_(last.weight[1:], nonlinearity="relu")  # what says nothing can't be normalised
        self.encoder = StnClassifier(config.encoder).requires_grad_(False)

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

    def refusal(self, height: int, width: int) -> str | None:
        """Why an image of this size can't be seen: the network has one size."""
        side = self.config.side
        if height == width == side:
            return None
        return f"has {width} x {height} pixels, and this model sees {side} x {side} only: crop or resize it"

    def most(self, height: int, width: int) -> int:
        """One, in images of the size it was built for."""
        return int(height == width == self.config.side)

    def forward(self, images: Tensor) -> Warp:
        """What the transformer reads in each image, and where."""
        return self.transformer.warp(images)

    def describe(self, crops: Tensor) -> Tensor:
        """Descriptors of crops of the encoder's size, (n, numbers).

        The activations of both hidden layers and the logits in a row, each of the three scaled to a length
        (``LENGTHS``): the paper names none, and as they are, the first layer's alone would count.
        """
        done = self.encoder(crops)
        parts = zip((*done.hidden, done.logits), LENGTHS, strict=True)
        return torch.cat(
            [nn.functional.normalize(part.float().flatten(1), dim=1) * length for part, length in parts], dim=1
        )

    def random_crops(self, images: Tensor, scales: Tensor) -> Tensor:
        """A crop of each image, anywhere a window may be, of a side that is a share of the image's, (n,)."""
        places = (torch.rand(len(images), 2, device=images.device) * 2 - 1) * (1 - scales[:, None])
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

    What had to be found: equation 1 is least where the digits are, but from afar windows on nothing are nearer to each
    other, or all windows in one corner. Large windows hold the digit wherever they are, and going to it pays at once,
    if the encoder knows digits of that size. So windows are large at first, all of one size, and close in slowly; until
    they are small, their places keep the spread of those of random crops (``BoundedWindow``). Of a hundred a few then
    lie beside their digit, where the loss of small windows hardly falls to any side, but that of larger ones does: all
    open twice more, half as far. A random crop is as large as the window it stands against, and its gradient reaches
    that size.

    Attributes:
        rate: learning rate at first; momentum 0.9, gradients of a norm of at most 1.
        margin: alpha of equation 1; the paper's 1 is of activations whose length is not known.
        openness: (share of ``decay_steps``, how far windows are open then), straight lines between; 1 for windows of
            the first size, 0 for ``ColocaliserConfig.most`` and less: while they are closed their sizes are taught.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of that fall, in iterations, which is to be that of the training.
        precision: of the networks; "auto" computes them in bfloat16 where that is faster.
    """

    rate: float = 0.1
    margin: float = 1.5
    openness: tuple[tuple[float, float], ...] = OPENNESS
    decay: float = 0.1
    decay_steps: int = 2_400
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_rates(self.decay, self.decay_steps, rate=self.rate)
        check_precision(self.precision)
        if self.decay_steps < 1:
            raise MistError(
                f"step.decay_steps={self.decay_steps}: windows close in over so many iterations; e.g. train.steps"
            )
        if not 0 < self.margin < math.inf:
            raise MistError(f"step.margin={self.margin} must be finite and above 0")
        shares = [share for share, _ in self.openness]
        if not shares or shares != sorted(shares) or not all(0 <= part <= 1 for pair in self.openness for part in pair):
            raise MistError(
                f"step.openness={self.openness} must be pairs of 0 to 1, a share of the training and how far windows "
                "are open then, in the order of the shares"
            )

    def open_at(self, iteration: int) -> float:
        """How far windows are open."""
        now, before = iteration / self.decay_steps, (0.0, self.openness[0][1])
        for after in self.openness:
            if now < after[0]:
                way = (now - before[0]) / (after[0] - before[0])
                return before[1] + way * (after[1] - before[1])
            before = after
        return before[1]


class ColocaliseStep:
    """One batch: all pairs of its images, each image against a random crop of itself."""

    def __init__(self, model: Colocaliser, config: ColocaliseStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.weights = list(model.transformer.parameters())
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.SGD(self.weights, lr=config.rate, momentum=MOMENTUM, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, model, optimizer = self.config, self.model, self.optimizers["all"]
        share = cosine_share(iteration, config.decay, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * share
        self._resize(iteration)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        model.train()
        model.encoder.eval()
        with half_precision(config.precision, images.device):
            window = model(images)
            scales = window.parameters[:, 0, 0]
            # No gradient goes to a random crop while the sizes are not taught; the encoder's is half of the time.
            with torch.set_grad_enabled(bool(model.window.closed)):
                random = self._describe(model.random_crops(images, scales))
            found = self._describe(window.features)
        loss = common_object_loss(found, random, config.margin).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP, foreach=True)
        optimizer.step()
        if model.window.closed:
            model.window.centre(window.features, scales)
        return {"loss": loss.detach(), "window": scales.detach().mean()}

    def _describe(self, crops: Tensor) -> Tensor:
        return self.model.describe(crops.contiguous(memory_format=torch.channels_last))

    def _resize(self, iteration: int) -> None:
        """Sets the size that windows have now, and whether it is taught."""
        window, opened = self.model.window, self.config.open_at(iteration)
        first = widest(self.model.config)
        last = window.least + (self.model.config.most - window.least) / START_SHARE
        window.closed.fill_(opened == 0)
        window.bound.fill_(last + (first - last) * opened)
