"""Configurations of MIST: the networks for digits and for photographs, and the steps that train them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, odd, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.backbones import STRIDE, BackboneConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.feature_patches import ReaderConfig
from mistnn.nn.finder import Finder, TiledFinder, check_class_names
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.nn.mixed_precision import Precision
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate

WIDEST_WINDOW = 255
"""The largest side of a window in pixels (ours)."""


@dataclass(frozen=True)
class MistConfig(ModelConfig):
    """Everything that shapes a MIST network.

    Attributes:
        class_names: one name per class; empty for a model that only reconstructs.
        background: adds an unnamed class for patches without an object. K is then an upper bound (MIST, section 5.2,
            "background"), and no detection has this class.
        threshold: detections with lower scores are dropped where the user gives no K; 0 keeps all K.
        k: K, the number of patches to extract; can be changed at prediction.
        channels: of the images, 1 or 3.
        scales: the values of the S discrete scales, in rising order. Scale s sees the image resized by 1 / s. (Neither
            S nor the values are stated; the released code has the single scale 1.)
        box_size: side in pixels, at scale 1, of the reported box around a keypoint (20 in the released MNIST setting).
        patch_extent: side in pixels, at scale 1, of the square that is cut out for the task network. The paper has one
            size for both; some context helps the small networks.
        patch_size: side of the resampled patch in patch pixels (paper: 32).
        patch_window: standard deviation of a Gaussian window on the patch, as a fraction of its side; 0 for none
            (paper). A window darkens what lies off the centre.
        decoder: width of the decoder, required for reconstruction and for the joint objective; 0 for none. The "paper"
            encoder gets the paper's decoder, where this is the channels of the first level; all others get the small
            one.
        softmax_window: side of the local spatial softmax in pixels (paper: 15).
        softmax_strength: strength of the local spatial softmax (not stated in the paper; value of the released code).
        nms_window: side of the window of non-maximum suppression in pixels (not stated; value of the released code).
        preparation: how images are prepared for the network. All sizes above refer to prepared images.
    """

    kind: ClassVar[str] = "mist"
    reading_strengths: ClassVar[tuple[float, ...]] = (10.0, 3.0, 1.0, 0.5, 0.2, 0.1)
    reading_windows: ClassVar[tuple[int, ...]] = (5, 11)
    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    background: bool = False
    threshold: Annotated[float, at_least(0)] = 0.0
    k: Annotated[int, at_least(1)] = 9
    channels: Annotated[int, one_of(1, 3)] = 1
    scales: Annotated[tuple[float, ...], above(0)] = (1.0,)
    box_size: Annotated[float, above(0)] = 20.0
    patch_extent: Annotated[float, above(0)] = 20.0
    patch_size: Annotated[int, at_least(1)] = 32
    patch_window: Annotated[float, at_least(0)] = 0.0
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: Annotated[int, at_least(0, "a width, or 0 for no decoder")] = 0
    softmax_window: Annotated[int, odd(WIDEST_WINDOW)] = 15
    softmax_strength: Annotated[float, above(0)] = 10.0
    nms_window: Annotated[int, odd(WIDEST_WINDOW)] = 5
    preparation: PreparationConfig = field(default_factory=PreparationConfig)

    def check(self) -> None:
        """See ``Config.check``."""
        check_class_names(self.class_names)
        if self.background and not self.class_names:
            raise MistError("model.background needs classes: name them in model.class_names, or turn it off")
        if not self.scales or not all(low < high for low, high in pairwise(self.scales)):
            raise MistError(f"model.scales={self.scales} must be one or more numbers in rising order, e.g. 1 1.4 2")
        unit = self.encoder.patch_unit
        if self.patch_size % unit:
            raise MistError(
                f"model.patch_size={self.patch_size} must be a multiple of {unit}, since the {self.encoder.network} "
                f"encoder halves patches: give e.g. {max(1, round(self.patch_size / unit)) * unit}"
            )

    def with_reading(self, strength: float, window: int | None) -> MistConfig:
        """See ``ModelConfig.with_reading``."""
        return dataclasses.replace(
            self, softmax_strength=strength, nms_window=self.nms_window if window is None else window
        )

    def build(self) -> TiledFinder:
        """See ``ModelConfig.build``."""
        from mistnn.models.mist.network import Mist

        return Mist(self)


@dataclass(frozen=True)
class NaturalMistConfig(ModelConfig):
    """Everything that shapes a MIST network for photographs.

    Attributes:
        class_names: one name per class, without the background class.
        k: K, an upper bound on the objects of an image (MIST, section 5.2); can be changed at prediction.
        shorter_edge: length in pixels of the shorter edge to which photographs are resized (paper: 224).
        nms_window: side of the window of non-maximum suppression in cells (not stated; value of the released code).
        head: "paper": a 1x1 convolution from the features to response and offsets. "released": preceded by a 3x3
            convolution to 32 channels and a ReLU.
        reader: how patches are cut and classified.
    """

    kind: ClassVar[str] = "natural-mist"
    channels: ClassVar[int] = 3
    class_names: tuple[str, ...] = ("object",)
    k: Annotated[int, at_least(1)] = 2
    shorter_edge: Annotated[int, at_least(STRIDE, "one cell of the backbone")] = 224
    nms_window: Annotated[int, odd(WIDEST_WINDOW)] = 5
    head: Literal["paper", "released"] = "paper"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)

    def check(self) -> None:
        """See ``Config.check``."""
        check_class_names(self.class_names, least=1)

    def portable(self) -> NaturalMistConfig:
        """The configuration with the name of the file of backbone weights instead of its path."""
        return dataclasses.replace(self, backbone=self.backbone.portable())

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.mist.natural import NaturalMist

        return NaturalMist(self)


@dataclass(frozen=True)
class LiftedStepConfig(TrainingStepConfig):
    """Every choice of Algorithm 1. Where the paper leaves a value open, the field says so.

    Attributes:
        order: "task-first" as in the paper (lines 3, 4, 5); "keypoints-first" as in the released code; "single-pass"
            (ours) takes both gradients from one pass at the anchors, so that a step costs a third of the work on
            patches. It has one inner step.
        inner_steps: gradient steps on the keypoints for each batch (not stated; 2 in the released code).
        keypoint_step: step size of the keypoints in pixels^2, on the loss of each image, so that it does not depend on
            the batch size (not stated; the released code's 1e4 on half the mean over 32 images is 156 here;
            100 scattered the keypoints in our runs, see docs/logbook.md).
        keypoint_reach: longest move of a keypoint in one inner step, in pixels; 0 for no limit (paper). A limit keeps a
            patch from losing its object.
        mirrored: the heat-map network sees each training image mirrored at random, and its heat map is mirrored back
            (not in the paper). A network that leans to one side then leans to either side of the objects, so that the
            task network can't get used to an offset, and its gradient leads back.
        scale_step: factor on ``keypoint_step`` for the scale (not stated; ours). A keypoint moves in (x, y, half the
            side of its box), all in pixels; 0 fixes the scale.
        penalty: lambda of equation 6 (not stated; the released code has no such term: 0). Each inner step moves a
            keypoint back by 2 x keypoint_step x lambda of its distance from its anchor, so lambda is at most
            1 / keypoint_step and 1 / (keypoint_step x scale_step).
        confidence: c of the weight exp(-c x task loss) of an image in the heat-map loss; 0 for no weights. (Not in the
            paper. The released code's 5 on half the squared distance is 2.5 here; 0.5 is 5 on its mean over 10
            classes.)
        reconstruction: beta in the objective, equation 9 + beta x equation 8 per unit of the image's energy; needs a
            decoder. 0 in the paper.
        objects_only: with a background class, G has 1 - p(background) at each keypoint in place of 1, so that the heat
            map learns objects only. (Not in the paper, whose G has a 1 at all K keypoints, those without an object
            included.)
        spread: standard deviation in pixels of a Gaussian in place of each 1 of G. 0 for single pixels, as in the
            paper's standard architecture; its backbone network has Gaussians. Where the exact centre of an object is
            ambiguous, as in photographs, an empty heat map is the best fit to single pixels.
        task_rate: learning rate of Adam for tau (not stated; 1e-4 in the released code).
        heatmap_rate: learning rate of Adam for eta (not stated; 1e-4 in the released code).
        heatmap_start: iterations before the heat map is trained at all (not in the paper). If it detects objects from
            the start, the task network learns sooner from keypoints that don't move about, and each of these steps
            saves a third of its operations.
        heatmap_warmup: iterations over which the heat map's rate then rises from 0 (not in the paper). Until the task
            network has learned something, the keypoints don't move, and a heat map trained on its own keypoints can
            settle on empty background.
        decay: the learning rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: iterations of that fall; ``None`` for the whole run.
        precision: of the heat-map network's convolutions; "auto" selects bfloat16 where that is faster.
    """

    kind: ClassVar[str] = "lifted"
    trains: ClassVar[tuple[str, ...]] = ("mist",)
    order: Literal["keypoints-first", "task-first", "single-pass"] = "keypoints-first"
    inner_steps: Annotated[int, at_least(0)] = 2
    keypoint_step: Annotated[float, at_least(0)] = 31.25
    keypoint_reach: Annotated[float, at_least(0)] = 3.0
    mirrored: bool = False
    scale_step: Annotated[float, at_least(0)] = 1.0
    penalty: Annotated[float, at_least(0)] = 0.0
    confidence: Annotated[float, at_least(0)] = 0.5
    reconstruction: Annotated[float, at_least(0)] = 0.0
    objects_only: bool = False
    spread: Annotated[float, at_least(0)] = 0.0
    task_rate: LearningRate = 1e-3
    heatmap_rate: LearningRate = 2e-4
    heatmap_start: Annotated[int, at_least(0)] = 0
    heatmap_warmup: Annotated[int, at_least(0)] = 100
    decay: Decay = 1.0
    decay_steps: DecaySteps = None
    precision: Precision = "float32"

    def check(self) -> None:
        """See ``Config.check``."""
        if self.order == "single-pass" and self.inner_steps != 1:
            raise MistError(
                f"step.inner_steps={self.inner_steps}: with step.order=single-pass it must be 1, since there is one "
                "gradient"
            )
        fastest = self.keypoint_step * max(1.0, self.scale_step)
        if self.penalty * fastest > 1:
            raise MistError(
                f"step.penalty={self.penalty} diverges at step.keypoint_step={self.keypoint_step} and "
                f"step.scale_step={self.scale_step}: give at most {1 / fastest:.3g}"
            )

    def check_model(self, model: ModelConfig) -> None:
        """See ``TrainingStepConfig.check_model``; the network must have what the objective needs."""
        super().check_model(model)
        assert isinstance(model, MistConfig)
        if self.reconstruction and not model.decoder:
            raise MistError(
                f"step.reconstruction={self.reconstruction} needs a decoder: set model.decoder to its width, e.g. 32"
            )
        if not self.reconstruction and not model.class_names:
            raise MistError(
                "model.class_names is empty and step.reconstruction=0: there is nothing to learn; name the classes, or "
                "set step.reconstruction=1 and model.decoder=16"
            )
        if self.objects_only and not model.background:
            raise MistError("step.objects_only needs a background class: give --model.background, or turn it off")

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.mist.step import LiftedStep

        return LiftedStep(model, self)


@dataclass(frozen=True)
class SupervisedStepConfig(TrainingStepConfig):
    """Choices of the supervised baseline, as in ``LiftedStepConfig``; the paper states none of them."""

    kind: ClassVar[str] = "supervised"
    trains: ClassVar[tuple[str, ...]] = ("mist",)
    spread: Annotated[float, at_least(0)] = 0.0
    task_rate: LearningRate = 1e-3
    heatmap_rate: LearningRate = 2e-4
    decay: Decay = 1.0
    decay_steps: DecaySteps = None
    precision: Precision = "float32"

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.mist.supervised import SupervisedStep

        return SupervisedStep(model, self)


@dataclass(frozen=True)
class NaturalStepConfig(TrainingStepConfig):
    """Every choice of Algorithm 1 on photographs; fields without a line are those of ``LiftedStepConfig``.

    Attributes:
        cell_step: step size of the keypoints in cells^2 on the loss of each image (not stated; the released code's 1e3
            on half the mean over 16 images is 31.25 here).
        cell_reach: longest move of a keypoint in one inner step, in cells; 0 for no limit (paper).
        confidence: as in ``LiftedStepConfig``; the released code's 5 on half the squared distance is 2.5 here.
        gaussian: whether an eighth of the patch size is the variance of the Gaussian in G ("covariance", paper) or its
            standard deviation ("deviation", released code).
        offset_weight: weight of the Huber loss of the offsets, averaged over x and y (not stated; value and average of
            the released code).
        weighted_offsets: whether ``confidence`` weights an image's offsets, too (ours). In the released code only its
            response is weighted.
        backbone_rate: learning rate of Adam for a trained backbone (ours; the released code's backbone is frozen).
    """

    kind: ClassVar[str] = "natural-lifted"
    trains: ClassVar[tuple[str, ...]] = ("natural-mist",)
    order: Literal["keypoints-first", "task-first"] = "keypoints-first"
    inner_steps: Annotated[int, at_least(0)] = 2
    cell_step: Annotated[float, at_least(0)] = 31.25
    cell_reach: Annotated[float, at_least(0)] = 1.0
    penalty: Annotated[float, at_least(0)] = 0.0
    confidence: Annotated[float, at_least(0)] = 2.5
    gaussian: Literal["covariance", "deviation"] = "covariance"
    offset_weight: Annotated[float, at_least(0)] = 0.1
    weighted_offsets: bool = False
    task_rate: LearningRate = 1e-4
    heatmap_rate: LearningRate = 1e-4
    backbone_rate: LearningRate = 1e-5
    decay: Decay = 1.0
    decay_steps: DecaySteps = None

    def check(self) -> None:
        """See ``Config.check``."""
        if self.penalty * self.cell_step > 1:
            raise MistError(
                f"step.penalty={self.penalty} diverges at step.cell_step={self.cell_step}: give at most "
                f"{1 / self.cell_step:.3g}"
            )

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.mist.natural_step import NaturalStep

        return NaturalStep(model, self)
