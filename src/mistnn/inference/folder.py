"""Prediction over files and folders: two tables and drawings, written in one pass and in flat memory."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mistnn.data.images import PICTURE_FOLDERS, ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.errors import MistError
from mistnn.inference.coco import coco_file
from mistnn.inference.predictor import Predictor
from mistnn.records import Detections
from mistnn.viz.overlay import class_colour, draw_detections

DETECTIONS_FILE, COUNTS_FILE = "detections.csv", "counts.csv"
OVERLAYS_FOLDER, RECONSTRUCTIONS_FOLDER, RESIDUALS_FOLDER = PICTURE_FOLDERS
COCO_FILE = "detections.json"
RESULTS = (DETECTIONS_FILE, COUNTS_FILE, COCO_FILE, *PICTURE_FOLDERS)

BATCH_SIZE = 32
"""Most images at once; large images go in smaller batches, see ``Predictor.max_pixels``."""

_STAGE = ".predict.part"
# A training run lives here: results are not mixed into it unasked.
_RUN = ("config.json", "model.safetensors", "metrics.jsonl", "metrics.json", "checkpoint", "report.html")
# Pillow's writer for each suffix; anything else is written as PNG, see ``overlay_names``.
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".gif": ("GIF", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".webp": ("WEBP", {"quality": 90}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".pbm": ("PPM", {}),
    ".pnm": ("PPM", {}),
}


class Skipped(NamedTuple):
    """An image that was passed over.

    Attributes:
        file: its name in the results.
        reason: why, in a few words.
    """

    file: str
    reason: str


class PredictSummary(NamedTuple):
    """What became of the images.

    Attributes:
        images: how many were predicted.
        detections: how many objects were found in them.
        skipped: those passed over; the command ends with exit code 1 if there are any.
        approximate: how many were too large for a network that normalises over the whole image, and went through it
            in tiles that were normalised on their own.
    """

    images: int
    detections: int
    skipped: tuple[Skipped, ...]
    approximate: int


class _Opened(NamedTuple):
    name: str
    picture: Image.Image
    tensor: Tensor


@dataclass
class _Tally:
    images: int = 0
    detections: int = 0
    approximate: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    # Most objects that fit into an image that has room for fewer than K; 0 if there is no such image.
    room: int = 0


def predict_folder(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    k: int | None = None,
    force: bool = False,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
    coco: bool = False,
) -> PredictSummary:
    """Predicts all images in files and folders and writes the results.

    Writes, in UTF-8:

    - ``detections.csv``: ``file,x,y,w,h,label,score``; a row a detection, the best of an image first; centre and size
      in pixels of the upright original, pixel 0 spans 0 to 1; label empty if the model has no classes; score 0-1.
    - ``counts.csv``: ``file,class,count``; a row for each class of each image, zeros included; one row with an empty
      class if the model has none.
    - ``overlays/`` (empty if ``overlays`` is off): a drawing for each image under its own relative path and in its own
      file format; a file whose suffix is not that of an image gets ".png" appended, or "-2.png" and so on where another
      image has that name.

    - ``reconstructions/`` and ``residuals/``, of a model that reconstructs, unless ``overlays`` is off: PNG files named
      like the drawings (".png" appended where they are not PNG) with the image as the sum of the parts found, and with
      what that leaves unexplained: half of (image - reconstruction) above and below a middle grey.

    Convention: images keep their size, see ``Predictor``. Nothing appears under its final name before all is done; an
    error or Ctrl-C leaves ``out`` as it was. Images of one size that follow each other share a batch.

    Args:
        predictor: the model.
        paths: files or folders, see ``find_images``.
        out: folder for the results, made if missing. It may lie in a folder of images: it is not searched.
        k: how many objects an image; if not given as many as the model counts, see ``Predictor.predict``.
        force: replaces results that ``out`` holds; its other files stay in any case.
        overlays: whether to draw.
        progress: called with (done, of how many) after each batch.
        coco: whether to write ``detections.json`` too, see ``coco_file``.

    Raises:
        MistError: k below 1 or more than the model can find in any image; no images; ``out`` is no folder, can't be
            written to, or holds results or a run.
    """
    if k is not None and k < 1:
        raise MistError(f"--k must be at least 1, got {k}")
    out = Path(out)
    files = find_images(paths, exclude=out)
    with _staged(out, force) as stage:
        return _predict_into(stage, predictor, files, k, overlays, progress, coco)


def _predict_into(
    stage: Path,
    predictor: Predictor,
    files: Sequence[ImageFile],
    k: int | None,
    overlays: bool,
    progress: Callable[[int, int], None] | None,
    coco: bool,
) -> PredictSummary:
    tally = _Tally()
    most = predictor.model.config.k if k is None else k
    drawings = overlay_names([file.name for file in files]) if overlays else {}
    rebuilds = overlay_names([file.name for file in files], (".png",)) if overlays and predictor.reconstructs else {}
    classes = predictor.model.class_names
    with (
        _table(stage / DETECTIONS_FILE) as detection_table,
        _table(stage / COUNTS_FILE) as count_table,
        coco_file(stage / COCO_FILE, classes) if coco else contextlib.nullcontext() as coco_writer,
    ):
        detection_table.writerow(("file", "x", "y", "w", "h", "label", "score"))
        count_table.writerow(("file", "class", "count"))
        for batch in _batches(_usable(files, predictor, most, tally), predictor.max_pixels):
            images = torch.stack([one.tensor for one in batch])
            found = predictor.predict_batch(images, k)
            if rebuilds:
                for one, image, rebuilt in zip(batch, images, predictor.reconstruct(images, found), strict=True):
                    _write_tensor(stage / RECONSTRUCTIONS_FOLDER / rebuilds[one.name], rebuilt)
                    _write_tensor(stage / RESIDUALS_FOLDER / rebuilds[one.name], 0.5 + (image - rebuilt) / 2)
            for one, objects in zip(batch, found, strict=True):
                names = predictor.names(objects)
                detection_table.writerows(_detection_rows(one.name, objects, names))
                count_table.writerows(_count_rows(one.name, names, classes))
                if coco_writer is not None:
                    coco_writer.add(one.name, one.picture.width, one.picture.height, objects)
                if overlays:
                    _write_overlay(stage / OVERLAYS_FOLDER / drawings[one.name], one.picture, objects, names)
                tally.images += 1
                tally.detections += len(names)
                tally.approximate += predictor.is_approximate(one.picture.height, one.picture.width)
            if progress is not None:
                progress(tally.images + len(tally.skipped), len(files))
    if tally.images == 0 and tally.room:
        raise MistError(f"--k is {most}, and this model finds at most {tally.room} objects in these images: give fewer")
    return PredictSummary(tally.images, tally.detections, tuple(tally.skipped), tally.approximate)


def _usable(files: Sequence[ImageFile], predictor: Predictor, k: int, tally: _Tally) -> Iterator[_Opened]:
    """Opens one image after the other; those that can't be used go to the tally."""
    for file in files:
        try:
            picture = open_image(file.path)
        except UnreadableImage as error:
            tally.skipped.append(Skipped(file.name, f"can't be read: {error}"))
            continue
        refusal = predictor.refusal(picture.height, picture.width, k)
        if refusal is not None:
            tally.skipped.append(Skipped(file.name, refusal))
            most = predictor.most(picture.height, picture.width)
            tally.room = max(tally.room, most if most < k else 0)
            continue
        yield _Opened(file.name, picture, to_tensor(picture, predictor.model.config.channels))


def _batches(images: Iterable[_Opened], max_pixels: int) -> Iterator[list[_Opened]]:
    """Neighbours of one size together, at most ``BATCH_SIZE`` of them and ``max_pixels`` pixels, but at least one."""
    batch: list[_Opened] = []
    for image in images:
        size = image.picture.size
        room = min(BATCH_SIZE, max(1, max_pixels // (size[0] * size[1])))
        if batch and (batch[0].picture.size != size or len(batch) >= room):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _detection_rows(name: str, found: Detections, labels: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), labels, strict=True):
        yield (name, *(f"{value:.4f}" for value in box), label, f"{score:.6f}")


def _count_rows(name: str, labels: Sequence[str], classes: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    counts = Counter(labels)
    for label in classes or ("",):
        yield name, label, counts[label]


def overlay_names(names: Sequence[str], suffixes: Iterable[str] = tuple(_WRITERS)) -> dict[str, str]:
    """The path of each image's drawing below the folder of drawings; no two are the same.

    Convention: an image's own name, with ".png" appended if its suffix is none of those that are written. Where that is
    the name of another image, or of a folder of images, "-2.png" is appended, "-3.png" and so on.
    """
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    drawable = {name for name in names if PurePosixPath(name).suffix.lower() in suffixes and name not in folders}
    taken, drawings = drawable | folders, {name: name for name in drawable}
    for name in names:
        if name not in drawable:
            endings = itertools.chain((".png",), (f"-{number}.png" for number in itertools.count(2)))
            drawings[name] = next(name + ending for ending in endings if name + ending not in taken)
            taken.add(drawings[name])
    return drawings


def _write_overlay(path: Path, picture: Image.Image, found: Detections, names: Sequence[str]) -> None:
    if found.labels is None:
        # A model without classes has nothing to write on a box but how sure it is.
        drawn = draw_detections(_display(picture), found.boxes.tolist(), [f"{s:.2f}" for s in found.scores.tolist()])
    else:
        colours = [class_colour(index) for index in found.labels.tolist()]
        drawn = draw_detections(_display(picture), found.boxes.tolist(), names, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    form, options = _WRITERS[path.suffix.lower()]
    drawn.save(path, format=form, **options)


def _write_tensor(path: Path, image: Float[Tensor, "channels height width"]) -> None:
    """An image in [0, 1], beyond that clipped, as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(path, format="PNG", compress_level=3)


def _display(picture: Image.Image) -> Image.Image:
    """8 bits for the eye: 16-bit images are brightened to their maximum, many cameras fill only 12 bits."""
    if picture.mode not in ("I", "F"):
        return picture
    values = np.asarray(picture, dtype=np.float32)
    top = max(float(values.max()), 1.0)
    return Image.fromarray((values * (255 / top)).astype(np.uint8))


class _UnixRows:
    r"""A file for the csv writer, whose rows end in "\n".

    The writer itself ends them with "\r\n": with anything else, Python before 3.13 leaves a lone "\r" unquoted.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


@contextlib.contextmanager
def _table(path: Path) -> Iterator[Any]:
    # surrogateescape: a file name need not be valid UTF-8 on Linux, and is written as the bytes it is.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield csv.writer(_UnixRows(file))


@contextlib.contextmanager
def _staged(out: Path, force: bool) -> Iterator[Path]:
    """A folder inside ``out`` whose results move up when the block ends well, and vanish when it doesn't."""
    if out.exists() and not out.is_dir():
        raise MistError(f"--out {out} is a file: give a folder")
    held = [name for name in (*RESULTS, *_RUN) if os.path.lexists(out / name)]
    if held and not force:
        raise MistError(
            f"--out {out} already holds {', '.join(held)}: give another folder, or --force to replace results"
        )
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    stage = out / _STAGE
    done = False
    try:
        shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
        (stage / OVERLAYS_FOLDER).mkdir(parents=True)
        yield stage
        _publish(stage, out)
        done = True
    except OSError as error:
        raise MistError(
            f"can't write to --out {out} ({error.strerror or error}): give a folder that can be written to, with room"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not done:
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _publish(stage: Path, out: Path) -> None:
    old = stage / "old"
    old.mkdir()
    for name in RESULTS:
        if os.path.lexists(out / name):
            os.replace(out / name, old / name)
        if (stage / name).exists():
            os.replace(stage / name, out / name)
