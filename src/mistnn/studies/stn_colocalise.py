"""Trainings of co-localisation: the encoder that teaches all of them, and several tries of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mistnn.presets import Experiment, find_preset, read_log, train
from mistnn.presets.stn_evaluation import ENCODER
from mistnn.presets.systems import at_root
from mistnn.training.runfolder import CONFIG

TRIES = 4
"""How often a localiser begins anew. It may settle where there is nothing, and its own loss tells: about 1.5, not 1."""
TRIED = f"The best of {TRIES} tries by its own loss."
LAST = 5
"""Lines of the log whose mean loss is compared."""


def best_of_tries(experiment: Experiment, out: Path, say: Callable[[str], None]) -> Path:
    """Trains the same images with several starts, and takes the one of the least loss; nothing true is looked at.

    Args:
        experiment: a localiser's; its seed s stands for the starts 4 s to 4 s + 3.
        out: what the run folders' names begin with; finished ones are kept, stopped ones go on.
        say: told the loss of each.

    Returns:
        The run folder of the least loss.

    Raises:
        KeyboardInterrupt: if one was stopped.
    """
    losses = {}
    for place in range(TRIES):
        folder = out.with_name(f"{out.name}-try{place}")
        seed = experiment.train.seed * TRIES + place
        tried = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, seed=seed))
        if train(tried, folder, resume=(folder / CONFIG).exists()).interrupted:
            raise KeyboardInterrupt
        last = [line["loss"] for line in read_log(folder) if "loss" in line][-LAST:]
        losses[folder] = sum(last) / len(last)
        say(f"{folder.name}: loss {losses[folder]:.3f}")
    return min(losses, key=lambda folder: losses[folder])


def train_encoder(out: Path, root: str | None, say: Callable[[str], None]) -> None:
    """Trains it where it is missing, and goes on where it was stopped.

    Args:
        out: its run folder.
        root: where MNIST lies, see ``DistortedConfig``.
        say: told when it is trained.

    Raises:
        KeyboardInterrupt: if it was stopped.
    """
    experiment, begun = find_preset(ENCODER).experiment, (out / CONFIG).exists()
    if not begun:
        say(f"{ENCODER}: trained first, into {out}")
    experiment = dataclasses.replace(experiment, data=at_root(experiment.data, root))
    if train(experiment, out, resume=begun).interrupted:
        raise KeyboardInterrupt
