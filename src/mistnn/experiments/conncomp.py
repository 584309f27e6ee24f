"""ConnComp (SPAIR, AAAI 2019, supplement): measured as the systems that draw the image are."""

from __future__ import annotations

from mistnn.experiments.generative import GenerativeSystem
from mistnn.models.conncomp import ConnCompConfig

SYSTEMS = {ConnCompConfig: GenerativeSystem()}
