"""AIR and DAIR: how they are checked and watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.generative import GenerativeSystem, most_objects
from mistnn.experiments.system import Say
from mistnn.experiments.watch import Watch
from mistnn.models.air import AirConfig, collapse_note

LINES = 5
"""Consecutive lines of the log for which a collapse must hold (our choice)."""


class AirCollapseWatch(Watch):
    """Warns once that AIR draws nothing, that it draws at every step, or that z_what carries no information.

    Args:
        say: is called with the warning.
    """

    def __init__(self, say: Say) -> None:
        super().__init__("kl_what", 0, LINES, say)

    def note(self, values: Mapping[str, float]) -> str | None:
        """See ``mistnn.models.air.collapse_note``."""
        return collapse_note(values)


class AirSystem(GenerativeSystem):
    """AIR and DAIR, which process images of one size."""

    def check(self, experiment: Experiment) -> None:
        """Also compares sizes and the number of objects."""
        super().check(experiment)
        model: Any = experiment.model
        data: Any = experiment.data
        if data.size != (model.canvas, model.canvas) or data.known.training_size not in (None, data.size):
            raise MistError(
                f"model.canvas={model.canvas}, and AIR processes images of that size only: give "
                f"data.canvas={model.canvas} and no data.crop"
            )
        most = max(data.known.counts, default=0)
        most_objects(
            data, model.k, f"AIR finds at most model.k={model.k}, one a step", f"give --k {most} or fewer objects"
        )

    def watch(self, experiment: Experiment, say: Say) -> Watch:
        """Warns of a collapse."""
        return AirCollapseWatch(say)


SYSTEMS = {AirConfig: AirSystem()}
