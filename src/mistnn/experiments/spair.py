"""SPAIR (AAAI 2019): how it is checked, initialised and watched."""

from __future__ import annotations

import math
from typing import Any

from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.generative import GenerativeSystem
from mistnn.experiments.system import Say
from mistnn.experiments.watch import Watch
from mistnn.interfaces import SampleDataset
from mistnn.models.spair import SpairConfig, collapse_note
from mistnn.records import collate

BACKGROUND_IMAGES = 100
"""Training images whose median is the shared background (our choice)."""


class SpairSystem(GenerativeSystem):
    """SPAIR, which processes images made of whole cells."""

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Checks that images consist of whole cells, and that these are enough for the objects."""
        super().check_parts(model, data, experiment)
        whole = data.size[0]
        seen = whole if data.known.training_size is None else data.known.training_size[0]
        for name, side in (("canvas", whole), ("crop", seen)):
            if side % model.cell:
                raise MistError(
                    f"data.{name}={side}: SPAIR needs images made of cells of {model.cell} x {model.cell} pixels, and "
                    f"{side} is not a multiple of {model.cell}: give a multiple"
                )
        if model.background_side not in (0, seen) or (model.background_side and seen != whole):
            raise MistError(
                f"model.background_side={model.background_side}, but training uses {seen} of {whole} px: a background "
                "is shared by whole images of one size; give that size and no data.crop"
            )
        most, cells = max(data.known.counts, default=0), math.prod(model.grid(seen, seen))
        if most > cells:
            raise MistError(
                f"data.counts: an image may hold {most} objects, and SPAIR finds at most one per cell, {cells} in the "
                f"{seen} x {seen} pixels of a training image: give fewer or a larger data."
                + ("crop" if seen < whole else "canvas")
            )

    def begin(self, model: Any, experiment: Experiment, samples: SampleDataset) -> None:
        """Computes the background that all images share, where the model has one."""
        if model.config.background == "shared":
            model.learn_background(collate([samples[index] for index in range(BACKGROUND_IMAGES)]).images)

    def watch(self, experiment: Experiment, say: Say) -> Watch:
        """Warns of a collapse."""
        return Watch(collapse_note, "kl_presence", say)


SYSTEMS = {SpairConfig: SpairSystem()}
