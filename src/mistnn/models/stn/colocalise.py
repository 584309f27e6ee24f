"""Co-localisation: a spatial transformer finds what images have in common, supervised by distances alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.classifier import initialise
from mistnn.models.stn.config import LOCALISATION_KERNEL, ColocaliserConfig
from mistnn.models.stn.network import StnClassifier
from mistnn.nn.blocks import PooledConvolution
from mistnn.nn.finder import Finder
from mistnn.nn.spatial_transformer import SpatialTransformer, TransformConfig, Warp
from mistnn.ops import transforms
from mistnn.records import Detections, Explanation

FILTERS, PADDING, UNITS = 8, 4, 8
"""Sizes of the localisation network. The paper writes "a 4 pixel stride" and 100,000 parameters. With that stride the
network has 6,000; with a padding of 4 pixels and a stride of 1 it has 114,000 (S003, section 1.2)."""
START_SHARE = 0.78
"""Position of the initial window size between its bounds (ours)."""
MEMORY = 0.95
"""Weight of the old value in the running mean and spread of places (ours)."""
SLOPE = 0.2
"""Negative slope of the localisation network's leaky ReLU (ours; Maas et al., 2013). With the ReLU of S003, three to
six of the sixteen hidden units were dead after a few hundred steps."""
LENGTHS = (1.0, 1.1, 0.85)
"""Lengths of the three parts of a descriptor: the hidden layers, then the logits (ours; the paper states none)."""


def widest(config: ColocaliserConfig) -> float:
    """The initial upper bound of a window."""
    return config.least + (config.start - config.least) / START_SHARE


class WindowNetwork(nn.Module):
    """The localisation network (S003, section 1.2), whose three outputs are scale and place of a window.

    Attributes:
        layers: the network, from images (batch, 1, side, side) to (batch, 3).
    """

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        half = config.side // 2
        self.layers = nn.Sequential(
            PooledConvolution(1, FILTERS, LOCALISATION_KERNEL, PADDING),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(FILTERS * half * half, UNITS),
            nn.LeakyReLU(SLOPE),
            nn.Linear(UNITS, UNITS),
            nn.LeakyReLU(SLOPE),
            nn.Linear(UNITS, 3),
        )
        initialise(self.layers)

    @torch.no_grad()
    def wake(self, images: Tensor) -> None:
        """Scales and shifts each hidden unit so that its outputs for these images have mean 0 and standard deviation 1.

        With the initial weights most units give the same output for every image, and learn little (Salimans and Kingma,
        2016; Kraehenbuehl et al., 2016).
        """
        features = images.contiguous(memory_format=torch.channels_last)
        for layer in self.layers[:-1]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                outputs = layer(features).float()
                over = [axis for axis in range(outputs.dim()) if axis != 1]
                mean, spread = outputs.mean(over), outputs.std(over) + 1e-4
                layer.weight.div_(spread.view(-1, *[1] * (layer.weight.dim() - 1)))
                assert layer.bias is not None
                layer.bias.copy_((layer.bias - mean) / spread)
            features = layer(features)

    def start_outputs(self) -> None:
        """Sets the initial weights of the outputs, which are zero in a transformer; they stay so without bounds."""

    @property
    def trains_sizes(self) -> bool:
        """Whether the sizes of windows are trained now."""
        return True

    def resize(self, opened: float) -> None:
        """Follows the schedule, see ``ColocaliseStepConfig.openness``; nothing to do without bounds."""

    def centre(self, windows: Tensor, scale: Tensor) -> None:
        """Corrects the common place of all windows; nothing to do without bounds."""


class FreeWindow(WindowNetwork):
    """A window of any scale at any place, as in the paper.

    Convention: returns offsets to the parameters (s, x, y) of the initial window in the middle of the image, initially
    zero, as for every spatial transformer of the paper.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, side, side) to (batch, 3)."""
        return self.layers(images).float()


class BoundedWindow(WindowNetwork):
    """A window of bounded size inside the image.

    The places are normalised, by the mean and spread over the batch during training and by running values later, so
    that the centres of the windows have the mean and spread of the centres of random crops. Thus the windows can't all
    go to the same place, nor to the borders, where they would be farthest from random crops. What is left to learn is
    which image's window is where. The mean stays normalised to the end.

    Equation 1 hardly changes if all windows are off by the same amount, and the mean place of a hundred digits is not
    exactly that of random crops. So at the end all windows are moved together (``shift``) until the centre of mass of
    their mean content is in the middle.

    Convention: returns offsets to the parameters (s, x, y) of the initial window in the middle of the image, such that
    s is between ``least`` and ``bound`` and the window lies inside the image.

    Attributes:
        bound: the current largest window, set by the training step.
        closed: whether windows have closed in. If so, their sizes are trained and the spread of their places is no
            longer normalised; before, all have one size.
        mean: running mean of the network's outputs for x and y.
        spread: running standard deviation of these outputs.
        shift: (x, y), added to the place of every window, in half sides of the image.
    """

    bound: Tensor
    closed: Tensor
    mean: Tensor
    spread: Tensor
    shift: Tensor

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__(config)
        self.least, self.start = config.least, config.start
        self.first, self.last = widest(config), config.least + (config.most - config.least) / START_SHARE
        self.offset = math.log(START_SHARE / (1 - START_SHARE))
        self.register_buffer("bound", torch.tensor(widest(config)))
        self.register_buffer("closed", torch.tensor(False))
        for name, value in (("mean", 0.0), ("spread", 1.0), ("shift", 0.0)):
            self.register_buffer(name, torch.full((2,), value))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, side, side) to (batch, 3)."""
        outputs = self.layers(images).float()
        scale = self._scale(outputs[:, :1] if self.closed else torch.zeros_like(outputs[:, :1]))
        place = self._normalised(outputs[:, 1:]) * (self._room(scale) / math.sqrt(3)) + self.shift
        limit = (1 - scale).clamp(min=0)
        return torch.cat((scale - self.start, place.clamp(-limit, limit)), dim=1)

    def _scale(self, size: Tensor) -> Tensor:
        """The scales of windows, shares of the image's side, from the network's outputs, (batch, 1)."""
        return self.least + (self.bound - self.least) * torch.sigmoid(size + self.offset)

    def _room(self, scale: Tensor) -> Tensor:
        """How far the centres of windows of this scale, inside the image, lie from its middle at most."""
        return 1 - scale

    def start_outputs(self) -> None:
        """Random weights for x and y: constant outputs can't be normalised."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.kaiming_normal_(last.weight[1:], nonlinearity="relu")

    @property
    def trains_sizes(self) -> bool:
        """Whether windows have closed in."""
        return bool(self.closed)

    def resize(self, opened: float) -> None:
        """Sets the largest window, and whether sizes are trained; see ``ColocaliseStepConfig.openness``."""
        self.closed.fill_(opened == 0)
        self.bound.fill_(self.last + (self.first - self.last) * opened)

    @torch.no_grad()
    def centre(self, windows: Tensor, scale: Tensor) -> None:
        """Moves all windows a little towards the centre of mass of their mean content, (batch, 1, side, side).

        Only when they have closed in.
        """
        if not self.closed:
            return
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


class UnboundedWindow(BoundedWindow):
    """A window whose scale is learnt without bounds, once windows have closed in; until then as ``BoundedWindow``.

    From there on the scale is ``most`` times e to the network's output, divided by the running spread of the places.
    That division is what makes it learnable: the hidden units have values in the thousands, the places are normalised,
    and without it the first steps take every scale to an extreme. Around a digit, equation 1 is smallest for windows of
    about the digit's size if the random crop has the size of the window.

    Convention: as for ``BoundedWindow``; a window larger than the image lies in its middle.
    """

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__(config)
        self.most = config.most

    def _scale(self, size: Tensor) -> Tensor:
        if not self.closed:
            return super()._scale(size)
        return self.most * torch.exp(size / self.spread.mean())

    def _room(self, scale: Tensor) -> Tensor:
        return torch.full_like(scale, 1 - self.most) if self.closed else super()._room(scale)


def middle_of(picture: Tensor) -> Tensor:
    """The centre of mass (x, y) of a picture, (side, side), from -1 to 1; 0 for a black picture."""
    side = len(picture)
    places = (2 * torch.arange(side, device=picture.device, dtype=picture.dtype) + 1) / side - 1
    mass = picture.sum().clamp(min=1e-6)
    return torch.stack(((picture.sum(0) * places).sum(), (picture.sum(1) * places).sum())) / mass


WINDOWS = {"bounded": BoundedWindow, "unbounded": UnboundedWindow, "free": FreeWindow}
"""By ``ColocaliserConfig.window``."""


class Colocaliser(Finder):
    """Finds one object in each image: the window of an attention transformer (S003, section 1.2 and table 2)."""

    def __init__(self, config: ColocaliserConfig) -> None:
        super().__init__()
        self.config = config
        crop = config.encoder.side
        window = WINDOWS[config.window](config)
        initial = torch.tensor([[config.start, 0.0, 0.0]])
        self.transformer = SpatialTransformer(window, TransformConfig("attention"), (crop, crop), start=initial)
        window.start_outputs()
        self.encoder = StnClassifier(config.encoder).requires_grad_(False)

    @property
    def window(self) -> WindowNetwork:
        """The localisation network."""
        assert isinstance(self.transformer.localisation, WindowNetwork)
        return self.transformer.localisation

    def load_encoder(self, network: nn.Module, source: str) -> None:
        """Copies the weights of a trained classifier into the encoder.

        Raises:
            MistError: if it is not the network of ``config.encoder``; ``source`` says where it comes from.
        """
        if not isinstance(network, StnClassifier) or network.config != self.config.encoder:
            raise MistError(f"{source} is not the encoder of model.encoder.*: give a run with that network")
        self.encoder.load_state_dict(network.state_dict())

    def refusal(self, height: int, width: int) -> str | None:
        """See ``Finder.refusal``: the network takes images of one size."""
        side = self.config.side
        if height == width == side:
            return None
        return f"has {width} x {height} pixels, and this model only takes {side} x {side}: crop or resize it"

    def most(self, height: int, width: int) -> int:
        """One, in images of the network's size."""
        return int(height == width == self.config.side)

    def forward(self, images: Tensor) -> Warp:
        """The window of each image: its place and its content."""
        return self.transformer.warp(images)

    def describe(self, crops: Tensor) -> Tensor:
        """Descriptors of crops of the encoder's size, (n, length).

        The activations of both hidden layers and the logits are concatenated, each scaled to a fixed length
        (``LENGTHS``); unscaled, the first layer would dominate.
        """
        done = self.encoder(crops)
        parts = (nn.functional.normalize(part.float().flatten(1), dim=1) for part in (*done.hidden, done.logits))
        return torch.cat([part * length for part, length in zip(parts, LENGTHS, strict=True)], dim=1)

    def random_crops(self, images: Tensor, scales: Tensor) -> Tensor:
        """A random crop of each image, anywhere inside it; ``scales``, (n,), are shares of the image's side.

        Of a window beyond the image, or a mirrored one, the crop has the size but at most the image's.
        """
        scales = scales.abs().clamp(max=1)
        places = (torch.rand(len(images), 2, device=images.device) * 2 - 1) * (1 - scales[:, None])
        side = self.config.encoder.side
        window = torch.cat((scales[:, None], places), dim=1)
        return transforms.sample(images, transforms.attention_grid(window, side, side))

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the window of each image, with score 1."""
        window = self(images).parameters[:, 0] * (self.config.side / 2)
        middle = window[:, 1:] + self.config.side / 2
        boxes = torch.cat((middle, 2 * window[:, :1].abs().expand(-1, 2)), dim=1)
        counted = zip(boxes, self.counts_for(images, k), strict=True)
        return Explanation([Detections(box[None][:k], box.new_ones(1)[:k]) for box, k in counted], None)
