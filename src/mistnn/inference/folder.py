"""Prediction over files and folders: two tables and overlays, written in one pass with constant memory."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mistnn.data.images import (
    PAGES,
    PICTURE_FOLDERS,
    ImageFile,
    UnreadableImage,
    find_images,
    open_image,
    quiet_pillow,
    to_tensor,
)
from mistnn.data.text_files import listed
from mistnn.devices import is_out_of_memory
from mistnn.errors import MistError, MistWarning
from mistnn.files import locked
from mistnn.inference.ahead import Admit, Drawings, read_ahead, usual_threads
from mistnn.inference.coco import CocoCounts
from mistnn.inference.pictures import as_pixels, overlay_names, write_overlay, write_pixels
from mistnn.inference.predictor import Predictor
from mistnn.inference.stage import REPORT_FILE, Settings, Stage, Tally, settings_of, shared_stage, staged
from mistnn.inference.tables import COUNTS_FILE, Tables, open_tables
from mistnn.processes import Processes, alone
from mistnn.records import Detections

OVERLAYS_FOLDER, RECONSTRUCTIONS_FOLDER, RESIDUALS_FOLDER = PICTURE_FOLDERS

BATCH_SIZE = 32
"""Files in a block, and so the largest number of images in a batch; fewer if they are large, see
``Predictor.max_pixels``."""

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


def predict_folder(
    predictor: Predictor,
    paths: Sequence[Path | str | ImageFile],
    out: Path | str,
    k: int | None = None,
    force: bool = False,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
    coco: bool = False,
    resume: bool = False,
    report: Callable[[Path, PredictSummary], bytes] | None = None,
    workers: int | None = None,
    processes: Processes | None = None,
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
      unknown, and where ``at_limit`` is 1. ``unlike`` is 1 if the image differs more from the training images than all
      validation images do.
    - ``overlays/`` (empty without ``overlays``): each image with its boxes, under its own relative path and in its own
      file format, see ``overlay_names``.
    - ``reconstructions/`` and ``residuals/``, for a model that reconstructs, with ``overlays``: PNG files named like
      the overlays (".png" is appended to other suffixes) with the image as the sum of the objects found, and with
      the residual: half of (image - reconstruction) above and below middle grey.

    A ``MistWarning`` names files of several pages, of which only the first is used.

    Convention: images keep their size, see ``Predictor``. Images of one size among ``BATCH_SIZE`` consecutive files
    share a batch.

    Results get their final names only when all is done; an error or Ctrl-C leaves the content of ``out`` unchanged.
    After ``stage.RECORD_SECONDS``, a hidden folder in ``out`` keeps the finished part, and ``resume`` continues from
    it. The results then equal those of an uninterrupted run byte for byte, on the same number of threads.

    Several ``processes`` each predict a part of the files, all in the same order, and the main one joins their tables.
    The results equal those of one process byte for byte, on the same number of threads in each.

    Args:
        paths: files, folders or named files, see ``find_images``.
        out: folder for the results, created if missing. It may lie in a folder of images, or hold some: its pictures of
            results are not searched.
        k: objects per image; if not given, as many as the model counts, see ``Predictor.predict``.
        force: replaces results in ``out``; other files there always stay.
        progress: called with (done, total) after each batch.
        coco: whether to write ``detections.json`` too, see ``coco_file``.
        resume: continue a stopped or killed prediction of the same images with the same model and settings.
        report: makes the page ``REPORT_FILE`` from the folder of the results and the summary; no page if not given.
        workers: threads that read images, and as many that draw; by default one for each processor, at most 8.
        processes: those that share the prediction, each with its own ``predictor``; by default only this one.

    Returns:
        What was predicted; in another process than the main one, only its own part.

    Raises:
        MistError: if k is below 1 or above what the model can find in any image; no k is given to a model that can't
            count yet (``Predictor.check_counting``); there are no images; ``out`` is not a folder, can't be written to,
            holds results or a run, or another process writes to it; there is nothing to resume, or it has another
            model, images or settings; or a process that shares the prediction has stopped, or sees other images.
    """
    for name, number in (("--k", k), ("--workers", workers)):
        if number is not None and number < 1:
            raise MistError(f"{name} must be at least 1, got {number}")
    predictor.check_counting(k)
    out, processes = Path(out), alone(predictor.device) if processes is None else processes
    with contextlib.ExitStack() as opened:
        stage, files = _opened(opened, predictor, paths, out, force, resume, processes, {
            "--k": k, "--overlays": overlays, "--coco": coco, "--report": report is not None,
            "images at once": BATCH_SIZE, "processes": processes.count,
        })  # fmt: skip
        job = _Job(predictor, files, k, overlays, stage, processes, workers or usual_threads(), stage.record.tally)
        if not stage.record.made:  # else it was stopped while its results were moved
            job.run(coco, progress, keep=report is not None)
            if processes.main:
                if job.tally.images == 0 and job.tally.room:
                    raise MistError(
                        f"--k {predictor.sought(k)} is too large, since this model finds at most {job.tally.room} "
                        "objects in these images: give fewer"
                    )
                if report is not None:
                    (stage.folder / REPORT_FILE).write_bytes(report(stage.folder, job.summary))
                stage.complete(job.tally)
    processes.wait()
    if (stacks := job.tally.stacks) and processes.main:
        warnings.warn(
            f"{len(stacks)} files hold several pages ({listed(stacks)}): only the first of each was used",
            MistWarning,
            stacklevel=2,
        )
    return job.summary


def _opened(
    opened: contextlib.ExitStack,
    predictor: Predictor,
    paths: Sequence[Path | str | ImageFile],
    out: Path,
    force: bool,
    resume: bool,
    processes: Processes,
    options: Settings,
) -> tuple[Stage, Sequence[ImageFile]]:
    """Locks ``out``, finds the images and opens the stage; in all processes, or it raises in all of them."""
    stage, failed = None, True
    try:
        if processes.main:
            opened.enter_context(locked(out))
        files = find_images(paths, exclude=out)
        settings = settings_of(predictor, files, options)
        if processes.main:
            stage = opened.enter_context(staged(out, force, settings, resume, processes.count > 1))
        failed = False
    finally:
        others_failed = processes.any(failed)
    if others_failed:
        raise MistError("another process could not begin: see its message")
    if not processes.agree(json.dumps(settings, default=str)):
        raise MistError(
            "the processes see different images, models or options: give all of them the same files, for example on a "
            "shared disk, and the same versions"
        )
    if stage is None:
        stage = opened.enter_context(shared_stage(out, settings, resume, processes.rank))
    return stage, files


class _Read(NamedTuple):
    """An image file that was read: its place among all files, its name in the results, and its content or a reason.

    Attributes:
        size: width and height.
        picture: ``None`` unless it will be drawn.
        tensor: ``None`` for an image that can't be used.
        reason: why it can't be used.
        most: how many objects could be found in it, if that is too few, else 0.
        pages: "name: pages", if there are several.
    """

    place: int
    name: str
    size: tuple[int, int] = (0, 0)
    picture: Image.Image | None = None
    tensor: Tensor | None = None
    reason: str = ""
    most: int = 0
    pages: str = ""


class _Found(NamedTuple):
    """The objects of an image, which no longer holds its pixels, and the pictures of it that are being written."""

    image: _Read
    objects: Detections
    limit: int
    approximate: bool
    drawings: tuple[Future[None], ...]


class _Job:
    """A prediction in progress: its model and images, and where it stands.

    Images are processed in blocks of ``BATCH_SIZE`` consecutive files. Those of one size in a block share a batch, and
    no batch reaches over the end of a block. So results don't depend on which process has which blocks, nor on where
    a prediction was stopped.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: Sequence[ImageFile],
        k: int | None,
        overlays: bool,
        stage: Stage,
        processes: Processes,
        threads: int,
        tally: Tally,
    ) -> None:
        self.predictor, self.files, self.k, self.stage, self.tally = predictor, files, k, stage, tally
        self.broken = False
        self.processes, self.threads = processes, threads
        names = [file.name for file in files] if overlays else []
        self.overlays = overlay_names(names)
        self.rebuilds = overlay_names(names, (".png",)) if predictor.reconstructs else {}
        blocks = -(-len(files) // BATCH_SIZE)
        rank, count = processes.rank, processes.count
        self.first = BATCH_SIZE * (blocks * rank // count)
        self.last = min(len(files), BATCH_SIZE * (blocks * (rank + 1) // count))
        self.why_not = functools.cache(lambda height, width: predictor.refusal(height, width, predictor.sought(k)))

    @property
    def summary(self) -> PredictSummary:
        skipped = tuple(Skipped(name, reason) for _, name, reason in self.tally.skipped)
        tally = self.tally
        return PredictSummary(tally.images, tally.detections, skipped, tally.approximate, *tally.flagged)

    def run(self, coco: bool, progress: Callable[[int, int], None] | None, keep: bool) -> None:
        """Predicts the remaining images of this process; at the end records the progress if ``keep``.

        The main process then waits for the others and appends their tables.
        """
        stage, record, classes = self.stage, self.stage.record, self.predictor.model.class_names
        main, several = self.processes.main, self.processes.count > 1
        counts = CocoCounts(*record.coco)
        with open_tables(stage.folder, classes, coco, record.lengths, counts, part=not main) as tables:
            # One thread writes the tables while the next block is predicted. After an error it still ends its block.
            with quiet_pillow(), Drawings(self.threads) as drawings, ThreadPoolExecutor(1, "write") as writer:
                written: deque[Future[None]] = deque()
                with contextlib.closing(self.blocks(drawings)) as blocks:
                    for block in blocks:
                        written.append(writer.submit(self.write, block, tables))
                        if len(written) > 1:
                            written.popleft().result()
                        if progress is not None:
                            progress(self.tally.done, self.last - self.first)
                for future in written:
                    future.result()
                if progress is not None:
                    progress(self.tally.done, self.last - self.first)
            if keep or several:
                stage.keep(self.tally, tables.lengths(), tables.coco_counts)
            self.processes.wait()
            if main and several:
                for folder, other in stage.others(self.processes.count):
                    tables.append(folder)
                    self.tally = self.tally.plus(other.tally)

    def blocks(self, drawings: Drawings) -> Generator[list[_Read | _Found], None, None]:
        """The results of each block, from where the tally stands, in the order of the files."""
        places = range(self.first + self.tally.done, self.last)
        with contextlib.closing(read_ahead(places, self.read, self.threads, BATCH_SIZE)) as images:
            while block := list(self.predicted(itertools.islice(images, BATCH_SIZE), drawings)):
                yield sorted(block, key=lambda one: one.place if isinstance(one, _Read) else one.image.place)

    def predicted(self, images: Iterable[_Read], drawings: Drawings) -> Iterator[_Read | _Found]:
        """The results of one block, and its images that can't be used."""
        waiting: dict[tuple[int, int], list[_Read]] = {}
        pixels = 0
        for image in images:
            if image.tensor is None:
                yield image
                continue
            area = image.size[0] * image.size[1]
            if waiting and pixels + area > self.predictor.max_pixels:
                for batch in waiting.values():
                    yield from self.predict(batch, drawings)
                waiting, pixels = {}, 0
            waiting.setdefault(image.size, []).append(image)
            pixels += area
        for batch in waiting.values():
            yield from self.predict(batch, drawings)

    def predict(self, batch: Sequence[_Read], drawings: Drawings) -> Iterator[_Read | _Found]:
        """Predicts images of one size and starts to write their pictures.

        If memory is too small for all of them, they are predicted one by one; one that is too large alone is skipped.
        """
        predictor = self.predictor
        self.stage.working_on([image.name for image in batch])
        try:
            images = torch.stack([image.tensor for image in batch if image.tensor is not None])
            found = predictor.predict_batch(images, self.k)
            rebuilt = as_pixels(predictor.reconstruct(images, found), images) if self.rebuilds else ()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                yield batch[0]._replace(picture=None, tensor=None, reason=NO_MEMORY)
            for image in batch if len(batch) > 1 else ():
                yield from self.predict([image], drawings)
            return
        width, height = batch[0].size
        limit, approximate = predictor.model.limit(height, width), predictor.is_approximate(height, width)
        for index, (image, objects) in enumerate(zip(batch, found, strict=True)):
            drawn = []
            if self.overlays:
                drawn.append(drawings.add(width * height, functools.partial(self.draw, image, objects)))
            if self.rebuilds:
                parts = [one[index] for one in rebuilt]
                drawn.append(drawings.add(width * height, functools.partial(self.draw_parts, image.name, parts)))
            yield _Found(image._replace(picture=None, tensor=None), objects, limit, approximate, tuple(drawn))

    def draw(self, image: _Read, objects: Detections) -> None:
        """Writes the overlay of an image; one class is not named at each box, which would hide small objects."""
        assert image.picture is not None
        path = self.stage.whole / OVERLAYS_FOLDER / self.overlays[image.name]
        names = self.predictor.names(objects)
        if len(self.predictor.model.class_names) == 1:
            names = [""] * len(names)
        write_overlay(path, image.picture, objects, names)

    def draw_parts(self, name: str, pictures: Sequence[np.ndarray]) -> None:
        """Writes the reconstruction and the residual of an image."""
        for folder, pixels in zip((RECONSTRUCTIONS_FOLDER, RESIDUALS_FOLDER), pictures, strict=True):
            write_pixels(self.stage.whole / folder / self.rebuilds[name], pixels)

    def write(self, block: Sequence[_Read | _Found], tables: Tables) -> None:
        """Writes the rows of a block once its pictures are written, and counts it as done.

        After a block that failed, no other is written: it would be counted in place of that one.
        """
        if self.broken:
            return
        self.broken = True  # until all of it is written
        predictor, tally = self.predictor, self.tally
        counting = predictor.says_limits(self.k)
        for one in block:
            image = one.image if isinstance(one, _Found) else one
            if image.pages:
                tally.stacks.append(image.pages)
            if isinstance(one, _Read):
                tally.skipped.append((one.place, one.name, one.reason))
                tally.room = max(tally.room, one.most)
                continue
            for drawing in one.drawings:
                drawing.result()
            number = len(one.objects.boxes)
            at_limit = number >= one.limit if counting else None
            intervals = () if self.k else predictor.model.intervals
            tables.add(image.name, image.size, one.objects, predictor.names(one.objects), at_limit, intervals)
            tally.images += 1
            tally.detections += number
            tally.unlike += one.objects.unlike is not None and one.objects.unlike > 1
            tally.approximate += one.approximate
            if at_limit:
                tally.at_limit, tally.limit = tally.at_limit + 1, max(tally.limit, one.limit)
        tally.done += len(block)
        if self.stage.due:
            self.stage.keep(tally, tables.lengths(), tables.coco_counts)
        self.broken = False

    def read(self, place: int, admit: Admit) -> _Read:
        """Reads an image, or says why it can't be used."""
        file = self.files[place]
        nothing = _Read(place, file.name)
        try:
            picture = open_image(file.path, admit=admit)
            refusal = self.why_not(picture.height, picture.width)
            tensor = None if refusal else to_tensor(picture, self.predictor.model.config.channels)
        except UnreadableImage as error:
            return nothing._replace(reason=f"can't be read: {error}")
        except Exception as error:
            if is_out_of_memory(error):
                return nothing._replace(reason=NO_MEMORY)
            error.add_note(f"mist: while reading {file.path}")
            raise
        if (pages := picture.info.get(PAGES, 1)) > 1:
            nothing = nothing._replace(pages=f"{file.name}: {pages}")
        if refusal is None:
            return nothing._replace(size=picture.size, picture=picture if self.overlays else None, tensor=tensor)
        most = self.predictor.model.most(picture.height, picture.width)
        return nothing._replace(reason=refusal, most=most if most < self.predictor.sought(self.k) else 0)
