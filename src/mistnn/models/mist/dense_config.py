"""Configurations of the dense variant of MIST: the network, and the step that searches before it selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from mistnn.config import above, at_least, between, odd, one_of
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.finder import Finder, check_class_names
from mistnn.nn.mixed_precision import Precision
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate

CELL = 4
"""Pixels between neighbouring cells of the maps."""


@dataclass(frozen=True)
class DenseMistConfig(ModelConfig):
    """Everything that shapes the network. Not in the papers: all values are our choice.

    Attributes:
        class_names: one name per class.
        k: K, how many objects are found in each image; can be changed at prediction.
        channels: of the images, 1 or 3.
        width: channels of the features; the first two layers have half of it.
        blocks: residual convolutions at the end; each widens the view of a cell by 8 px.
        dropout: the share of the channels of the features that are set to 0 in training.
        level_window: side in pixels of the window over which brightness and contrast are normalised.
        box_size: side in pixels of the reported box around a keypoint.
        window: side in cells of the window of non-maximum suppression.
    """

    kind: ClassVar[str] = "dense-mist"
    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    k: Annotated[int, at_least(1)] = 2
    channels: Annotated[int, one_of(1, 3)] = 3
    width: Annotated[int, at_least(2)] = 64
    blocks: Annotated[int, at_least(0)] = 2
    dropout: Annotated[float, between(0, 0.9)] = 0.1
    level_window: Annotated[int, odd(255)] = 33
    box_size: Annotated[float, above(0)] = 34.0
    window: Annotated[int, odd(255)] = 7

    def check(self) -> None:
        """See ``Config.check``."""
        check_class_names(self.class_names, least=1)

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.mist.dense import DenseMist

        return DenseMist(self)


@dataclass(frozen=True)
class DenseStepConfig(TrainingStepConfig):
    """How the network learns from class counts. Not in the papers: all values are our choice.

    Attributes:
        rate: learning rate of AdamW.
        weight_decay: of AdamW.
        search_steps: iterations in which nothing is selected: an image's class shares are averaged over its cells,
            weighted by the energy of the image there.
        handover: iterations after them, over which keypoints pass from energy x class to heat map x class.
        energy_window: side in pixels of the window over which energy is averaged, somewhat below an object.
        sharpness: exponent of the energy in the search. The higher, the more its maxima count.
        kept: exponent with which the energy stays a factor of the heat map in the choice of keypoints; 0 for none.
        apart: the smallest distance in cells between keypoints of different classes.
        spread: standard deviation in cells of the Gaussian that the heat map learns at a keypoint.
        read: standard deviation in cells of the Gaussian around a keypoint whose cells learn its class.
        shares: weight of the loss of the averaged classes.
        imitation: weight with which the heat map learns the energy during the search.
        contrast: contrasts of an image vary by this share.
        inverted: whether half of the images are seen as their negatives.
        decay: the learning rate falls to this share along half a cosine over ``decay_steps``.
        decay_steps: iterations of that fall; ``None`` for the whole run.
        precision: of the network's convolutions; "auto" selects bfloat16 where that is faster.
    """

    kind: ClassVar[str] = "dense-counts"
    trains: ClassVar[tuple[str, ...]] = ("dense-mist",)
    rate: LearningRate = 2e-3
    weight_decay: Annotated[float, at_least(0)] = 1e-2
    search_steps: Annotated[int, at_least(0)] = 400
    handover: Annotated[int, at_least(1)] = 200
    energy_window: Annotated[int, odd(255)] = 25
    sharpness: Annotated[float, above(0)] = 4.0
    kept: Annotated[float, at_least(0)] = 1.0
    apart: Annotated[float, at_least(0)] = 4.0
    spread: Annotated[float, above(0)] = 1.5
    read: Annotated[float, above(0)] = 1.0
    shares: Annotated[float, at_least(0)] = 0.5
    imitation: Annotated[float, at_least(0)] = 0.3
    contrast: Annotated[float, between(0, 1)] = 0.3
    inverted: bool = True
    decay: Decay = 0.02
    decay_steps: DecaySteps = None
    precision: Precision = "auto"

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.mist.dense_step import DenseStep

        return DenseStep(model, self)
