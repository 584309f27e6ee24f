"""Choosing how a trained heat map is read: the strength of its softmax and the suppression window.

Without normalisation, the scores of the heat-map network grow during training, and a strength that was right at the
start can hide a weak object beside a strong one at the end. Training settings stay unchanged; only the reading changes.

Every system whose heat map has a strength is read the same way: MIST, trained by lifting or with true positions, and
the channel-wise network. Each names the values to try (``ModelConfig.reading_strengths``, ``reading_windows``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments.run import evaluate, restore, save_again
from mistnn.interfaces import ModelConfig
from mistnn.training import prepare_run_folder
from mistnn.training.runfolder import CONFIG, run_folder
from mistnn.weights import load_model

TUNING_IMAGES = 300
"""Validation images on which readings are compared."""


class Reading(NamedTuple):
    """How a heat map is read; the window is ``None`` for a network without suppression."""

    strength: float
    window: int | None

    def __str__(self) -> str:
        """In words."""
        return f"strength {self.strength:g}" + ("" if self.window is None else f", window {self.window}")


class Tuned(NamedTuple):
    """The result of a search.

    Attributes:
        reading: the best.
        tried: how many were compared.
        metrics: of the best, on the validation images.
    """

    reading: Reading
    tried: int
    metrics: dict[str, float]


def readings_of(
    config: ModelConfig, strengths: Sequence[float] | None = None, windows: Sequence[int] | None = None
) -> list[Reading]:
    """Every combination of strengths and windows; those that the configuration names, unless others are given.

    Raises:
        MistError: if the network has no strength, or nothing is given to choose from.
    """
    if not config.reading_strengths:
        raise MistError(
            f"the model is of kind {config.kind!r}, which has no heat map with a strength to choose: give a run of a "
            "preset mist-..., supervised-... or channelwise-..."
        )
    strengths = config.reading_strengths if strengths is None else strengths
    windows = config.reading_windows if windows is None or not config.reading_windows else windows
    if not strengths or (config.reading_windows and not windows):
        raise MistError("there is nothing to choose from: give at least one strength and one window")
    return [Reading(strength, window) for strength in strengths for window in windows or (None,)]


def tune_readout(
    folder_or_name: Path | str,
    out: Path,
    images: int = TUNING_IMAGES,
    strengths: Sequence[float] | None = None,
    windows: Sequence[int] | None = None,
    root: str | None = None,
    say: Callable[[str], None] = print,
    device: str = "cpu",
    force: bool = False,
) -> Tuned:
    """Tries every strength with every window on validation images and writes the model with the best.

    The criterion needs nothing beyond the labels of training, and no box: the largest share of objects counted in the
    right class ("classified") or, without classes, the smallest reconstruction error ("rmse"). Ties go to the first.

    Args:
        folder_or_name: the model.
        out: the model folder to write, without a checkpoint.
        images: validation images.
        strengths: of the softmax; those that the model's configuration names if not given.
        windows: of the suppression, in pixels; likewise.
        root: the folder with the images' files, if they are not where the configuration expects them.
        say: called with each combination's result.
        device: for the network, see ``devices.find_device``.
        force: whether to replace what an earlier search left in ``out``.

    Returns:
        The best combination and its metrics on those images.

    Raises:
        MistError: if the model is missing, has no strength, or was trained on an image folder; or ``out`` is in use, or
            the model itself.
    """
    with run_folder(out):
        experiment = restore(folder_or_name)
        configs = {
            reading: experiment.model.with_reading(*reading)
            for reading in readings_of(experiment.model, strengths, windows)
        }
        model: Any = load_model(folder_or_name).to(find_device(device))
        if not model.class_names and not model.reconstructs:
            raise MistError(
                f"{folder_or_name} neither classifies nor reconstructs, so there is no criterion to choose by"
            )
        if Path(folder_or_name).exists() and out.resolve() == Path(folder_or_name).resolve():
            raise MistError(f"--out {out} is the model itself: give a new folder")
        if not force and (out / CONFIG).exists():
            raise MistError(f"{out} holds a model: give a new folder with --out, or --force to replace it")
        prepare_run_folder(out, force=force, resume=False)
        data = experiment.at(root).data
        name, sign = ("classified", 1) if model.class_names else ("rmse", -1)
        best: Tuned | None = None
        for reading, config in configs.items():
            model.config = config
            measured = evaluate(model, data, "validation", images)
            if name not in measured:
                raise MistError(
                    f"{folder_or_name} was trained on an image folder, and counts by a threshold that belongs to its "
                    "present reading: mist tune is for the data sets of the papers"
                )
            say(f"{reading}: {name} {measured[name]:.4f}")
            if best is None or sign * measured[name] > sign * best.metrics[name]:
                best = Tuned(reading, len(configs), measured)
        assert best is not None
        save_again(folder_or_name, out, model, dataclasses.replace(experiment, model=configs[best.reading]))
        return best
