"""What a model that is being trained finds in some validation images: boxes and heat maps."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mistnn.data.folder.content import in_order_of, read_folder
from mistnn.data.folder.images import FolderImage, evenly, known_images
from mistnn.data.images import UnreadableImage, open_image, to_tensor
from mistnn.errors import MistError
from mistnn.inference import Predictor
from mistnn.inference.pictures import displayed
from mistnn.reports.count_page import compared_in_words, heatmap_of
from mistnn.training.runfolder import MODEL
from mistnn.viz import draw_heatmap
from mistnn.viz.overlay import class_colour, draw_detections
from mistnn.viz.saving import figure_to_png
from mistnn.web.labels import COUNTS_FILE

SHOWN = 3
"""Images that are shown."""
SIDE = 420
"""The longest side of a picture, in pixels."""


@dataclass
class Watched:
    """The pictures of one state of a model, so that they are drawn once, or why there are none."""

    state: tuple[Any, ...] = ()
    trouble: str = ""
    pictures: list[tuple[Image.Image, str]] = field(default_factory=list)


def watched_images(watched: Watched, run: Path, root: Path) -> list[tuple[Image.Image, str]]:
    """Pictures and what they show: for each image its boxes, and its heat map if the model has one.

    The images are validation images with counts; training images if there are none. If the folder, the model or an
    image can't be used, there are no pictures, and ``watched.trouble`` says why. They are tried again when the model or
    the table of counts has changed.
    """
    state = (run, _changed(run / MODEL), _changed(root / COUNTS_FILE))
    if watched.state != state:
        watched.state, watched.trouble, watched.pictures = state, "", []
        try:
            watched.pictures = _all_drawn(run, root)
        except (MistError, UnreadableImage) as error:
            watched.trouble = f"the pictures can't be drawn ({error})"
    return watched.pictures


def _changed(path: Path) -> int | None:
    """When a file was changed; ``None`` if it isn't there, as while it is replaced."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _all_drawn(run: Path, root: Path) -> list[tuple[Image.Image, str]]:
    predictor = Predictor.from_pretrained(run)
    folder = in_order_of(read_folder(root), predictor.model.class_names)
    images = known_images(folder, "validation") or known_images(folder, "train")
    return [one for image in evenly(images, SHOWN) for one in _drawn(predictor, image)]


def _drawn(predictor: Predictor, image: FolderImage) -> list[tuple[Image.Image, str]]:
    counts = image.counts or ()
    k = sum(counts) if predictor.finds_k or predictor.uncounted is not None else None  # it can't count yet
    stored = open_image(image.path)
    pixels = to_tensor(stored, predictor.model.config.channels)  # as in prediction: 16 bits are not stretched
    picture = displayed(stored)
    found = predictor.predict(pixels, k)
    names = predictor.model.class_names
    labels = [0] * len(found) if found.labels is None else found.labels.tolist()
    texts = [names[label] for label in labels] if len(names) > 1 else None
    drawn = draw_detections(picture, found.boxes.tolist(), texts, [class_colour(label) for label in labels])
    numbers = [labels.count(label) for label in range(max(1, len(names)))]
    said = compared_in_words(numbers, counts, names) if names and counts else f"{len(found)} found"
    shown = [(_small(drawn), f"{image.name}: {said}")]
    heatmap = heatmap_of(predictor, pixels)
    if heatmap is not None:
        shown.append((_small(Image.open(io.BytesIO(figure_to_png(draw_heatmap(heatmap, inches=4))))), "its heat map"))
    return shown


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return picture
