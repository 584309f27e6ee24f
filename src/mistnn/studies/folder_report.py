"""``mist report``: how well a trained model counts in a folder of your own, as one page to look at and to send."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mistnn.data import FolderConfig, Split
from mistnn.data.folder.content import in_order_of, read_folder
from mistnn.data.folder.images import load_image
from mistnn.errors import MistError
from mistnn.files import replace_file
from mistnn.inference import Predictor
from mistnn.models.mist import Mist
from mistnn.presets import restore
from mistnn.presets.own_folder import FolderView, folder_metrics, view_folder
from mistnn.studies.count_examples import (
    commonest,
    compared_in_words,
    heatmap_of,
    in_words,
    right_by_centre,
    shrunk,
)
from mistnn.studies.count_page import Compared, CountPage, Example, Table, render_counts, signed
from mistnn.weights import load_model, package_version, read_config

Asked = Literal["test", "validation"]
EXAMPLES = 4
"""Best and worst images shown, of each."""
HEATMAPS = 2


def report_on_folder(run: str, root: Path, split: Asked = "test") -> CountPage:
    """Counts in the images of a split and compares with the truth.

    Args:
        run: the model, a run folder that was trained on a folder.
        root: the folder of images with their counts.
        split: which images; where the folder has none for it, others, and a note says so.

    Raises:
        MistError: the model was not trained on a folder, or counts nothing; no image of the folder has counts.
    """
    experiment, model = restore(run), load_model(run)
    if not isinstance(experiment.data, FolderConfig) or not isinstance(model, Mist):
        raise MistError(f"{run} was not trained on a folder of images: `mist evaluate {run}` measures it")
    if not model.class_names:
        raise MistError(
            f"{run} was trained without counts and can't count: `mist evaluate {run} --data-root {root}` tells how "
            "well it redraws the images, and `mist predict ... --report` shows what it finds"
        )
    data = dataclasses.replace(experiment.data, root=str(root))
    folder = in_order_of(read_folder(root), model.class_names)
    known = {image.split for image in folder.images if image.counts is not None}
    order: tuple[Split, ...] = (split, *_others(split))
    used: Split | None = next((one for one in order if one in known), None)
    if used is None:
        raise MistError(
            f"{root}: no image has counts to compare with; `mist evaluate` tells of classes that are present, and "
            "`mist predict ... --report` makes a page without truth"
        )
    view = view_folder(model, data, used)
    return _page(run, root, model, view, _notes(split, used, root))


def _others(split: Asked) -> tuple[Split, ...]:
    return ("validation" if split == "test" else "test", "train")


def _notes(asked: Asked, used: Split, root: Path) -> tuple[str, ...]:
    warnings = {
        "train": "The model has learnt from these very images: its numbers here say little.",
        "validation": "The threshold was chosen on these images: the numbers may be a little too good.",
    }
    missing = "" if used == asked else f"{root} has no {asked} images with counts, so these are its {used} images."
    return tuple(note for note in (" ".join((missing, warnings.get(used, ""))).strip(),) if note)


def _page(run: str, root: Path, model: Mist, view: FolderView, notes: tuple[str, ...]) -> CountPage:
    names = list(model.class_names)
    metrics = folder_metrics(view, names)
    counted, true, mean = view.counted(), view.true(), view.mean()
    assert true is not None
    compared = {
        name: Compared(true[:, at].tolist(), counted[:, at].tolist(), float(mean[at])) for at, name in enumerate(names)
    }
    if len(names) > 1:
        compared = {"all together": Compared(_sum(true), _sum(counted), float(mean.sum())), **compared}
    best, worst = _ranked(counted, true)
    examples = {
        "Where it counts best": [_example(view, place, names, model) for place in best[:EXAMPLES]],
        "Where it is furthest off": [_example(view, place, names, model) for place in worst[:EXAMPLES]],
    }
    predictor = Predictor(model)
    shown = [best[0], *worst[: HEATMAPS - 1]]
    split = view.images[0].split
    return CountPage(
        title=f"How well it counts: {root.resolve().name}",
        summary=_summary(metrics, names, "training" if split == "train" else str(split), root),
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


def _sum(counts: Tensor) -> list[int]:
    return counts.sum(1).tolist()


def _summary(metrics: dict[str, float], names: Sequence[str], split: str, root: Path) -> str:
    """What a reader should take home, in words."""
    error, mean = metrics["count_error"], metrics["count_error_mean"]
    what = "objects" if len(names) > 1 else f"{names[0]}"
    images = int(metrics["images"])
    text = (
        f"In {images:,} {split} image{'' if images == 1 else 's'} of {root.resolve().name} its number of {what} is off "
        f"by {error:.2f} an image on average. Always guessing the mean of the training images would be off by "
        f"{mean:.2f}."
    )
    if error >= mean:
        return text + " So it does not count yet: it is no better than guessing."
    return text


def _ranked(counted: Tensor, true: Tensor) -> tuple[list[int], list[int]]:
    """Places of the images, the best counted first and the worst counted first.

    The error of an image is the sum over classes; of equally good ones those with most objects come first, since they
    are harder.
    """
    errors, objects = (counted - true).abs().sum(1).tolist(), _sum(true)
    order = range(len(errors))
    best = sorted(order, key=lambda place: (errors[place], -objects[place], place))
    worst = sorted(order, key=lambda place: (-errors[place], place))
    chosen = set(best[:EXAMPLES])
    return best, [place for place in worst if place not in chosen and errors[place]]


def _example(
    view: FolderView, place: int, names: Sequence[str], model: Mist, predictor: Predictor | None = None
) -> Example:
    """An image in its own pixels, with a heat map if a predictor is given."""
    known, sample, zoom = view.images[place], view.samples[place], model.zoom
    found = view.found[place]
    assert found.labels is not None and sample.counts is not None
    counted = torch.bincount(found.labels, minlength=len(names)).tolist()
    true = sample.counts.tolist()
    image = load_image(known, model.config.channels)
    boxes = None if sample.boxes is None else sample.boxes / zoom
    mine = found._replace(boxes=found.boxes / zoom)
    return shrunk(
        Example(
            name=known.name,
            image=image,
            found=mine,
            words=f"counted {in_words(counted, names)}; true {in_words(true, names)}",
            verdict=compared_in_words(counted, true, names),
            good=counted == true,
            boxes=boxes,
            labels=sample.labels,
            correct=None if boxes is None else right_by_centre(mine, boxes, sample.labels),
            heatmap=None if predictor is None else heatmap_of(predictor, image),
        )
    )


def _numbers(metrics: dict[str, float], names: Sequence[str], counted: Tensor, true: Tensor) -> Table:
    rows = []
    lean = (counted - true).double().mean(0)
    for at, name in enumerate(names):
        one = (f"{metrics[f'{key}:{name}']:.2f}" for key in ("count_error", "count_error_mean"))
        rows.append((name, str(int(true[:, at].sum())), str(int(counted[:, at].sum())), *one, signed(float(lean[at]))))
    if len(names) > 1:
        error, mean = (f"{metrics[key]:.2f}" for key in ("count_error", "count_error_mean"))
        both = (str(int(true.sum())), str(int(counted.sum())))
        rows.append(("all together", *both, error, mean, signed(float(lean.sum()))))
    return Table(("class", "true", "counted", "off by", "guessing the mean", "leans"), rows)


def _found(metrics: dict[str, float], names: Sequence[str]) -> Table | None:
    if "f1" not in metrics:
        return None
    rows = []
    for name, end in (*((name, f":{name}") for name in names), *((("all together", ""),) if len(names) > 1 else ())):
        values = [metrics.get(f"{key}{end}", math.nan) for key in ("precision", "recall", "f1")]
        rows.append((name, *("–" if math.isnan(value) else f"{value:.3f}" for value in values)))
    return Table(("class", "precision", "recall", "F1"), rows)


def _images(view: FolderView, counted: Tensor, true: Tensor, names: Sequence[str]) -> Table:
    rows = []
    for place, image in enumerate(view.images):
        pairs = [
            f"{own} of {wanted}" for own, wanted in zip(counted[place].tolist(), true[place].tolist(), strict=True)
        ]
        rows.append((image.name, *pairs, f"{int((counted[place] - true[place]).sum()):+d}".replace("+0", "0")))
    rows.sort(key=lambda row: row[0])
    return Table(("image: counted of true", *names, "too many (+) or few (-)"), rows)


def _settings(run: str, model: Mist, view: FolderView) -> dict[str, str]:
    record = read_config(run).training
    settings = {
        "model": run,
        "K": f"{model.config.k}, the most it can find in an image",
        "threshold": f"{view.threshold:.4g}: boxes that score less are not counted",
        "images are resized by": f"{model.zoom:g}, so that objects are {model.config.box_size:g} px",
    }
    if record is not None:
        settings["training"] = f"{record.steps:,} steps in {record.seconds / 60:.0f} min"
    return {**settings, "versions": f"mistnn {package_version()}, torch {torch.__version__}"}


def write_page(page: CountPage, path: Path, option: str) -> None:
    """Writes a page, in full or not at all.

    Raises:
        MistError: if it can't be written.
    """
    try:
        replace_file(path, render_counts(page).encode("utf-8", "replace"))
    except OSError as error:
        raise MistError(f"{option} {path} can't be written ({error.strerror}): give another file") from error
