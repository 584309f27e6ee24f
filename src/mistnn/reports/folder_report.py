"""``mist report``: how well a trained model counts in an image folder, on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from mistnn.data import Split
from mistnn.data.folder.content import in_order_of
from mistnn.data.folder.images import load_image
from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.experiments.folder import FolderView, folder_metrics, seen_in_training, threshold_seen, view_folder
from mistnn.experiments.mist import learns_counts
from mistnn.inference import Predictor
from mistnn.inference.judged import JudgedScene, right_by_centre
from mistnn.nn.finder import Finder
from mistnn.reports.count_page import (
    Compared,
    CountPage,
    Example,
    Table,
    commonest,
    compared_in_words,
    heatmap_of,
    in_words,
    shrunk,
    signed,
)
from mistnn.training.runfolder import files_of_training
from mistnn.weights import load_model, package_version, read_config

Requested = Literal["test", "validation"]
EXAMPLES = 4  #: Best and worst images shown, of each.
HEATMAPS = 2
STOPPED = (
    "The training was stopped before its threshold was chosen. This report chose one by the validation images; "
    "`mist predict` needs the training to end: `mist train --resume`."
)


def report_on_folder(run: str, root: Path, split: Requested = "test", device: str = "cpu") -> CountPage:
    """Counts the objects in the images of a split and compares with the true counts.

    If the folder has no images of that split with counts, another split is used and a note says so.

    Raises:
        MistError: if the model was not trained on a folder, or does not count; if no image of the folder has counts.
    """
    experiment = restore(run)
    if not learns_counts(experiment):
        raise MistError(
            f"{run} was not trained on a folder of images with counts and can't count: `mist evaluate {run}` measures "
            "it, and `mist predict ... --report` shows what it finds"
        )
    model = cast(Finder, load_model(run).to(find_device(device)))
    own: Any = experiment.data
    data: Any
    seen = files_of_training(Path(run))
    data, all_measured = own.at(str(root)).for_measuring(seen, split)
    folder = in_order_of(data.content(), model.class_names)
    known = {image.split for image in folder.images if image.counts is not None}
    order: tuple[Split, ...] = (split, "test", "validation", "train")
    used: Split | None = next((one for one in order if one in known), None)
    if used is None:
        raise MistError(
            f"{root}: no image has counts to compare with; `mist evaluate` measures classes that are present, and "
            "`mist predict ... --report` makes a page without true counts"
        )
    view = view_folder(model, data, used)
    told = threshold_seen(seen, data) if used == "validation" else True
    lines = filter(None, (all_measured, seen_in_training(run, data, used)))
    notes = (*_notes(split, used, root, told), *(f"{line[0].upper()}{line[1:]}." for line in lines))
    if view.trained[0].split != "train":
        notes = (*notes, f"{root} has no training images with counts, so the mean is that of the images shown here.")
    return _page(run, root, model, view, notes if model.counts_itself or model.threshold else (*notes, STOPPED))


def _notes(requested: Requested, used: Split, root: Path, told: bool) -> tuple[str, ...]:
    """On the split; ``told``: whether the threshold was chosen by its validation images."""
    warnings = {
        "train": "The model was trained on these very images: its numbers here say little.",
        "validation": "The threshold was chosen on these images: the numbers may be slightly optimistic.",
    }
    missing = f"{root} has no {requested} images with counts, so its {used} images are used."
    note = f"{'' if used == requested else missing} {warnings.get(used, '') if told else ''}".strip()
    return (note,) if note else ()


def _page(run: str, root: Path, model: Finder, view: FolderView, notes: tuple[str, ...]) -> CountPage:
    names = list(model.class_names)
    metrics = folder_metrics(view, names)
    counted, true, mean = view.counted(), view.true(), view.mean()
    assert true is not None
    compared = {
        name: Compared(true[:, chosen].sum(1).tolist(), counted[:, chosen].sum(1).tolist(), float(mean[chosen].sum()))
        for name, _, chosen in _groups(names, all_first=True)
    }
    best, worst = _ranked(counted, true)
    ranked = {"Best counts": best[:EXAMPLES], "Worst counts": worst[:EXAMPLES]}
    examples = {name: [_example(view, place, names, model) for place in places] for name, places in ranked.items()}
    predictor = Predictor(model)
    shown = [best[0], *worst[: HEATMAPS - 1]]
    split = view.images[0].split
    return CountPage(
        title=f"Counting report: {root.resolve().name}",
        summary=_summary(metrics, names, split, view.trained[0].split == "train", root),
        notes=notes,
        class_names=model.class_names,
        unnamed=commonest(view.found, names),
        compared=compared,
        examples=examples,
        heatmaps=[_example(view, place, names, model, predictor) for place in shown],
        numbers=_numbers(metrics, names, counted, true),
        found=_found(metrics, names),
        images=_images(view, counted, true, names),
        repeat=f"mist report {run} --data-root {root}" + ("" if split == "test" else f" --split {split}"),
        settings=_settings(run, model, view),
    )


def _groups(names: Sequence[str], all_first: bool = False) -> list[tuple[str, str, list[int]]]:
    """Each class, and all classes if there are several: its name, the ending of its metrics, and the labels."""
    groups = [(name, f":{name}", [index]) for index, name in enumerate(names)]
    everything = [("all classes", "", list(range(len(names))))] if len(names) > 1 else []
    return everything + groups if all_first else groups + everything


def _summary(
    metrics: dict[str, float], names: Sequence[str], split: Split | None, of_training: bool, root: Path
) -> str:
    """The error beside that of the mean: ``of_training`` images, or of the measured ones."""
    kind = "training" if split == "train" else str(split)
    error, mean = metrics["count_error"], metrics["count_error_mean"]
    what = "objects" if len(names) > 1 else names[0]
    images = int(metrics["images"])
    text = (
        f"In {images:,} {kind} image{'' if images == 1 else 's'} of {root.resolve().name} the mean absolute error of "
        f"the number of {what} is {error:.2f}. Always predicting the mean of "
        f"{'the training' if of_training else 'these'} images would give {mean:.2f}."
    )
    return text if error < mean else text + " So the model does not count yet: it is no better than the mean."


def _ranked(counted: Tensor, true: Tensor) -> tuple[list[int], list[int]]:
    """Indices of the images by their error, best and worst first; among equal errors, most objects are best."""
    errors, objects = (counted - true).abs().sum(1).tolist(), true.sum(1).tolist()
    order = range(len(errors))
    best = sorted(order, key=lambda place: (errors[place], -objects[place], place))
    worst = sorted(order, key=lambda place: (-errors[place], place))
    chosen = set(best[:EXAMPLES])
    return best, [place for place in worst if place not in chosen and errors[place]]


def _example(
    view: FolderView, place: int, names: Sequence[str], model: Finder, predictor: Predictor | None = None
) -> Example:
    """An image in its original pixels, with a heat map if a predictor is given."""
    known, sample, zoom = view.images[place], view.samples[place], model.zoom
    found = view.found[place]
    assert found.labels is not None and sample.counts is not None
    counted = torch.bincount(found.labels, minlength=len(names)).tolist()
    true = sample.counts.tolist()
    image = load_image(known, model.config.channels)
    boxes = None if sample.boxes is None else sample.boxes / zoom
    original = found._replace(boxes=found.boxes / zoom)
    correct = None if boxes is None else right_by_centre(original, boxes, sample.labels)
    return Example(
        name=known.name,
        scene=shrunk(JudgedScene(image, original, boxes, sample.labels, correct)),
        words=f"counted {in_words(counted, names)}; true: {in_words(true, names)}",
        verdict=compared_in_words(counted, true, names),
        good=counted == true,
        heatmap=None if predictor is None else heatmap_of(predictor, image),
    )


def _numbers(metrics: dict[str, float], names: Sequence[str], counted: Tensor, true: Tensor) -> Table:
    rows = []
    bias = (counted - true).double().mean(0)
    for name, ending, chosen in _groups(names):
        errors = (f"{metrics[key + ending]:.2f}" for key in ("count_error", "count_error_mean"))
        totals = (str(int(counts[:, chosen].sum())) for counts in (true, counted))
        rows.append((name, *totals, *errors, signed(float(bias[chosen].sum()))))
    return Table(("class", "true", "counted", "error", "baseline", "bias"), rows)


def _found(metrics: dict[str, float], names: Sequence[str]) -> Table | None:
    if "f1" not in metrics:
        return None
    rows = []
    for name, ending, _ in _groups(names):
        values = [metrics.get(key + ending, math.nan) for key in ("precision", "recall", "f1")]
        rows.append((name, *("–" if math.isnan(value) else f"{value:.3f}" for value in values)))
    return Table(("class", "precision", "recall", "F1"), rows)


def _images(view: FolderView, counted: Tensor, true: Tensor, names: Sequence[str]) -> Table:
    rows = []
    for image, ours, known in zip(view.images, counted.tolist(), true.tolist(), strict=True):
        pairs = (f"{own} of {wanted}" for own, wanted in zip(ours, known, strict=True))
        rows.append((image.name, *pairs, f"{sum(ours) - sum(known):+d}".replace("+0", "0")))
    return Table(("image: counted of true", *names, "difference"), sorted(rows, key=lambda row: row[0]))


def _settings(run: str, model: Finder, view: FolderView) -> dict[str, str]:
    record = read_config(run).training
    settings = {
        "model": run,
        "K": f"{model.config.k}, the maximum number of objects per image",
        "threshold": f"{view.threshold:.4g}; boxes with lower scores are not counted",
        "image scale": f"{model.zoom:g}, so that objects are {model.config.box_size:g} px",
    }
    if record is not None:
        settings["training"] = f"{record.steps:,} steps in {record.seconds / 60:.0f} min"
    return {**settings, "versions": f"mistnn {package_version()}, torch {torch.__version__}"}
