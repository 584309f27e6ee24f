"""The systems that MIST is compared with: Tables 1 to 4 of the paper (CVPR 2021) and the full VOC 2007.

On digits they use the small task networks, with the scenes, patches, task network, batch size and number of steps of
MIST's own preset of the row.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mistnn.data import NaturalConfig, ScenesConfig
from mistnn.data.photographs.published import VOC_CLASSES
from mistnn.experiments import Experiment, Preset
from mistnn.interfaces import ModelConfig
from mistnn.models.mist import SupervisedStepConfig
from mistnn.models.rivals import (
    ChannelwiseConfig,
    GridConfig,
    NaturalXie20Config,
    RivalStepConfig,
    Xie20Config,
    Zha18Config,
    Zha18StepConfig,
)
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets.images import EASY, HARD, THREE
from mistnn.presets.mist import digits, photographs
from mistnn.training import TrainConfig

AUTO_ENCODER = EncoderConfig(network="small", width=32, code=32)
CLASSIFIER = EncoderConfig(network="small", width=32, code=128)
GRID = GridConfig(cells=3, patch_size=24, encoder=AUTO_ENCODER, decoder=32)
CHANNELS = ChannelwiseConfig(
    class_names=(),
    k=9,
    patch_size=24,
    heatmap=HeatmapConfig(channels=16, start="random"),
    encoder=AUTO_ENCODER,
    decoder=32,
)
CHANNELS_RATE = 3e-4
"""At 2e-3 the patches, which overlap at first, turn black and stay black (docs/logbook.md)."""
READING_CHANNELS = ChannelwiseConfig(
    k=9, patch_size=24, heatmap=HeatmapConfig(channels=32, start="random"), encoder=CLASSIFIER
)
XIE20 = Xie20Config(k=9, patch_size=24, encoder=CLASSIFIER)
POOLED = dataclasses.replace(XIE20, heatmap=digits.PAPER_HEATMAP, head="pooled")


ZHA18 = Zha18Config(feature_widths=(32, 64, 64, 64), drawing_widths=(32, 64, 64, 64))
"""Features and drawing as narrow as the landmark network: for laptops, like the small networks of the others."""


NATURAL_XIE20 = NaturalXie20Config(class_names=VOC_CLASSES, k=2)


def _photographs(model: NaturalXie20Config, steps: int, rate: float = 1e-4) -> Experiment:
    # The learning rates of MIST's networks, since no others are stated.
    step = RivalStepConfig(rate=rate, places_rate=rate)
    return Experiment(model, NaturalConfig(), step, photographs.loop(steps))


def _few_photographs(**changes: Any) -> Experiment:
    model = dataclasses.replace(NATURAL_XIE20, cells=2, backbone=photographs.RESNET18, **changes)
    return _photographs(model, photographs.SMALL_STEPS, photographs.SMALL_RATE)


def _loop(steps: int, batch_size: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=batch_size, log_every=50, save_every=250, evaluate_every=500)


def _reconstruct(model: ModelConfig, data: ScenesConfig, steps: int, rate: float = 2e-3) -> Experiment:
    step = RivalStepConfig(rate=rate, places_rate=1e-3, decay=0.02)
    return Experiment(model, data, step, _loop(steps, 16))


def _landmarks(data: ScenesConfig, steps: int) -> Experiment:
    return Experiment(ZHA18, data, Zha18StepConfig(), _loop(steps, 16))


def _read(model: ModelConfig, data: ScenesConfig, steps: int = 4000) -> Experiment:
    return Experiment(model, data, RivalStepConfig(decay=0.02), _loop(steps, 32))


PRESETS = (
    Preset("grid-mnist-easy", "Table 1, Grid: an auto-encoder in each cell of 3 x 3", _reconstruct(GRID, EASY, 1200)),
    Preset("grid-mnist-hard", "Table 1, Grid on MNIST hard", _reconstruct(GRID, HARD, 2000)),
    Preset(
        "channelwise-mnist-easy",
        "Table 1, Ch.-wise: a heat map for each of nine places, by soft-argmax",
        _reconstruct(CHANNELS, EASY, 1200, CHANNELS_RATE),
    ),
    Preset(
        "channelwise-mnist-hard", "Table 1, Ch.-wise on MNIST hard", _reconstruct(CHANNELS, HARD, 2000, CHANNELS_RATE)
    ),
    Preset("zha18-mnist-easy", "Table 1, Zha18: landmarks that reconstruct the image", _landmarks(EASY, 1200)),
    Preset("zha18-mnist-hard", "Table 1, Zha18 on MNIST hard", _landmarks(HARD, 2000)),
    Preset(
        "channelwise-read-mnist-hard",
        "Table 2, Ch.-wise: the same for classification from class counts",
        _read(READING_CHANNELS, HARD),
    ),
    Preset(
        "supervised-mnist-hard",
        "Table 2, Supervised: MIST's networks trained with true positions and classes, an upper bound",
        Experiment(digits.SMALL, HARD, SupervisedStepConfig(decay=0.02), _loop(4000, 32)),
    ),
    Preset(
        "supervised-mnist-hard-fast",
        "the same with our networks for few operations, those of `mist-mnist-hard-fast`",
        Experiment(digits.FAST, HARD, SupervisedStepConfig(decay=0.02), _loop(4000, 32)),
    ),
    Preset(
        "xie20-mnist-hard",
        "Table 3, Xie20: SOFT top-K as a mask, places scored by strided convolutions and a small head, stride 8",
        _read(XIE20, HARD),
    ),
    Preset(
        "xie20-stride4-mnist-hard",
        "Table 3, Xie20: the same at stride 4, four times the memory",
        _read(dataclasses.replace(XIE20, stride=4), HARD),
    ),
    Preset("xie20-mnist-3", "Table 3, Xie20 on three digits, stride 8", _read(dataclasses.replace(XIE20, k=3), THREE)),
    Preset(
        "xie20-pooled-mnist-hard",
        "not in a table: Xie20 with averaged features of MIST's heat-map network, which the paper rejects, stride 8",
        _read(POOLED, HARD),
    ),
    Preset(
        "xie20-pooled-stride4-mnist-hard", "the same at stride 4", _read(dataclasses.replace(POOLED, stride=4), HARD)
    ),
    Preset("xie20-pooled-mnist-3", "the same on three digits", _read(dataclasses.replace(POOLED, k=3), THREE)),
    Preset(
        "xie20-pascal-coco",
        "Table 4, Xie20: a mask over all cells of the same features",
        _photographs(NATURAL_XIE20, photographs.STEPS),
    ),
    Preset(
        "xie20-voc07",
        "supplement E, Xie20 with the same four anchors, at every second cell to fit into memory",
        _photographs(dataclasses.replace(NATURAL_XIE20, cells=2, reader=photographs.ANCHORS), photographs.VOC07_STEPS),
    ),
    Preset(
        "xie20-pascal-coco-1221",
        "Table 4, Xie20, on 1,221 of its photographs: ResNet18, 600 steps, every second cell",
        _few_photographs(),
    ),
    Preset(
        "xie20-voc-2607",
        "supplement E, Xie20, on 2,607 photographs of VOC: ResNet18, 600 steps, every second cell",
        _few_photographs(reader=photographs.ANCHORS),
    ),
)
