"""AIR and DAIR: how they are checked and watched."""

from __future__ import annotations

from typing import Any

from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.generative import GenerativeSystem
from mistnn.experiments.system import Say
from mistnn.experiments.watch import Watch
from mistnn.models.air import AirConfig, collapse_note


class AirSystem(GenerativeSystem):
    """AIR and DAIR, which process images of one size."""

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares sizes and the number of objects."""
        super().check_parts(model, data, experiment)
        if data.size != (model.canvas, model.canvas) or data.known.training_size not in (None, data.size):
            raise MistError(
                f"model.canvas={model.canvas}, and AIR processes images of that size only: give "
                f"data.canvas={model.canvas} and no data.crop"
            )
        most = max(data.known.counts, default=0)
        if most > model.k:
            raise MistError(
                f"data.counts: an image may hold {most} objects, and AIR finds at most model.k={model.k}, one a step: "
                f"give --k {most} or fewer objects"
            )

    def watch(self, experiment: Experiment, say: Say) -> Watch:
        """Warns of a collapse."""
        return Watch(collapse_note, "kl_what", say)


SYSTEMS = {AirConfig: AirSystem()}
