"""Prediction over files and folders: two tables and drawings, written in one pass and in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from mistnn.data.images import PICTURE_FOLDERS, ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.errors import MistError
from mistnn.inference.coco import CocoCounts
from mistnn.inference.pictures import overlay_names, write_overlay, write_tensor
from mistnn.inference.predictor import Predictor
from mistnn.inference.stage import REPORT_FILE, Stage, Tally, settings_of, staged
from mistnn.inference.tables import Tables, open_tables
from mistnn.records import Detections

OVERLAYS_FOLDER, RECONSTRUCTIONS_FOLDER, RESIDUALS_FOLDER = PICTURE_FOLDERS

BATCH_SIZE = 32
"""Most images at once; large images go in smaller batches, see ``Predictor.max_pixels``."""


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
    place: int  # in the order of the files
    name: str
    picture: Image.Image
    tensor: Tensor


def predict_folder(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    k: int | None = None,
    force: bool = False,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
    coco: bool = False,
    resume: bool = False,
    report: Callable[[Path, PredictSummary], bytes] | None = None,
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

    Convention: images keep their size, see ``Predictor``. Images of one size that follow each other share a batch.

    Nothing appears under its final name before all is done; an error or Ctrl-C leaves what ``out`` holds as it was. If
    it has worked for more than ``stage.RECORD_SECONDS`` by then, a hidden folder in ``out`` keeps what it has, and with
    ``resume`` it goes on; the results are those of an uninterrupted run, byte for byte, on the same number of threads.
    Without ``resume`` it starts again.

    Args:
        predictor: the model.
        paths: files or folders, see ``find_images``.
        out: folder for the results, made if missing. It may lie in a folder of images: it is not searched.
        k: how many objects an image; if not given as many as the model counts, see ``Predictor.predict``.
        force: replaces results that ``out`` holds; its other files stay in any case.
        overlays: whether to draw.
        progress: called with (done, of how many) after each batch.
        coco: whether to write ``detections.json`` too, see ``coco_file``.
        resume: go on with a stopped or killed prediction of the same images with the same model and settings.
        report: makes the page about the results, ``REPORT_FILE``, of the folder that holds them by then and the
            summary; none is written if not given.

    Raises:
        MistError: k below 1 or more than the model can find in any image; no images; ``out`` is no folder, can't be
            written to, or holds results or a run; there is nothing to resume, or model, images or settings are others.
    """
    if k is not None and k < 1:
        raise MistError(f"--k must be at least 1, got {k}")
    out = Path(out)
    files = find_images(paths, exclude=out)
    settings = settings_of(predictor, files, k, overlays, coco, BATCH_SIZE, report is not None)
    with staged(out, force, settings, resume) as stage:
        tally = stage.record.tally
        if not stage.record.made:  # else it was stopped when only its results had to be moved
            _predict_into(stage, tally, predictor, files, k, overlays, progress, coco, keeps=report is not None)
            most = predictor.sought(k)
            if tally.images == 0 and tally.room:
                raise MistError(
                    f"--k is {most}, and this model finds at most {tally.room} objects in these images: give fewer"
                )
            if report is not None:
                (stage.folder / REPORT_FILE).write_bytes(report(stage.folder, _summary(tally)))
            stage.complete(tally)
    return _summary(tally)


def _summary(tally: Tally) -> PredictSummary:
    skipped = tuple(Skipped(name, reason) for _, name, reason in tally.skipped)
    return PredictSummary(tally.images, tally.detections, skipped, tally.approximate)


def _predict_into(
    stage: Stage,
    tally: Tally,
    predictor: Predictor,
    files: Sequence[ImageFile],
    k: int | None,
    overlays: bool,
    progress: Callable[[int, int], None] | None,
    coco: bool,
    keeps: bool,
) -> None:
    record, classes = stage.record, predictor.model.class_names
    most = predictor.sought(k)
    names = [file.name for file in files] if overlays else []
    drawings = overlay_names(names)
    rebuilds = overlay_names(names, (".png",)) if predictor.reconstructs else {}
    with open_tables(stage.folder, classes, coco, record.lengths, CocoCounts(*record.coco)) as tables:
        for batch in _batches(_usable(files, predictor, most, tally), predictor.max_pixels):
            _predict_batch(stage.folder, tables, predictor, batch, k, drawings, rebuilds, tally)
            tally.done = batch[-1].place + 1
            if stage.due:
                stage.keep(tally, tables.lengths(), CocoCounts() if tables.coco is None else tables.coco.counts)
            if progress is not None:
                progress(tally.images + len(tally.skipped), len(files))
        tally.done = len(files)
        if keeps:
            stage.keep(tally, tables.lengths(), CocoCounts() if tables.coco is None else tables.coco.counts)


def _predict_batch(
    folder: Path,
    tables: Tables,
    predictor: Predictor,
    batch: Sequence[_Opened],
    k: int | None,
    drawings: dict[str, str],
    rebuilds: dict[str, str],
    tally: Tally,
) -> None:
    """Predicts images of one size and writes all that there is to write of them."""
    images = torch.stack([one.tensor for one in batch])
    found = predictor.predict_batch(images, k)
    if rebuilds:
        for one, image, rebuilt in zip(batch, images, predictor.reconstruct(images, found), strict=True):
            write_tensor(folder / RECONSTRUCTIONS_FOLDER / rebuilds[one.name], rebuilt)
            write_tensor(folder / RESIDUALS_FOLDER / rebuilds[one.name], 0.5 + (image - rebuilt) / 2)
    for one, objects in zip(batch, found, strict=True):
        _write(folder, tables, predictor, one, objects, drawings)
        tally.images += 1
        tally.detections += len(objects.boxes)
        tally.approximate += predictor.is_approximate(one.picture.height, one.picture.width)


def _write(
    folder: Path, tables: Tables, predictor: Predictor, one: _Opened, found: Detections, drawings: dict[str, str]
) -> None:
    names = predictor.names(found)
    tables.add(one.name, one.picture.size, found, names)
    if drawings:
        write_overlay(folder / OVERLAYS_FOLDER / drawings[one.name], one.picture, found, names)


def _usable(files: Sequence[ImageFile], predictor: Predictor, k: int, tally: Tally) -> Iterator[_Opened]:
    """Opens one image after the other, from where the tally stands; those that can't be used go to it."""
    for place in range(tally.done, len(files)):
        file = files[place]
        try:
            picture = open_image(file.path)
        except UnreadableImage as error:
            tally.skipped.append((place, file.name, f"can't be read: {error}"))
            continue
        refusal = predictor.refusal(picture.height, picture.width, k)
        if refusal is not None:
            tally.skipped.append((place, file.name, refusal))
            most = predictor.most(picture.height, picture.width)
            tally.room = max(tally.room, most if most < k else 0)
            continue
        yield _Opened(place, file.name, picture, to_tensor(picture, predictor.model.config.channels))


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
