"""Prediction over files and folders: two tables and overlays, written in one pass with constant memory."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from mistnn.data.images import PAGES, PICTURE_FOLDERS, ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.data.text_files import listed
from mistnn.devices import is_out_of_memory
from mistnn.errors import MistError, MistWarning
from mistnn.files import locked
from mistnn.inference.coco import CocoCounts
from mistnn.inference.pictures import overlay_names, write_overlay, write_tensor
from mistnn.inference.predictor import Predictor
from mistnn.inference.stage import REPORT_FILE, Stage, Tally, settings_of, staged
from mistnn.inference.tables import COUNTS_FILE, Tables, open_tables

OVERLAYS_FOLDER, RECONSTRUCTIONS_FOLDER, RESIDUALS_FOLDER = PICTURE_FOLDERS

BATCH_SIZE = 32
"""Largest number of images in a batch; fewer if they are large, see ``Predictor.max_pixels``."""

NO_MEMORY = "needs more memory than there is: close other programs, or crop or shrink it"


class Skipped(NamedTuple):
    """An image that was skipped: its name in the results, and why, as the end of a sentence about the image."""

    file: str
    reason: str


class PredictSummary(NamedTuple):
    """The outcome of a prediction.

    Attributes:
        detections: number of objects found.
        skipped: the other images; the command then exits with code 1.
        approximate: number of large images that were processed in tiles, each normalised on its own, by a network that
            normalises over the whole image.
        at_limit: number of images in which the model found as many objects as it reports.
        limit: how many that are; the largest number if images differ.
        unlike: number of images that differ more from the training images than all validation images do.
    """

    images: int
    detections: int
    skipped: tuple[Skipped, ...]
    approximate: int
    at_limit: int = 0
    limit: int = 0
    unlike: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know before trusting the counts."""
        return tuple(note for note in (self.limit_note, self.unlike_note) if note)

    @property
    def unlike_note(self) -> str:
        """Says that images differ from those of the training, and what to do; empty if none does."""
        if not self.unlike:
            return ""
        return (
            f"{self.unlike:,} of {self.images:,} images differ more from the training images than all validation "
            f"images do: check their counts, and train on images like them (in {COUNTS_FILE} they have a 1 under "
            "unlike)"
        )

    @property
    def limit_note(self) -> str:
        """Says that counts may be too low because they reached the limit, and what to do; empty if none did."""
        if not self.at_limit:
            return ""
        return (
            f"in {self.at_limit:,} of {self.images:,} images the model found as many objects as it can report (at most "
            f"K = {self.limit:,}): there may be more. Train it on images that hold more objects, or with a larger --k "
            f"(in {COUNTS_FILE} these images have a 1 under at_limit)"
        )


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

    - ``detections.csv``: ``file,x,y,w,h,label,score``; one row per detection, the best of an image first; centre and
      size in pixels of the upright original, where pixel 0 spans 0 to 1; label empty for a model without classes;
      score 0-1.
    - ``counts.csv``: ``file,class,count,at_limit,low,high,unlike``; one row per image and class, zeros included;
      for a model without classes, one row per image with an empty class. ``at_limit`` is 1 if as many objects were
      found in the image as the model reports, so that there may be more, else 0; empty if K was given or the model
      can't count. In 80 % of images like those of the training, the true count is from ``low`` to ``high``; empty if
      unknown. ``unlike`` is 1 if the image differs more from the training images than all validation images do.
    - ``overlays/`` (empty without ``overlays``): each image with its boxes, under its own relative path and in its own
      file format, see ``overlay_names``.
    - ``reconstructions/`` and ``residuals/``, for a model that reconstructs, with ``overlays``: PNG files named like
      the overlays (".png" is appended to other suffixes) with the image as the sum of the objects found, and with
      the residual: half of (image - reconstruction) above and below middle grey.

    A ``MistWarning`` names files of several pages, of which only the first is used.

    Convention: images keep their size, see ``Predictor``. Consecutive images of one size share a batch.

    Results get their final names only when all is done; an error or Ctrl-C leaves the content of ``out`` unchanged.
    After ``stage.RECORD_SECONDS``, a hidden folder in ``out`` keeps the finished part, and ``resume`` continues from
    it. The results then equal those of an uninterrupted run byte for byte, on the same number of threads.

    Args:
        paths: files or folders, see ``find_images``.
        out: folder for the results, created if missing. It may lie in a folder of images: it is not searched.
        k: objects per image; if not given, as many as the model counts, see ``Predictor.predict``.
        force: replaces results in ``out``; other files there always stay.
        progress: called with (done, total) after each batch.
        coco: whether to write ``detections.json`` too, see ``coco_file``.
        resume: continue a stopped or killed prediction of the same images with the same model and settings.
        report: makes the page ``REPORT_FILE`` from the folder of the results and the summary; no page if not given.

    Raises:
        MistError: if k is below 1 or above what the model can find in any image; no k is given to a model that can't
            count yet (``Predictor.check_counting``); there are no images; ``out`` is not a folder, can't be written to,
            holds results or a run, or another process writes to it; there is nothing to resume, or it has another
            model, images or settings.
    """
    if k is not None and k < 1:
        raise MistError(f"--k must be at least 1, got {k}")
    predictor.check_counting(k)
    out = Path(out)
    with locked(out):
        files = find_images(paths, exclude=out)
        options = {"--k": k, "--overlays": overlays, "--coco": coco, "--report": report is not None}
        settings = settings_of(predictor, files, {**options, "images at once": BATCH_SIZE})
        with staged(out, force, settings, resume) as stage:
            job = _Job(predictor, files, k, overlays, stage, stage.record.tally, [])
            if not stage.record.made:  # else it was stopped while its results were moved
                job.run(coco, progress, keep=report is not None)
                if job.tally.images == 0 and job.tally.room:
                    raise MistError(
                        f"--k {predictor.sought(k)} is too large, since this model finds at most {job.tally.room} "
                        "objects in these images: give fewer"
                    )
                if report is not None:
                    (stage.folder / REPORT_FILE).write_bytes(report(stage.folder, job.summary))
                stage.complete(job.tally)
    if job.stacks:
        which = listed(job.stacks)
        warnings.warn(
            f"{len(job.stacks)} files hold several pages ({which}): only the first of each was used",
            MistWarning,
            stacklevel=2,
        )
    return job.summary


class _Job(NamedTuple):
    """A prediction in progress: its model and images, and where it stands."""

    predictor: Predictor
    files: Sequence[ImageFile]
    k: int | None
    overlays: bool
    stage: Stage
    tally: Tally
    stacks: list[str]  # "name: pages" of the files with several pages

    @property
    def summary(self) -> PredictSummary:
        skipped = tuple(Skipped(name, reason) for _, name, reason in self.tally.skipped)
        tally = self.tally
        return PredictSummary(tally.images, tally.detections, skipped, tally.approximate, *tally.flagged)

    def run(self, coco: bool, progress: Callable[[int, int], None] | None, keep: bool) -> None:
        """Predicts the remaining images; at the end records the progress if ``keep``."""
        record, classes, tally = self.stage.record, self.predictor.model.class_names, self.tally
        names = [file.name for file in self.files] if self.overlays else []
        overlays = overlay_names(names)
        rebuilds = overlay_names(names, (".png",)) if self.predictor.reconstructs else {}
        with open_tables(self.stage.folder, classes, coco, record.lengths, CocoCounts(*record.coco)) as tables:
            for batch in _batches(self.usable(), self.predictor.max_pixels):
                self.predict(batch, tables, overlays, rebuilds)
                tally.done = batch[-1].place + 1
                if self.stage.due:
                    self.stage.keep(tally, tables.lengths(), tables.coco_counts)
                if progress is not None:
                    progress(tally.images + len(tally.skipped), len(self.files))
            tally.done = len(self.files)
            if keep:
                self.stage.keep(tally, tables.lengths(), tables.coco_counts)

    def predict(
        self, batch: Sequence[_Opened], tables: Tables, overlays: dict[str, str], rebuilds: dict[str, str]
    ) -> None:
        """Predicts images of one size and writes all of their results.

        If memory is too small for all of them, they are predicted one by one; one that is too large alone is skipped.
        """
        predictor, folder, tally = self.predictor, self.stage.folder, self.tally
        try:
            images = torch.stack([one.tensor for one in batch])
            found = predictor.predict_batch(images, self.k)
            rebuilt_images = predictor.reconstruct(images, found) if rebuilds else images
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                tally.skipped.append((batch[0].place, batch[0].name, NO_MEMORY))
            for one in batch if len(batch) > 1 else ():
                self.predict([one], tables, overlays, rebuilds)
            return
        if rebuilds:
            for one, image, rebuilt in zip(batch, images, rebuilt_images, strict=True):
                write_tensor(folder / RECONSTRUCTIONS_FOLDER / rebuilds[one.name], rebuilt)
                write_tensor(folder / RESIDUALS_FOLDER / rebuilds[one.name], 0.5 + (image - rebuilt) / 2)
        for one, objects in zip(batch, found, strict=True):
            names = predictor.names(objects)
            height, width = one.picture.height, one.picture.width
            at_limit = predictor.at_limit(len(objects.boxes), height, width, self.k)
            intervals = () if self.k else predictor.model.intervals
            tables.add(one.name, one.picture.size, objects, names, at_limit, intervals)
            if overlays:
                write_overlay(folder / OVERLAYS_FOLDER / overlays[one.name], one.picture, objects, names)
            tally.images += 1
            tally.detections += len(objects.boxes)
            tally.unlike += objects.unlike is not None and objects.unlike > 1
            tally.approximate += predictor.is_approximate(height, width)
            if at_limit:
                tally.at_limit, tally.limit = tally.at_limit + 1, max(tally.limit, predictor.model.limit(height, width))

    def usable(self) -> Iterator[_Opened]:
        """Opens the images one by one, from where the tally stands; adds those that can't be used to it."""
        k, tally = self.predictor.sought(self.k), self.tally
        for place, file in enumerate(self.files[tally.done :], tally.done):
            try:
                picture = open_image(file.path)
                refusal = self.predictor.refusal(picture.height, picture.width, k)
                tensor = None if refusal else to_tensor(picture, self.predictor.model.config.channels)
            except UnreadableImage as error:
                tally.skipped.append((place, file.name, f"can't be read: {error}"))
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                tally.skipped.append((place, file.name, NO_MEMORY))
                continue
            if (pages := picture.info.get(PAGES, 1)) > 1:
                self.stacks.append(f"{file.name}: {pages}")
            if tensor is not None:
                yield _Opened(place, file.name, picture, tensor)
            elif refusal is not None:
                tally.skipped.append((place, file.name, refusal))
                most = self.predictor.model.most(picture.height, picture.width)
                tally.room = max(tally.room, most if most < k else 0)


def _batches(images: Iterable[_Opened], max_pixels: int) -> Iterator[list[_Opened]]:
    """Consecutive images of one size, at most ``BATCH_SIZE`` of them and ``max_pixels`` pixels, but at least one."""
    for (width, height), of_one_size in itertools.groupby(images, key=lambda one: one.picture.size):
        room = min(BATCH_SIZE, max(1, max_pixels // (width * height)))
        while batch := list(itertools.islice(of_one_size, room)):
            yield batch
