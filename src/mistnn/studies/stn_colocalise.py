"""The encoder that teaches all trainings of co-localisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mistnn.presets import find_preset, train
from mistnn.presets.stn_evaluation import ENCODER
from mistnn.presets.systems import at_root
from mistnn.training.runfolder import CONFIG


def train_encoder(out: Path, root: str | None, say: Callable[[str], None]) -> bool:
    """Trains it where it is missing, and goes on where it was stopped.

    Args:
        out: its run folder.
        root: where MNIST lies, see ``DistortedConfig``.
        say: told when it is trained.

    Returns:
        Whether it was stopped.

    Raises:
        MistError: if the run folder holds another training.
    """
    experiment, begun = find_preset(ENCODER).experiment, (out / CONFIG).exists()
    if not begun:
        say(f"{ENCODER}: trained first, into {out}")
    experiment = dataclasses.replace(experiment, data=at_root(experiment.data, root))
    return train(experiment, out, resume=begun).interrupted
