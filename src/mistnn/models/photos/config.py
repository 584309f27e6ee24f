"""Configurations of MIST on photographs: the network, and the step that learns from counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, between, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.finder import Finder, check_class_names
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import COARSEST, PyramidConfig
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate


@dataclass(frozen=True)
class PhotoConfig(ModelConfig):
    """Everything that shapes the network. Not in the papers: all values are our choice.

    Attributes:
        class_names: one name per class.
        k: K, the largest number of objects that is reported for an image.
        stride: pixels between neighbouring cells of the density and of the heat map.
        box_size: the usual side of an object, in pixels of the prepared image.
        width: channels of the head.
        task: whether there is a task network, which classifies patches of features and knows a background class. It is
            needed to lift keypoints, and has no part in prediction.
        nms_window: side of the window of non-maximum suppression, as a fraction of ``box_size``.
        apart: the smallest distance between objects of different classes, as a fraction of ``box_size``.
        intervals: for each class the half width of the interval of a count n, in units of sqrt(n + 1), set after
            training, see ``interval_factor``; empty if unknown.
        usual: the largest distance of a validation image from the training images, set after training, see
            ``PhotoMist.distances``; 0 if unknown.
        measured: whether the size of each box is measured, see ``extents.py``; set after training. Otherwise all boxes
            are squares with sides of ``box_size``.
        chosen_at: the number of iterations after which the weights were taken, see ``photo_states``; 0 if unknown.
        preparation: how images are prepared for the network.
        pyramid: the pretrained network.
    """

    kind: ClassVar[str] = "photo-mist"
    channels: ClassVar[int] = 3
    class_names: tuple[str, ...] = ("object",)
    k: Annotated[int, at_least(1)] = 100
    stride: Annotated[int, one_of(4, 8, 16, 32)] = 8
    box_size: Annotated[float, above(0)] = 64.0
    width: Annotated[int, at_least(1)] = 64
    task: bool = False
    nms_window: Annotated[float, between(0, 2)] = 0.7
    apart: Annotated[float, at_least(0)] = 0.3
    intervals: tuple[float, ...] = ()
    usual: Annotated[float, at_least(0)] = 0.0
    measured: bool = False
    chosen_at: Annotated[int, at_least(0)] = 0
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)

    def check(self) -> None:
        """See ``Config.check``."""
        check_class_names(self.class_names, least=1)
        if self.intervals and len(self.intervals) != len(self.class_names):
            raise MistError(f"model.intervals={self.intervals} must have one number for each class")
        if COARSEST % self.stride:
            raise MistError(f"model.stride={self.stride} must divide {COARSEST}")

    @property
    def cells(self) -> float:
        """The side of a box in cells."""
        return self.box_size / self.stride

    @property
    def window(self) -> int:
        """The side of the window of non-maximum suppression in cells, odd, at least 3."""
        return max(3, 2 * round((self.nms_window * self.cells - 1) / 2) + 1)

    @property
    def patch(self) -> int:
        """The side of a patch of the task network in cells: that of a box, odd."""
        return max(1, 2 * round((self.cells - 1) / 2) + 1)

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.photos.network import PhotoMist

        return PhotoMist(self)


@dataclass(frozen=True)
class PhotoStepConfig(TrainingStepConfig):
    """How the network learns from counts. Not in the papers: all values are our choice.

    Attributes:
        rate: learning rate of AdamW.
        weight_decay: of AdamW.
        start: the first keypoints. "templates": the maxima of a linear heat map for each class, found before the run
            (``find_templates``). "density": those of the density, after it has learned alone.
        dense_share: the share of the run in which only the density learns; with "density".
        handover: the share of the run in which keypoints pass from those of ``start`` to the maxima of the heat map.
        kept: the share that those of ``start`` keep after it.
        dropout: the share of the channels of the head that are set to 0 at first. In the second half of the run it
            falls to 0, since a head that always misses some channels counts too few without.
        count_weight: weight of the loss of the counts; with 0 the density stays as it is, and only the true number of
            objects can be found (for comparisons).
        class_weight: weight of the cross-entropy of the classes of the objects of an image.
        total_weight: weight of the loss of an image's total beside that of its classes.
        heatmap_weight: weight of the loss of the heat map.
        local_weight: weight of the loss of the density around keypoints.
        spread: standard deviation of the Gaussian at a keypoint, as a fraction of the box.
        keypoints: "counts": as many keypoints of each class as the image has objects. "none": no heat map is learned,
            and the maxima of the density are reported.
        lift_steps: gradient steps on the keypoints in each iteration, line 4 of Algorithm 1; needs ``model.task``.
        lift_rate: their size, in cells^2.
        lift_reach: the longest move of a keypoint in one step, in cells.
        spare: K of lifting, as a multiple of the most objects in an image of the batch; keypoints beyond the number of
            objects are background.
        task_weight: weight of the loss of the task network, equation 9.
        decay: the learning rate falls to this share along half a cosine over ``decay_steps``.
        decay_steps: iterations of that fall; ``None`` for the whole run.
    """

    kind: ClassVar[str] = "photo-counts"
    trains: ClassVar[tuple[str, ...]] = ("photo-mist",)
    rate: LearningRate = 4e-3
    weight_decay: Annotated[float, at_least(0)] = 1e-2
    start: Literal["templates", "density"] = "templates"
    dense_share: Annotated[float, between(0, 1)] = 0.35
    handover: Annotated[float, above(0)] = 0.3
    kept: Annotated[float, between(0, 1)] = 0.5
    dropout: Annotated[float, between(0, 0.9)] = 0.3
    count_weight: Annotated[float, at_least(0)] = 1.0
    class_weight: Annotated[float, at_least(0)] = 1.0
    total_weight: Annotated[float, at_least(0)] = 1.0
    heatmap_weight: Annotated[float, at_least(0)] = 1.0
    local_weight: Annotated[float, at_least(0)] = 0.3
    spread: Annotated[float, above(0)] = 0.2
    keypoints: Literal["counts", "none"] = "counts"
    lift_steps: Annotated[int, at_least(0)] = 0
    lift_rate: Annotated[float, above(0)] = 100.0
    lift_reach: Annotated[float, above(0)] = 1.0
    spare: Annotated[float, at_least(1)] = 1.5
    task_weight: Annotated[float, at_least(0)] = 1.0
    decay: Decay = 0.02
    decay_steps: DecaySteps = None

    def check_model(self, model: ModelConfig) -> None:
        """See ``TrainingStepConfig.check_model``; keypoints are lifted by a task network."""
        super().check_model(model)
        if self.lift_steps and not getattr(model, "task", False):
            raise MistError("step.lift_steps needs a task network: give --model.task true, or --step.lift-steps 0")

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.photos.step import PhotoStep

        return PhotoStep(model, self)
