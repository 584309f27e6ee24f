"""How the toy paper's system is measured."""

from __future__ import annotations

from typing import ClassVar

from mistnn.models.toy import BrightestConfig

from mistnn.data import ScenesConfig
from mistnn.experiments.measuring import SceneMeasurement
from mistnn.experiments.system import System


class BrightestSystem(System):
    """On scenes of digits."""

    measured_on: ClassVar = {ScenesConfig: SceneMeasurement}
    images = "scenes of digits"


SYSTEMS = {BrightestConfig: BrightestSystem()}
