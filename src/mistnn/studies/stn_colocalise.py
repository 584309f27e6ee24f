"""Trainings of co-localisation: the encoder that teaches all of them, and several tries of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mistnn.models.stn import ColocaliseStepConfig
from mistnn.presets import Experiment, find_preset, read_log, train
from mistnn.presets.stn_evaluation import ENCODER
from mistnn.presets.systems import at_root
from mistnn.training.runfolder import CONFIG
from mistnn.weights.store import WEIGHTS_FILE

TRIES = 3
"""How often a localiser begins: some settle where there is nothing, or find it late; their own loss tells."""
TRIED = f"The best of {TRIES} openings by its own loss."
LAST = 2
"""Lines of the log whose mean loss is compared: 20 iterations."""


def best_of_tries(experiment: Experiment, out: Path, say: Callable[[str], None]) -> Path:
    """Opens a training with several starts and goes on with the one of the least loss; nothing true is looked at.

    Args:
        experiment: a localiser's; its seed s stands for the starts from ``TRIES`` x s on.
        out: what the run folders' names begin with; finished ones are kept, stopped ones go on.
        say: told the loss of each opening.

    Returns:
        The run folder of the least loss.

    Raises:
        KeyboardInterrupt: if one was stopped.
    """
    assert isinstance(experiment.step, ColocaliseStepConfig)
    losses, opening = dict[int, float](), min(opened(experiment.step), experiment.train.steps)
    for place in range(TRIES):
        folder = _folder(out, place)
        if not (folder / WEIGHTS_FILE).exists():
            _train(experiment, place, opening, folder)
        lines = [line["loss"] for line in read_log(folder) if "loss" in line and line["step"] <= opening][-LAST:]
        losses[place] = sum(lines) / len(lines)
        say(f"{folder.name}: loss {losses[place]:.3f}")
    best = min(losses, key=lambda place: losses[place])
    _train(experiment, best, experiment.train.steps, _folder(out, best))
    return _folder(out, best)


def opened(step: ColocaliseStepConfig) -> int:
    """After how many iterations tries are compared: when the windows have closed in by two fifths."""
    return max(1, step.opening + step.shrinking * 2 // 5)


def _folder(out: Path, place: int) -> Path:
    return out.with_name(f"{out.name}-try{place}")


def _train(experiment: Experiment, place: int, steps: int, folder: Path) -> None:
    loop = dataclasses.replace(experiment.train, seed=experiment.train.seed * TRIES + place, steps=steps)
    if train(dataclasses.replace(experiment, train=loop), folder, resume=(folder / CONFIG).exists()).interrupted:
        raise KeyboardInterrupt


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
