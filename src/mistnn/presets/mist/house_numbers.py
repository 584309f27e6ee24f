"""House numbers of two digits: Table 4 of the earlier MIST version (S001), on SVHN and on its re-assembled test crops.

The paper gives the size of the images (60 x 240), the number of digits and that there is one scale; every other value
here is ours. Numbers of no run on one data set stand for the other: see ``mistnn.data.house_numbers.placed_numbers``.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import NumbersConfig, SvhnConfig
from mistnn.experiments import Experiment, Preset
from mistnn.models.mist import DenseMistConfig, DenseStepConfig, LiftedStepConfig, MistConfig, SupervisedStepConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.training import TrainConfig

STEPS, DENSE_STEPS = 4000, 1600
MODEL = MistConfig(
    k=2,
    channels=3,
    # One scale: the heat-map network sees the image at half size, 30 x 120, where a digit is about as large as it can
    # see. Boxes of 34 px, patches of 40 px: digits are about 33 px high and as wide.
    scales=(2.0,),
    box_size=17.0,
    patch_extent=20.0,
    patch_size=24,
    heatmap=HeatmapConfig(network="paper", channels=16, blocks=4, normalisation="before", start="contrast"),
    encoder=EncoderConfig(network="levelled", width=32, code=128),
    softmax_window=29,  # as wide as a digit nearly, so that a digit has one peak
)
# No one can tell a digit's centre to a pixel here: a heat map taught single pixels stays empty, hence the Gaussians.
HEATMAP_RATE, SPREAD = 1e-3, 3.0
LIFTED = LiftedStepConfig(heatmap_rate=HEATMAP_RATE, spread=SPREAD, decay=0.02, precision="auto")
SUPERVISED = SupervisedStepConfig(heatmap_rate=HEATMAP_RATE, spread=SPREAD, decay=0.02)
TRAIN = TrainConfig(steps=STEPS, batch_size=16, log_every=50, save_every=250, evaluate_every=500)

PRESETS = (
    Preset(
        "mist-svhn",
        "Table 4 of S001: two-digit SVHN photographs at 60x240, class counts only (needs SVHN's own files)",
        Experiment(MODEL, SvhnConfig(), LIFTED, TRAIN),
    ),
    Preset(
        "supervised-svhn",
        "Table 4 of S001, Supervised: the same networks taught with true places and classes (needs SVHN's own files)",
        Experiment(MODEL, SvhnConfig(), SUPERVISED, TRAIN),
    ),
    Preset(
        "mist-numbers",
        "the same on SVHN's re-assembled test crops put on made-up backgrounds, not SVHN itself (needs their folder)",
        Experiment(MODEL, NumbersConfig(), LIFTED, TRAIN),
    ),
    Preset(
        "mist-dense-numbers",
        "the same images from class counts by our dense variant, which searches, then selects (needs their folder)",
        Experiment(
            DenseMistConfig(), NumbersConfig(), DenseStepConfig(), dataclasses.replace(TRAIN, steps=DENSE_STEPS)
        ),
    ),
    Preset(
        "supervised-numbers",
        "the same on the re-assembled test crops, taught with true places and classes (needs their folder)",
        Experiment(MODEL, NumbersConfig(), SUPERVISED, TRAIN),
    ),
)
