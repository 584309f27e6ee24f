"""The systems MIST is measured against: Tables 1, 2 and 3 of the paper (CVPR 2021), with the small task networks.

Same scenes, same patches, same task network, same batch and number of steps as MIST's own preset of the row.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import ScenesConfig
from mistnn.models.mist import SupervisedStepConfig
from mistnn.models.rivals import (
    ChannelwiseConfig,
    GridConfig,
    RivalStepConfig,
    Xie20Config,
    Zha18Config,
    Zha18StepConfig,
)
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets import mist_digits, mist_discover
from mistnn.presets.experiment import Experiment, Preset
from mistnn.presets.systems import ModelConfig
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
"""At 2e-3 the patches, which overlap at first, become black and stay so (docs/logbook.md)."""
READING_CHANNELS = ChannelwiseConfig(
    k=9, patch_size=24, heatmap=HeatmapConfig(channels=32, start="random"), encoder=CLASSIFIER
)
XIE20 = Xie20Config(k=9, patch_size=24, heatmap=mist_digits.PAPER_HEATMAP, encoder=CLASSIFIER)


ZHA18 = Zha18Config(feature_widths=(32, 64, 64, 64), drawing_widths=(32, 64, 64, 64))
"""Features and drawing as narrow as the landmark network: for laptops, like the small networks of the others."""


def _loop(steps: int, batch_size: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=batch_size, log_every=50, save_every=250, evaluate_every=500)


def _redraw(model: ModelConfig, data: ScenesConfig, steps: int, rate: float = 2e-3) -> Experiment:
    step = RivalStepConfig(rate=rate, places_rate=1e-3, decay=0.02, decay_steps=steps)
    return Experiment(model, data, step, _loop(steps, 16))


def _landmarks(data: ScenesConfig, steps: int) -> Experiment:
    return Experiment(ZHA18, data, Zha18StepConfig(decay_steps=steps), _loop(steps, 16))


def _read(model: ModelConfig, data: ScenesConfig, steps: int = 4000) -> Experiment:
    return Experiment(model, data, RivalStepConfig(decay=0.02, decay_steps=steps), _loop(steps, 32))


EASY, HARD, THREE = mist_discover.EASY, mist_digits.HARD, mist_digits.THREE

PRESETS = (
    Preset("grid-mnist-easy", "Table 1, Grid: an auto-encoder in each cell of 3 x 3", _redraw(GRID, EASY, 1200)),
    Preset("grid-mnist-hard", "Table 1, Grid on MNIST hard", _redraw(GRID, HARD, 2000)),
    Preset(
        "channelwise-mnist-easy",
        "Table 1, Ch.-wise: a heat map for each of nine places, by soft-argmax",
        _redraw(CHANNELS, EASY, 1200, CHANNELS_RATE),
    ),
    Preset("channelwise-mnist-hard", "Table 1, Ch.-wise on MNIST hard", _redraw(CHANNELS, HARD, 2000, CHANNELS_RATE)),
    Preset("zha18-mnist-easy", "Table 1, Zha18: landmarks that redraw the image", _landmarks(EASY, 1200)),
    Preset("zha18-mnist-hard", "Table 1, Zha18 on MNIST hard", _landmarks(HARD, 2000)),
    Preset(
        "channelwise-read-mnist-hard",
        "Table 2, Ch.-wise: the same for classification from class counts",
        _read(READING_CHANNELS, HARD),
    ),
    Preset(
        "supervised-mnist-hard",
        "Table 2, Supervised: MIST's networks taught with true places and classes, an upper bound",
        Experiment(mist_digits.SMALL, HARD, SupervisedStepConfig(decay=0.02, decay_steps=4000), _loop(4000, 32)),
    ),
    Preset("xie20-mnist-hard", "Table 3, Xie20: SOFT top-K as a mask, heat map at stride 8", _read(XIE20, HARD)),
    Preset(
        "xie20-stride4-mnist-hard",
        "Table 3, Xie20: the same at stride 4, four times the memory",
        _read(dataclasses.replace(XIE20, stride=4), HARD),
    ),
    Preset("xie20-mnist-3", "Table 3, Xie20 on three digits, stride 8", _read(dataclasses.replace(XIE20, k=3), THREE)),
)
