"""Configurations of the systems that MIST is compared with, and of their training; README.md here lists the sources."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.backbones import STRIDE, BackboneConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.feature_patches import ReaderConfig
from mistnn.nn.finder import Finder, check_class_names
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate

AtLeastOne = Annotated[int, at_least(1)]
AtLeastZero = Annotated[float, at_least(0)]
Channels = Annotated[int, one_of(1, 3)]
Positive = Annotated[float, above(0)]
Widths = tuple[AtLeastOne, ...]

DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class GridConfig(ModelConfig):
    """The grid and its auto-encoder.

    Attributes:
        cells: rows and columns of the grid (paper: 3).
        channels: channels of the images, 1 (grey) or 3 (colour).
        patch_size: side of a resampled cell in patch pixels.
        encoder: the patch encoder.
        decoder: width of the decoder.
    """

    kind: ClassVar[str] = "grid"
    class_names: ClassVar[tuple[str, ...]] = ()
    cells: AtLeastOne = 3
    channels: Channels = 1
    patch_size: AtLeastOne = 32
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: Annotated[int, at_least(0)] = 8

    def check(self) -> None:
        """See ``Config.check``."""
        _check_patches(self.class_names, self.patch_size, self.decoder, self.encoder)

    @property
    def k(self) -> int:
        """The number of cells."""
        return self.cells**2

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.rivals.grid import Grid

        return Grid(self)


@dataclass(frozen=True)
class ChannelwiseConfig(ModelConfig):
    """The channel-wise network.

    Attributes:
        class_names: one name for each class; empty for a model that only reconstructs.
        k: K, the number of channels. It is fixed by the weights.
        channels: channels of the images, 1 (grey) or 3 (colour).
        box_size: side in pixels of the box around a keypoint and of the region that is cut out (the paper doesn't
            state the scale of a channel; fixed here).
        patch_size: side of the resampled patch in patch pixels.
        heatmap: the network of the paper with K outputs. Its start must be random: K equal maps would stay equal.
        encoder: the patch encoder.
        decoder: width of the decoder; 0 for none.
        strength: factor on the scores before the softmax over the pixels (not stated). With 1, all channels start at
            the centre of the image, on top of each other, and their patches only learn to reconstruct black; with 30
            they start apart.
    """

    kind: ClassVar[str] = "channelwise"
    # The same shares of the strength of training as for MIST.
    reading_strengths: ClassVar[tuple[float, ...]] = (30.0, 9.0, 3.0, 1.5, 0.6, 0.3)
    class_names: tuple[str, ...] = DIGITS
    k: AtLeastOne = 9
    channels: Channels = 1
    box_size: Positive = 20.0
    patch_size: AtLeastOne = 32
    heatmap: HeatmapConfig = field(default_factory=lambda: HeatmapConfig(start="random"))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: Annotated[int, at_least(0)] = 0
    strength: Positive = 30.0

    def check(self) -> None:
        """See ``Config.check``."""
        if self.heatmap.network != "paper" or self.heatmap.start != "random":
            raise MistError("model.heatmap of a channel-wise model must have network paper and start random")
        _check_patches(self.class_names, self.patch_size, self.decoder, self.encoder)

    def with_reading(self, strength: float, window: int | None) -> ChannelwiseConfig:
        """See ``ModelConfig.with_reading``; there is no suppression."""
        return dataclasses.replace(self, strength=strength)

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.rivals.channelwise import Channelwise

        return Channelwise(self)


@dataclass(frozen=True)
class Xie20Config(ModelConfig):
    """The network of Xie20.

    Attributes:
        class_names: one name for each class.
        k: K of the mask in training; prediction may use another.
        channels: channels of the images, 1 (grey) or 3 (colour).
        stride: pixels between two places (not stated in the paper; 8 and 4 are reported). A power of two for "rpn".
        epsilon: weight of the entropy in the transport problem (not stated; 0.1 in the official code).
        box_size: side in pixels of the box at each place and of the region that is cut out.
        patch_size: side of the resampled patch in patch pixels.
        heatmap: the network of the "pooled" head; unused by "rpn".
        encoder: the patch encoder.
        head: what scores the places. "rpn": strided convolutions, then a small head at each place, like a region
            proposal network (MIST, section 5.2: this worked better than a heat-map network that downsamples).
            "pooled": the features of MIST's own heat-map network, averaged over stride x stride pixels, which the paper
            rejects; for results of version 0.1 and before.
        head_channels: channels of the first strided convolution of "rpn"; each further one has twice as many (not
            stated).
    """

    kind: ClassVar[str] = "xie20"
    class_names: tuple[str, ...] = DIGITS
    k: AtLeastOne = 9
    channels: Channels = 1
    stride: AtLeastOne = 8
    epsilon: Positive = 0.1
    box_size: Positive = 20.0
    patch_size: AtLeastOne = 32
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: Literal["rpn", "pooled"] = "rpn"
    head_channels: AtLeastOne = 32

    def check(self) -> None:
        """See ``Config.check``."""
        if self.heatmap.network != "paper":
            raise MistError(f"model.heatmap.network={self.heatmap.network!r} must be paper for an Xie20 model")
        if self.head == "rpn" and (self.stride < 2 or self.stride & (self.stride - 1)):
            raise MistError(
                f"model.stride={self.stride} must be a power of two, 2 or more, for model.head=rpn, each of whose "
                "convolutions halves the image: give 2, 4, 8 or 16, or --model.head pooled"
            )
        check_class_names(self.class_names, least=1)
        _check_patches(self.class_names, self.patch_size, 0, self.encoder)

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.rivals.xie20 import Xie20

        return Xie20(self)


@dataclass(frozen=True)
class NaturalXie20Config(ModelConfig):
    """The network of Xie20 for photographs.

    Attributes:
        class_names: one name for each class. The background is one more class, without a name.
        k: K of the mask, an upper bound on the number of objects; prediction may use another.
        shorter_edge: photographs are resized to this many pixels along the shorter edge (paper: 224).
        cells: cells between two places, along each side (not stated). 1 classifies every cell, 2 a quarter of them.
        epsilon: weight of the entropy in the transport problem (not stated; 0.1 in the official code).
        backbone: the network that computes the features.
        reader: how patches are cut out and classified.
    """

    kind: ClassVar[str] = "natural-xie20"
    channels: ClassVar[int] = 3
    class_names: tuple[str, ...] = ("object",)
    k: AtLeastOne = 2
    shorter_edge: Annotated[int, at_least(STRIDE, "the size of a cell of the backbone")] = 224
    cells: AtLeastOne = 1
    epsilon: Positive = 0.1
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)

    def check(self) -> None:
        """See ``Config.check``."""
        check_class_names(self.class_names, least=1)
        most = self.shorter_edge // STRIDE
        if self.cells > most:
            raise MistError(f"model.cells={self.cells} must be from 1 to {most}, the cells along the shorter edge")
        places = (most // self.cells) ** 2
        if self.k >= places:
            raise MistError(
                f"model.k={self.k} must be below {places}, the number of places with model.cells={self.cells}: lower "
                "one of them"
            )

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.rivals.xie20_natural import NaturalXie20

        return NaturalXie20(self)

    def portable(self) -> ModelConfig:
        """See ``ModelConfig.portable``."""
        return dataclasses.replace(self, backbone=self.backbone.portable())


@dataclass(frozen=True)
class Zha18Config(ModelConfig):
    """The network of Zha18. Defaults are the values of the official 80 x 80 setting.

    Attributes:
        k: K, the number of landmarks; one more channel is the background. It is fixed by the weights.
        channels: channels of the images, 1 (grey) or 3 (colour).
        widths: channels of the hourglass that finds landmarks, one number per resolution, finest first.
        feature_widths: the same for the hourglass whose features describe the landmarks.
        drawing_widths: the same for the hourglass that reconstructs the image.
        descriptor: length of the descriptor of a landmark, and of the background.
        features: channels of the map from which descriptors are pooled.
        heat_levels: number of heat maps drawn for each landmark, each wider than the last by the square root of 2.
        heat_width: standard deviation of the narrowest, as a share of the image's side.
        heat_scale: height of a drawn heat map before it is shared with the background. "official": a Gaussian over 2 pi
            sigma^4 and twice over the number of pixels, beside a background of one over the number of pixels, so that
            at 80 x 80 px and sigma 1/8 a landmark has .09 of its own centre. "density": a Gaussian of mass 1, over 2 pi
            sigma^2, beside a background of density 1; a landmark has .91 of its centre.
        box_size: side in pixels of the box reported around a landmark; the method has no boxes.
    """

    kind: ClassVar[str] = "zha18"
    class_names: ClassVar[tuple[str, ...]] = ()
    k: AtLeastOne = 9
    channels: Channels = 1
    widths: Widths = (32, 64, 64, 64)
    feature_widths: Widths = (64, 128, 256, 512)
    drawing_widths: Widths = (64, 128, 256, 512)
    descriptor: AtLeastOne = 8
    features: AtLeastOne = 32
    heat_levels: AtLeastOne = 5
    heat_width: Positive = 0.125
    box_size: Positive = 20.0
    heat_scale: Literal["official", "density"] = "official"

    def check(self) -> None:
        """See ``Config.check``."""
        for name in ("widths", "feature_widths", "drawing_widths"):
            if len(widths := getattr(self, name)) < 2:
                raise MistError(f"model.{name}={widths} must be two or more widths, e.g. 32 64 64 64")

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.rivals.zha18 import Zha18

        return Zha18(self)


@dataclass(frozen=True)
class RivalStepConfig(TrainingStepConfig):
    """Training of all systems but Zha18. The MIST paper states none of these values.

    Attributes:
        rate: learning rate of Adam for the task network.
        places_rate: learning rate of Adam for all other weights, which choose the places.
        decay: both rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: length of the fall in iterations; ``None`` for the whole run.
    """

    kind: ClassVar[str] = "rival"
    trains: ClassVar[tuple[str, ...]] = ("grid", "channelwise", "xie20", "natural-xie20")
    rate: LearningRate = 1e-3
    places_rate: LearningRate = 1e-3
    decay: Decay = 1.0
    decay_steps: DecaySteps = None

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.rivals.step import RivalStep

        return RivalStep(model, self)


@dataclass(frozen=True)
class Zha18StepConfig(TrainingStepConfig):
    """Training of Zha18. Defaults are the values of the official 80 x 80 setting.

    Attributes:
        rate: learning rate of Adam; divided by 10 after one third of ``decay_steps``, by 100 after two thirds.
        weight_decay: weight decay of Adam.
        decay_steps: length of the schedule in iterations (officially 300,000); ``None`` for the whole run.
        reconstruction: weight of half the squared error, summed over pixels; multiplied by 10 in the second third of
            the schedule and by 100 in the last.
        concentration: weight of the concentration loss; like the separation, the mean over the image and its warp.
        separation: weight of the separation loss.
        bandwidth: width of the separation's kernel, as a share of the image's side.
        equivariance: weight of the squared distances, in half sides of the image.
        grid: control points of the spline along each side, at the centres of as many equal parts.
        bend: standard deviation of their displacements, as a share of the image's side.
        shift: largest displacement along x and y, as a share of the image's side.
        turn: standard deviation of the rotation, in degrees.
        zoom: the logarithm of the scale factor has standard deviation log(zoom).
    """

    kind: ClassVar[str] = "zha18"
    trains: ClassVar[tuple[str, ...]] = ("zha18",)
    rate: LearningRate = 1e-3
    weight_decay: AtLeastZero = 1e-6
    decay_steps: DecaySteps = None
    reconstruction: AtLeastZero = 0.1
    concentration: AtLeastZero = 100.0
    separation: AtLeastZero = 20.0
    bandwidth: Positive = 0.08
    equivariance: AtLeastZero = 1e4
    grid: Annotated[int, at_least(2)] = 7
    bend: AtLeastZero = 0.05
    shift: AtLeastZero = 0.15
    turn: AtLeastZero = 10.0
    zoom: Annotated[float, at_least(1)] = 1.25

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.rivals.step import Zha18Step

        return Zha18Step(model, self)


def _check_patches(class_names: tuple[str, ...], patch_size: int, decoder: int, encoder: EncoderConfig) -> None:
    check_class_names(class_names)
    if patch_size % encoder.patch_unit:
        raise MistError(f"model.patch_size={patch_size} must be a multiple of {encoder.patch_unit} for this encoder")
    if not class_names and not decoder:
        raise MistError("there is nothing to learn: name classes, or set model.decoder to the width of a decoder")
