"""Photographs: Table 4 of MIST (CVPR 2021) and the full VOC 2007 of its supplement, section E.

The paper's values where it states them: ResNet34, its fourth block, shorter edge 224 px, K = 2, a background class,
flips and square masks. All others are from the released code (batch 16, Adam 1e-4 for both networks, 2 keypoint steps,
a patch of 7 cells, 100 epochs, which are 48,900 steps), or documented at their fields.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import NaturalConfig
from mistnn.data.photographs.published import VOC_CLASSES
from mistnn.experiments import Experiment, Preset
from mistnn.models.mist import NaturalMistConfig, NaturalStepConfig
from mistnn.nn.backbones import BackboneConfig
from mistnn.nn.feature_patches import FOUR_ANCHORS, ReaderConfig
from mistnn.training import TrainConfig

EPOCHS, BATCH = 100, 16
"""Not stated in the paper; values of the released code."""
STEPS = EPOCHS * -(-7816 // BATCH)
VOC07_STEPS = EPOCHS * -(-2501 // BATCH)
"""VOC 2007 has 2,501 training images; the paper states neither the split nor the length."""

SMALL_STEPS = 600
"""For parts of the sources: 10 epochs of 976 images, minutes on a laptop."""
SMALL_RATE, SMALL_REACH = 5e-4, 0.3
"""Best of those tried for 400 steps, on 123 validation images of PASCAL+COCO (docs/logbook.md)."""
RESNET18 = BackboneConfig(network="timm/resnet18")

MIST = NaturalMistConfig(class_names=VOC_CLASSES, k=2)
ANCHORS = ReaderConfig(anchors=FOUR_ANCHORS)


def loop(steps: int) -> TrainConfig:
    """The training loop of all systems for photographs."""
    return TrainConfig(steps=steps, batch_size=BATCH, log_every=50, save_every=500, evaluate_every=2000)


def _mist(steps: int, model: NaturalMistConfig = MIST) -> Experiment:
    return Experiment(model, NaturalConfig(), NaturalStepConfig(), loop(steps))


def _small(model: NaturalMistConfig) -> Experiment:
    step = NaturalStepConfig(task_rate=SMALL_RATE, heatmap_rate=SMALL_RATE, cell_reach=SMALL_REACH)
    return Experiment(dataclasses.replace(model, backbone=RESNET18), NaturalConfig(), step, loop(SMALL_STEPS))


PRESETS = (
    Preset(
        "mist-pascal-coco",
        "Table 4: photographs of PASCAL+COCO, class counts only, on a pretrained ResNet34 (needs `mist build`)",
        _mist(STEPS),
    ),
    Preset(
        "mist-pascal-coco-32",
        "the same with 32 x 32 samples a patch as the released code, at 16 times the work of the task network",
        _mist(STEPS, dataclasses.replace(MIST, reader=ReaderConfig(patch_size=32))),
    ),
    Preset(
        "mist-voc07",
        "supplement E: all of VOC 2007, four anchors, each patch with a confidence",
        _mist(VOC07_STEPS, dataclasses.replace(MIST, reader=ANCHORS)),
    ),
    Preset(
        "mist-pascal-coco-1221",
        "Table 4 on a part of its photographs, 1,221 of them: ResNet18, 600 steps, shorter moves of the keypoints",
        _small(MIST),
    ),
    Preset(
        "mist-voc-2607",
        "supplement E on 2,607 photographs of VOC: ResNet18, 600 steps, four anchors",
        _small(dataclasses.replace(MIST, reader=ANCHORS)),
    ),
)
