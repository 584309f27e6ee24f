"""Choosing how a trained heat map is read: the strength of its softmax and the suppression window.

Without normalisation, the scores of the heat-map network grow during training, and a strength that was right at the
start can hide a weak object beside a strong one at the end. Training settings stay unchanged; only the reading changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments.mist import lifted_parts
from mistnn.experiments.run import evaluate, restore, save_again
from mistnn.training import prepare_run_folder
from mistnn.training.runfolder import run_folder
from mistnn.weights import load_model

STRENGTHS = (10.0, 3.0, 1.0, 0.5, 0.2, 0.1)
NMS_WINDOWS = (5, 11)


def tune_readout(
    folder_or_name: Path | str,
    out: Path,
    images: int = 300,
    strengths: Sequence[float] = STRENGTHS,
    windows: Sequence[int] = NMS_WINDOWS,
    root: str | None = None,
    say: Callable[[str], None] = print,
    device: str = "cpu",
) -> dict[str, float]:
    """Tries every strength with every window on validation images and writes the model with the best.

    The criterion needs nothing beyond the labels of training, and no box: the largest share of objects counted in the
    right class ("classified") or, without classes, the smallest reconstruction error ("rmse"). Ties go to the first.

    Args:
        folder_or_name: the model.
        out: the model folder to write, without a checkpoint.
        images: validation images.
        strengths: of the local softmax.
        windows: of the suppression, in pixels.
        root: the folder with the images' files, if they are not where the configuration expects them.
        say: called with each combination's result.
        device: for the network, see ``devices.find_device``.

    Returns:
        The metrics of the best combination on those images.

    Raises:
        MistError: if the model is missing or ``out`` is in use.
    """
    with run_folder(out):
        experiment = restore(folder_or_name)
        config, _ = lifted_parts(experiment)
        model: Any = load_model(folder_or_name).to(find_device(device))
        if not strengths or not windows:
            raise MistError("there is nothing to choose from: give at least one strength and one window")
        if not model.class_names and not model.reconstructs:
            raise MistError(
                f"{folder_or_name} neither classifies nor reconstructs, so there is no criterion to choose by"
            )
        readings = [
            dataclasses.replace(config, softmax_strength=strength, nms_window=window)
            for strength in strengths
            for window in windows
        ]
        prepare_run_folder(out, force=False, resume=False)
        data = experiment.at(root).data
        name, sign = ("classified", 1) if model.class_names else ("rmse", -1)
        best: dict[str, float] = {}
        chosen = config
        for reading in readings:
            model.config = reading
            measured = evaluate(model, data, "validation", images)
            say(f"strength {reading.softmax_strength:g}, window {reading.nms_window}: {name} {measured[name]:.4f}")
            if not best or sign * measured[name] > sign * best[name]:
                best, chosen = measured, reading
        save_again(folder_or_name, out, model, dataclasses.replace(experiment, model=chosen))
        return best
