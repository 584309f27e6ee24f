"""``mist evaluate``: the metrics of a trained model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mistnn.cli.parsing import Model, Number, OptionalFile, OptionalFolder, OptionalNumber, parse, renamed
from mistnn.cli.screen import progress_bar, show_table
from mistnn.errors import MistError
from mistnn.files import replace_file

DESCRIPTION = (
    "Measures a trained model on scenes it never saw, of the kind it was trained on; a localiser (stn-coloc-...) on "
    "its own hundred images, of which it was told nothing. MODEL is a run folder or the name of a model that "
    "ships with the package, such as mist-mnist-hard. Shares are from 0 to 1."
)

MEANINGS = {
    "iou50": "share of the objects that a box overlaps by more than half (IoU > 0.5), each box used once",
    "both": "share of the objects found like that by a box of the right class",
    "classified": "share of the objects counted in the right class: per class, the smaller of true and predicted count",
    "classified_paper": "the same by the rule of the papers' released code, for comparison only",
    "ap50": "average precision at an overlap of 0.5",
    "ap": "average precision, mean over overlaps from 0.5 to 0.95; of systems that draw the image from 0.1 to 0.9",
    "ap_ink": "scattered digits: the ap with the box around a digit's ink as the true one, not its frame of 14 pixels",
    "ap50_ink": "the same at an overlap of 0.5",
    "ap00": "house numbers: average precision of the classes alone, wherever the boxes are",
    **{f"ap{percent}": f"the same at an overlap of 0.{percent // 10}" for percent in (60, 70, 80, 90)},
    "fixed_iou50": "iou50 of the same boxes in every image, the mean ones of the training images",
    "fixed_ap00": "average precision of these, given the most frequent class, wherever they are",
    **{f"fixed_ap{percent}": f"the same at an overlap of 0.{percent // 10}" for percent in (50, 60, 70, 80, 90)},
    "greedy_optimal_gap": "what iou50 would gain if boxes were paired with objects optimally",
    "iou50_fixed_size": "iou50 of the same places with one size for all, the median of the true ones",
    "size_correlation": "correlation of predicted and true sizes, of detections near an object",
    "size_error": "mean absolute error of these sizes, in pixels",
    "size_error_constant": "the same of the best constant size",
    "precision": "share of the detections that are right: with an object of their class around their centre; in Gabor "
    "noise with an impulse within half a kernel's width",
    "recall": "share of the objects, or impulses, with a detection of their own like that",
    "precision_chance": "the precision of as many places drawn at random",
    "recall_close": "recall within half the least distance between two impulses",
    "recall_close_chance": "the same of places drawn at random",
    "rmse": "root mean square error of a pixel of the images redrawn from their parts; black is 0, white 1",
    "rmse_black": "the same of an all-black image, for comparison",
    "rmse_mean": "the same of the mean image, for comparison",
    "r2": "share of what varies in the images that is explained: 1 - (rmse / rmse_mean) squared",
    "count_error": "how far the number of objects is off, mean over images, where K is not told",
    "count_accuracy": "share of the images whose number of objects is right",
    "count_bias": "objects found minus true ones, mean over images: above 0 are too many, below too few",
    "count_error_mean": "the same of guessing the mean number of the training images, for comparison",
    "presence": "share of images and classes of which it is said rightly whether the class is there",
    "presence_guess": "the same of always saying what is true of most training images, for comparison",
    "f1": "of found and true objects, a box being right whose centre lies in a true box of its class",
    "precision_iou50": "the precision of boxes that overlap an object of their class by more than half (IoU > 0.5)",
    "recall_iou50": "the recall of such boxes",
    "f1_iou50": "the F1 of such boxes",
    "error": "share of the images taken for another class; of house numbers, those with any digit wrong",
    "outside_1": "share of what the spatial transformer (the first) reads outside the image",
    "outside_2": "the same of the second",
    "outside_3": "the same of the third",
    "outside_4": "the same of the fourth",
    "found": "detections in all images, those called background left out",
    "threshold": "the score from which boxes are counted",
    "images": "images measured",
    "objects": "objects in them",
}
WHOLE = ("images", "objects", "found")


@dataclass(frozen=True)
class Evaluate:
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        images: how many scenes.
        seed: of the scenes; the one of the training run if not given. Scenes of training, validation and test never
            share a digit, whatever the seed.
        split: which digits: those kept for tests, or those used to choose settings.
        json: a file to write the results to as well.
        record: a file for an entry of the ledger: the results with seed, steps, time, hardware, versions and commit.
            Its name without ending and "-seedN" is the entry's name; `mist results` makes a page of all entries.
        data_root: the folder that holds MNIST, if the model was trained on it, which the environment variable MIST_DATA
            says too; or the house numbers.
    """

    model: Model
    images: Number = 1000
    seed: OptionalNumber = None
    split: Literal["test", "validation"] = "test"
    json: OptionalFile = None
    record: OptionalFile = None
    data_root: OptionalFolder = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.images < 1:
            raise MistError(f"--images {self.images} measures nothing: give 1 or more")
        if self.seed is not None and self.seed < 0:
            raise MistError(f"--seed {self.seed} is negative: give 0 or more")
        for option, path in (("--json", self.json), ("--record", self.record)):
            if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise MistError(f"{option} {path} can't be written: give a file in a folder that exists")


def run(arguments: Sequence[str]) -> int:
    """Measures and prints."""
    request = parse(Evaluate, renamed(arguments, "--data.root", "--data-root"), "mist evaluate", DESCRIPTION)
    from mistnn.presets import evaluate_stored, restore

    seed = restore(request.model).data.seed if request.seed is None else request.seed
    with progress_bar("measuring") as progress:
        metrics = evaluate_stored(request.model, request.images, seed, request.data_root, request.split, progress)
    if request.json is not None:
        numbers = {name: int(value) if name in WHOLE else value for name, value in metrics.items()}
        _write_json(request.json, {"model": request.model, "split": request.split, "seed": seed, **numbers})
    if request.record is not None:
        from mistnn.reproduce.ledger import entry_name, make_entry, write_entry

        command = f"mist evaluate {request.model} --images {request.images}" + (
            "" if request.seed is None else f" --seed {request.seed}"
        )
        command += "" if request.split == "test" else f" --split {request.split}"
        name = entry_name(request.record)
        measured = int(metrics.get("images", request.images))  # there may be fewer
        note = "" if request.split == "test" else "Measured on validation scenes."
        entry = make_entry(request.model, metrics, measured, seed, command, name, note, request.data_root)
        write_entry(entry, request.record)
    # Shown last: a reader that goes away, such as `head`, must not cost the files.
    shown = [name for name in MEANINGS if name in metrics] + sorted(metrics.keys() - MEANINGS.keys())
    rows = [(name, _number(name, metrics[name]), MEANINGS.get(name, "")) for name in shown]
    show_table(("metric", "value", "meaning"), rows, numbers=("value",))
    return 0


def _number(name: str, value: float) -> str:
    return f"{value:,.0f}" if name in WHOLE else f"{value:.4f}"


def _write_json(path: Path, content: Mapping[str, str | float]) -> None:
    try:
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise MistError(f"--json {path} can't be written ({error.strerror}): give another file") from error
