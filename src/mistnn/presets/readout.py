"""How a trained heat map is read: the strength of its softmax and the suppression window, by validation scenes.

Without normalisation the scores of the heat-map network grow while it learns, and a strength that was right at the
start can hide a weak object beside a strong one at the end. Training settings stay as they were; only the reading
changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mistnn.errors import MistError
from mistnn.models.mist import Mist
from mistnn.presets.evaluation import evaluate
from mistnn.presets.experiment import describe, mist_parts, restore
from mistnn.presets.systems import at_root
from mistnn.training import prepare_run_folder
from mistnn.weights import load_model, read_config, save_model

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
) -> dict[str, float]:
    """Tries every strength with every window on validation scenes and writes the model with the best.

    Best is what needs no more than the training was told, and no box: the largest share of objects counted in the right
    class ("classified"); without classes, the smallest error of the redrawn images ("rmse"). The first of equals wins.

    Args:
        folder_or_name: the model.
        out: the folder to write, a model folder without a checkpoint.
        images: validation scenes.
        strengths: of the local softmax.
        windows: of the suppression, in pixels.
        root: where the digits lie, see ``ScenesConfig``.
        say: told each combination's result.

    Returns:
        The metrics of the best on those scenes.

    Raises:
        MistError: if the model is missing or ``out`` is in use.
    """
    experiment = restore(folder_or_name)
    config, _ = mist_parts(experiment)
    model = load_model(folder_or_name)
    assert isinstance(model, Mist)
    if not strengths or not windows:
        raise MistError("there is nothing to choose from: give at least one strength and one window")
    if not model.class_names and not model.reconstructs:
        raise MistError(f"{folder_or_name} neither reads nor redraws: there is nothing to choose by")
    readings = [
        dataclasses.replace(config, softmax_strength=strength, nms_window=window)
        for strength in strengths
        for window in windows
    ]
    prepare_run_folder(out, force=False, resume=False)
    data = experiment.data if root is None else at_root(experiment.data, root)
    name, sign = ("classified", 1) if model.class_names else ("rmse", -1)
    best: dict[str, float] = {}
    chosen = config
    for reading in readings:
        model.config = reading
        measured = evaluate(model, data, "validation", images)
        say(f"strength {reading.softmax_strength:g}, window {reading.nms_window}: {name} {measured[name]:.4f}")
        if not best or sign * measured[name] > sign * best[name]:
            best, chosen = measured, reading
    described = describe(dataclasses.replace(experiment, model=chosen))
    training = read_config(folder_or_name).training
    save_model(out, model, described["kind"], described["model"], described["experiment"], training=training)
    return best
