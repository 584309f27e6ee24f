"""Configurations of the spatial transformer paper: classifiers, co-localisation, and their training.

References are to the paper's supplement (S003).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from mistnn.config import Config, Rule, above, at_least, below
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.backbones import TIMM, Weights
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate
from mistnn.nn.spatial_transformer import TransformConfig

Family = Literal["fcn", "cnn"]
FIRST_KERNEL, SECOND_KERNEL, POOL = 9, 7, 2
"""Filter and pooling sizes of the CNN (S003, section 1.3)."""

Layers = Literal["eleven", "printed"]
Where = Literal["none", "single", "multi"]
CONVOLUTIONS: Mapping[str, tuple[tuple[int, bool], ...]] = MappingProxyType(
    {
        "eleven": (
            (48, True), (64, False), (128, True), (160, False), (192, True), (192, False), (192, True), (192, False),
        ),
        "printed": ((48, True), (64, False), (128, True), (192, True), (192, False)),
    }
)  # fmt: skip
"""Filters of each convolution of a reader of numbers, and whether a 2 x 2 max-pooling follows it."""

Statistics = Literal["batch", "pretrained"]
STRIDE = 32
"""Pixels between two cells of a describer's features; 224 px give the paper's 7 x 7 cells (S003, section 1.5)."""

LOCALISATION_KERNEL = 9
"""Filter size of the co-localiser's localisation network (S003, section 1.2)."""
OPENNESS = (
    *((0.06, 1.0), (0.40, 0.0)),
    *((0.44, 0.0), (0.44, 0.5), (0.48, 0.5), (0.59, 0.0)),
    *((0.66, 0.0), (0.66, 0.5), (0.70, 0.5), (0.81, 0.0)),
)
"""How far windows are open during training, see ``ColocaliseStepConfig`` (ours)."""

_NAMED = Rule(lambda name: name not in ("", TIMM), f"a name, such as googlenet or {TIMM}NAME")
AtLeastOne = Annotated[int, at_least(1)]
AtLeastTwo = Annotated[int, at_least(2)]
AtLeastZero = Annotated[float, at_least(0)]
ShareBelowOne = Annotated[float, at_least(0), below(1)]


@dataclass(frozen=True)
class StnConfig(ModelConfig):
    """A classifier of digits with spatial transformers in front of it (S003, section 1.3).

    Attributes:
        network: "fcn", two hidden dense layers; or "cnn", a 9 x 9 and a 7 x 7 convolution, each with 2 x 2 max-pooling.
        width: units of each hidden layer, or filters of each convolution.
        transformers: number of spatial transformers in parallel, each with its own localisation network; 0 for none.
        transform: the kind of transform.
        halve: the transformers' output is halved by averaging before classification (S003: on RTS and TC).
        channels: channels of the images.
        side: side of the images and of the transformers' output in pixels.
        classes: number of classes.
    """

    kind: ClassVar[str] = "stn"
    network: Family = "cnn"
    width: AtLeastOne = 87
    transformers: Annotated[int, at_least(0)] = 0
    transform: TransformConfig = field(default_factory=TransformConfig)
    halve: bool = False
    channels: AtLeastOne = 1
    side: AtLeastOne = 42
    classes: AtLeastTwo = 10

    def check(self) -> None:
        """See ``Config.check``."""
        if self.halve and not self.transformers:
            raise MistError(
                "model.halve halves the output of spatial transformers: set model.transformers, or no halve"
            )
        if self.network == "cnn" and self.map_side < 1:
            raise MistError(
                f"model.side={self.side} leaves the CNN nothing to classify: after {FIRST_KERNEL} x {FIRST_KERNEL} and "
                f"{SECOND_KERNEL} x {SECOND_KERNEL} convolutions it needs 24 px, 48 with model.halve"
            )

    @property
    def seen_side(self) -> int:
        """Side of the classifier's input."""
        return self.side // 2 if self.halve else self.side

    @property
    def map_side(self) -> int:
        """Side of the CNN's last map."""
        return ((self.seen_side - FIRST_KERNEL + 1) // POOL - SECOND_KERNEL + 1) // POOL

    def build(self) -> nn.Module:
        """See ``ModelConfig.build``."""
        from mistnn.models.stn.network import StnClassifier

        return StnClassifier(self)


@dataclass(frozen=True)
class NumberReaderConfig(ModelConfig):
    """A network that reads a whole number (S003, section 1.4).

    Attributes:
        where: spatial transformers: "none"; "single", one before the first convolution; or "multi", one before each of
            the first four convolutions.
        layers: "eleven" hidden layers, or the "printed" layers of the supplement; see ``mistnn.models.stn.numbers``.
        units: units of each of the three dense layers.
        transform: the kind of transform; affine in the paper.
        dropout: dropout of every layer except the first convolution and the localisation networks.
        side: side of the images in pixels; 64 or 128 in the paper.
    """

    kind: ClassVar[str] = "stn-numbers"
    where: Where = "none"
    layers: Layers = "eleven"
    units: AtLeastOne = 3072
    transform: TransformConfig = field(default_factory=TransformConfig)
    dropout: ShareBelowOne = 0.5
    side: int = 64

    def check(self) -> None:
        """See ``Config.check``."""
        # With a padded 5 x 5 kernel on a map of one pixel, PyTorch's bfloat16 gradient on CPUs is uninitialised memory.
        least = 2 * 2 ** sum(pooled for _, pooled in CONVOLUTIONS[self.layers])
        if self.side < least:
            raise MistError(f"model.side={self.side} must be {least} or more: the poolings would leave nothing")

    def build(self) -> nn.Module:
        """See ``ModelConfig.build``."""
        from mistnn.models.stn.numbers import NumberReader

        return NumberReader(self)


@dataclass(frozen=True)
class DescriberConfig(Config):
    """A network that computes features of an image.

    Attributes:
        network: the name of a classifier of torchvision, or "timm/NAME", which needs the extra ``timm``. "googlenet" is
            torchvision's Inception with batch normalisation and 1024 features, as in the paper (S003, section 1.5).
        weights: a file, ``.safetensors`` or a ``.pth`` of another project, read once when training starts; "hub"
            downloads the ImageNet weights; random weights if not given. A run folder stores its own weights.
        statistics: statistics for normalisation in training: those of the "batch", as usual, or the fixed running
            statistics of the "pretrained" weights. Evaluation always uses running statistics.
    """

    section: ClassVar[str] = "model.backbone"
    network: Annotated[str, _NAMED] = "googlenet"
    weights: Weights = None
    statistics: Statistics = "batch"


@dataclass(frozen=True)
class BirdsConfig(ModelConfig):
    """A classifier of birds with several spatial transformers, each with its own stream (S003, section 1.5).

    Attributes:
        number: number of spatial transformers and streams; 2 or 4 in the paper.
        transform: "translation" at half the scale, or "attention" or "affine", which the paper tried with similar
            results. All start at ``transform.scale``.
        backbone: the network of each stream and of the localisation network. They share no weights.
        side: side of the images in pixels; 224 or 448 in the paper.
        crop: side in pixels of each transformer's output, and of the localisation network's input.
        classes: number of classes.
        dropout: dropout before the last layer. Not stated in S003; a summary of the paper has 0.7.
    """

    kind: ClassVar[str] = "stn-birds"
    number: AtLeastOne = 2
    transform: TransformConfig = field(default_factory=lambda: TransformConfig("translation"))
    backbone: DescriberConfig = field(default_factory=DescriberConfig)
    side: int = 224
    crop: int = 224
    classes: AtLeastTwo = 200
    dropout: ShareBelowOne = 0.7

    def check(self) -> None:
        """See ``Config.check``."""
        if self.crop < STRIDE or self.crop % STRIDE:
            raise MistError(f"model.crop={self.crop} must be a multiple of the {STRIDE} px of a cell of the features")
        if self.side < self.crop or self.side % self.crop:
            raise MistError(f"model.side={self.side} must be one or more times model.crop={self.crop}")
        if self.transform.kind not in ("translation", "attention", "affine"):
            raise MistError(
                f"model.transform.kind={self.transform.kind!r} can't start as tiles of the image: use translation, "
                "attention or affine"
            )

    def build(self) -> nn.Module:
        """See ``ModelConfig.build``."""
        from mistnn.models.stn.birds import BirdClassifier

        return BirdClassifier(self)

    def portable(self) -> ModelConfig:
        """See ``ModelConfig.portable``: of a path to weights, only the file name is kept."""
        name = self.backbone.weights and PurePath(self.backbone.weights).name
        return dataclasses.replace(self, backbone=dataclasses.replace(self.backbone, weights=name))


@dataclass(frozen=True)
class ColocaliserConfig(ModelConfig):
    """A localiser and the encoder that supervises it (S003, section 1.2).

    The paper sets no bounds on the window, and states neither its initial size nor the size of a random crop; see
    ``ColocaliseStepConfig``. With ``window`` "bounded", the last window has 27.7 to 33.1 px of 84 where the digit's
    frame has 28, so an IoU above 0.5 asks for the place alone: its scale is nearly given.

    Attributes:
        side: side of the images in pixels.
        encoder: a CNN trained to classify digits. The transformer's output has the size of its input.
        least: the smallest window, as a share of the image's side.
        most: the largest window at the end of training.
        start: the initial window.
        window: "bounded": between ``least`` and a bound that closes in to about ``most``, inside the image, its places
            normalised over a batch (ours). "unbounded": the same until windows have closed in to ``most``; from there
            on each has a scale of its own without bounds, and ``least`` is unused (ours). "free": scale and place are
            the three outputs of the localisation network, without bounds or a schedule, as in the paper; ``least`` and
            ``most`` are unused.
    """

    kind: ClassVar[str] = "colocaliser"
    class_names: ClassVar[tuple[str, ...]] = ()
    channels: ClassVar[int] = 1
    k: ClassVar[int] = 1
    side: Annotated[int, at_least(LOCALISATION_KERNEL)] = 84
    encoder: StnConfig = field(default_factory=lambda: StnConfig("cnn", 32, side=60))
    least: float = 0.33
    most: float = 0.38
    start: float = 0.83
    window: Literal["bounded", "unbounded", "free"] = "bounded"

    def check(self) -> None:
        """See ``Config.check``."""
        if not 0 < self.least < self.most <= self.start < 1:
            raise MistError(
                f"model.least={self.least}, model.most={self.most} and model.start={self.start} must be shares of the "
                "image's side in increasing order, above 0 and below 1"
            )
        if self.encoder.network != "cnn" or self.encoder.transformers or self.encoder.channels != 1:
            raise MistError("model.encoder must be a plain CNN on grey images: network cnn, no transformers")

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.stn.colocalise import Colocaliser

        return Colocaliser(self)


@dataclass(frozen=True)
class StnStepConfig(TrainingStepConfig):
    """Training of a classifier.

    Attributes:
        rate: initial learning rate (S003, section 1.3).
        momentum: momentum of the descent. Not stated; without it nothing is learnt before the first drop in a run of a
            fifteenth of the paper's length.
        weight_decay: weight decay of the descent (S003: none).
        localisation_share: learning rate of the localisation networks as a share of ``rate``. S003 states a value other
            than 1 only for house numbers, 0.1.
        decay: the rate falls to this share in ``drops`` equal steps; 0.01 for the paper's two drops by a factor of ten;
            1 for a constant rate.
        decay_steps: length of the schedule in iterations; ``None`` for the whole run.
        drops: number of drops at equal distances: 2, after each third (S003: every 50k of 150k iterations); 4 on house
            numbers (every 80k of 400k).
        precision: precision of the networks; "auto" uses bfloat16 where that is faster. Grids and sampling are in
            float32.
    """

    kind: ClassVar[str] = "classifier"
    trains: ClassVar[tuple[str, ...]] = ("stn", "stn-numbers", "stn-birds")
    rate: LearningRate = 0.01
    momentum: ShareBelowOne = 0.9
    weight_decay: AtLeastZero = 0.0
    localisation_share: AtLeastZero = 1.0
    decay: Decay = 0.01
    decay_steps: DecaySteps = None
    drops: AtLeastOne = 2
    precision: Precision = "float32"

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.stn.step import StnStep

        return StnStep(model, self)


@dataclass(frozen=True)
class ColocaliseStepConfig(TrainingStepConfig):
    """Training of a localiser. The paper states only the margin, 1, and no length of the descriptors.

    Equation 1 is smallest on the digits, but small windows that start elsewhere end on the background or in one corner,
    where they are also close to each other. So all windows start large, contain the digit wherever it lies, and close
    in slowly, with the spread of random crops (``BoundedWindow``). A few in a hundred then lie beside their digit,
    where the loss of small windows is flat but that of larger ones is not: so all windows open twice more, half as far.
    A random crop has the size of the window that it is compared with, and its gradient reaches that size.

    Attributes:
        rate: initial learning rate; momentum 0.9, gradients clipped to norm 1.
        margin: alpha of equation 1; the paper's 1 is for activations of unknown length.
        openness: pairs of a share of ``decay_steps`` and how far windows are open then, interpolated linearly: 1 for
            windows of the initial size, 0 for ``ColocaliserConfig.most`` and less. While it is 0, sizes are trained.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of the schedule in iterations; ``None`` for the whole run, which it should cover.
        precision: precision of the networks; "auto" uses bfloat16 where that is faster.
    """

    kind: ClassVar[str] = "colocalise"
    trains: ClassVar[tuple[str, ...]] = ("colocaliser",)
    rate: LearningRate = 0.1
    margin: Annotated[float, above(0)] = 1.5
    openness: tuple[tuple[float, float], ...] = OPENNESS
    decay: Decay = 0.1
    decay_steps: Annotated[int, at_least(1)] | None = None
    precision: Precision = "auto"

    def check(self) -> None:
        """See ``Config.check``."""
        shares = [share for share, _ in self.openness]
        if not shares or shares != sorted(shares) or not all(0 <= part <= 1 for pair in self.openness for part in pair):
            raise MistError(
                f"step.openness={self.openness} must be pairs of values from 0 to 1, a share of the training and how "
                "far windows are open then, in the order of the shares"
            )

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.stn.step import ColocaliseStep

        return ColocaliseStep(model, self)
