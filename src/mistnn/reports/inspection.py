"""``mist inspect``: the content of an image folder: images, counts, splits, object size, and a contact sheet."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from mistnn.data import FolderImage, OwnFolder, SizeSuggestion, Split, read_folder
from mistnn.data.folder.copies import copy_notes
from mistnn.data.folder.images import evenly, known_images, measured_images, undecodable
from mistnn.data.images import UnreadableImage, open_image, to_tensor
from mistnn.errors import MistError
from mistnn.experiments.folder_plan import folder_size
from mistnn.files import replace_file
from mistnn.inference import Predictor
from mistnn.inference.pictures import displayed
from mistnn.records import Detections
from mistnn.viz import draw_scenes, figure_to_png

SHEET_IMAGES = 12  #: Images on the contact sheet, evenly spaced.
SHEET_SIDE = 400  #: Longer side in pixels of an image on the sheet.
SHEET_INCHES = 2.4
TITLE_LETTERS = 36  #: Letters that fit above an image.
BINS, BAR = 6, 30  #: Rows of a histogram, and characters of its longest bar.
SHOWN_CLASSES = 20
SHOWN_MISFITS = 12
TRIED_BYTES = 2 << 30
"""Files that are decoded to find broken ones, beside the images that are measured or shown: 15 s on two cores for PNG
files, which are the slowest."""


class Inspection(NamedTuple):
    """The content of a folder.

    Attributes:
        folder: its files, as read.
        size: of the objects, estimated.
        k: the largest number of objects in a training image; ``None`` if no training image has counts.
        given_k: the user's K, if given.
        sheet: some images and their titles.
        notes: remarks and problems, one line each, including images that can't be decoded.
    """

    folder: OwnFolder
    size: SizeSuggestion
    k: int | None
    given_k: int | None
    sheet: tuple[tuple[Tensor, str], ...]
    notes: tuple[str, ...]


def inspect_folder(root: Path, progress: Callable[[int, int], None] | None = None, k: int | None = None) -> Inspection:
    """Reads a folder, see ``mistnn.data.folder.content``, and decodes its images: ``TRIED_BYTES`` of them.

    Args:
        root: the folder.
        progress: called with (decoded, total).
        k: the number of objects per image, if the folder has no counts.

    Raises:
        MistError: if the folder can't be used, or none of the images that were tried can be decoded.
    """
    folder = read_folder(root)
    training = [image for image in folder.images if image.split == "train" and image.counts is not None]
    measured = measured_images(folder)
    shown = evenly(folder.images, SHEET_IMAGES)
    tried = list({image.name: image for image in (*measured, *shown)}.values())
    pictures: dict[str, Tensor] = {}
    broken: dict[str, str] = {}
    others = _others(folder, tried)
    total = len(tried) + len(others)
    for done, image in enumerate(tried, start=1):
        try:
            picture = open_image(image.path)
        except UnreadableImage as error:
            broken[image.name] = str(error)
        else:
            picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
            pictures[image.name] = to_tensor(displayed(picture), 3)
        if progress is not None:
            progress(done, total)
    readable = [image for image in measured if image.name in pictures]
    if not readable:
        first, *_ = _undecoded_notes(broken, 0)
        raise MistError(f"none of the {len(measured)} images of {root} that were tried can be used: {first}")
    tell = None if progress is None else lambda done, of: progress(len(tried) + done, total)
    notes = _undecoded_notes(broken | undecodable(others, tell), len(folder.images) - total)
    return Inspection(
        folder=folder,
        size=folder_size(folder, readable, k),
        k=max((sum(image.counts or ()) for image in training), default=None),
        given_k=k,
        sheet=tuple((pictures[image.name], _title(image, folder)) for image in shown if image.name in pictures),
        notes=(*folder.notes, *copy_notes(folder.images), *notes),
    )


def _others(folder: OwnFolder, tried: Sequence[FolderImage]) -> list[FolderImage]:
    """Images that were not tried, up to ``TRIED_BYTES`` of their files, those for training and validation first."""
    names = {image.name for image in tried}
    used = {image.name for split in ("train", "validation") for image in known_images(folder, split)}
    rest = sorted((image for image in folder.images if image.name not in names), key=lambda one: one.name not in used)
    sizes = itertools.accumulate(image.path.stat().st_size for image in rest)
    return [image for image, size in zip(rest, sizes, strict=True) if size <= TRIED_BYTES]


def _undecoded_notes(broken: dict[str, str], untried: int) -> list[str]:
    """Notes on images that can't be decoded, and on those that were not tried."""
    shown = list(broken.items())[:SHOWN_MISFITS]
    notes = [f"{name} can't be decoded ({why}): fix it, or remove it from the folder" for name, why in shown]
    if len(broken) > len(shown):
        notes.append(f"{len(broken) - len(shown):,} more images can't be decoded")
    if untried:
        notes.append(
            f"{untried:,} images were not decoded, which would take long: `mist train` tries those for training and "
            "validation before its first step"
        )
    return notes


def describe(found: Inspection) -> list[str]:
    """The content of a folder as lines of text."""
    folder = found.folder
    sizes = Counter((image.width, image.height) for image in folder.images)
    width, height = sizes.most_common(1)[0][0]
    others = f" most often, {len(sizes)} sizes in all" if len(sizes) > 1 else ""
    boxed = sum(image.boxes is not None for image in folder.images)
    lines = [
        f"images       {len(folder.images):,}, {width} x {height} px{others}",
        f"known from   {folder.counts_from}" + (f"; {boxed:,} images have boxes" if boxed else ""),
    ]
    for split in get_args(Split):
        images = [image for image in folder.images if image.split == split]
        known = [image.counts for image in images if image.counts is not None]
        text = f", {len(known):,} with counts, {sum(map(sum, known)):,} objects" if known else ""
        lines.append(f"{split:<12} {len(images):,} images{text}")
    k = "unknown: no training image has counts" if found.k is None else f"{found.k}, the most in a training image"
    k = k if found.given_k is None else f"{found.given_k}, as given"
    lines += [f"largest count  {k}", f"object size  about {found.size.size:.0f} px: {found.size.why}"]
    for index, name in enumerate(folder.class_names[:SHOWN_CLASSES]):
        lines += ["", *_describe_class(index, name, folder)]
    if len(folder.class_names) > SHOWN_CLASSES:
        lines += ["", f"and {len(folder.class_names) - SHOWN_CLASSES} more classes"]
    if found.notes:
        lines += ["", "notes", *(f"  - {note}" for note in found.notes)]
    return lines


def describe_fit(found: Inspection, predictor: Predictor) -> list[str]:
    """Which images a model can't process, and which hold more objects than it has slots, as lines of text.

    The ``given_k`` of the folder stands for missing counts.
    """
    images = found.folder.images
    refused, full = [], []
    for image in images:
        reason = predictor.refusal(image.height, image.width, predictor.sought(None))
        objects = (found.given_k or 0) if image.counts is None else sum(image.counts)
        slots = predictor.model.limit(image.height, image.width)
        if reason is not None:
            refused.append(f"{image.name} {reason}")
        elif objects > slots:
            full.append((objects, slots, image.name))
    lines = []
    if refused:
        lines += [f"model        can't process {len(refused):,} of {len(images):,} images:", *_first(refused)]
    if full:
        lines.append(
            f"model        more objects than slots in {len(full):,} of {len(images):,} images: cut such images into "
            "parts, train a model on images that hold more objects, or predict with --k"
        )
        full.sort(reverse=True)
        lines += _first([f"{name} holds {objects}, slots in its size: {slots}" for objects, slots, name in full])
    return lines or [f"model        can process all {len(images):,} images, and has slots for all known objects"]


def _first(items: list[str]) -> list[str]:
    shown = [f"  - {item}" for item in items[:SHOWN_MISFITS]]
    return shown if len(items) <= SHOWN_MISFITS else [*shown, f"  and {len(items) - SHOWN_MISFITS:,} more"]


def _describe_class(index: int, name: str, folder: OwnFolder) -> list[str]:
    if folder.counts_from == "labels.csv":
        present = [image.present[index] for image in folder.images if image.present is not None]
        return [f"{name}: in {sum(present):,} of {len(present):,} images"]
    counts = [image.counts[index] for image in folder.images if image.counts is not None]
    if not counts:
        return [f"{name}: no counts"]
    low, high = min(counts), max(counts)
    middle = statistics.median(counts)
    lines = [f"{name}: {low} to {high} per image, median {middle:g}, {sum(counts):,} in {len(counts):,} images"]
    step = math.ceil((high - low + 1) / BINS)
    bins = Counter((count - low) // step for count in counts)
    for place in range(math.ceil((high - low + 1) / step)):
        first, last = low + place * step, min(low + (place + 1) * step - 1, high)
        label = str(first) if first == last else f"{first}-{last}"
        bar = "#" * math.ceil(BAR * bins[place] / max(bins.values()))
        lines.append(f"  {label:>9}  {bar:<{BAR}}  {bins[place]:,} images".replace(" 1 images", " 1 image"))
    return lines


def _title(image: FolderImage, folder: OwnFolder) -> str:
    """The counts, or else the classes that are present, or else the name."""
    parts = [image.name.encode("utf-8", "replace").decode()]
    if image.counts is not None:
        parts = [f"{name} {count}" for name, count in zip(folder.class_names, image.counts, strict=True) if count]
    elif image.present is not None:
        parts = [name for name, there in zip(folder.class_names, image.present, strict=True) if there]
    text = ", ".join(parts) or "nothing"
    return text if len(text) <= TITLE_LETTERS else text[: TITLE_LETTERS - 3] + "..."


def sheet_path(root: Path, out: Path | None) -> Path | None:
    """The path of the contact sheet: ``out``, or NAME-contact-sheet.png in the current folder.

    Returns:
        The path; ``None`` if the default would be inside the folder, which is never written to.

    Raises:
        MistError: if ``out`` is inside the folder, or can't be written.
    """
    path = Path(f"{root.resolve().name}-contact-sheet.png") if out is None else out
    if path.resolve().is_relative_to(root.resolve()):
        if out is None:
            return None
        raise MistError(f"--out {out} lies in {root}, which is never written to: give a file elsewhere")
    if path.suffix.lower() != ".png" or path.is_dir() or not path.absolute().parent.is_dir():
        raise MistError(f"--out {path} can't be written: give a file that ends in .png, in a folder that exists")
    return path


def write_sheet(found: Inspection, path: Path) -> None:
    """Draws the contact sheet. Raises ``MistError`` if it can't be written."""
    pictures, titles = [picture for picture, _ in found.sheet], [title for _, title in found.sheet]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0))
    figure = draw_scenes(pictures, [nothing] * len(pictures), titles=titles, inches=SHEET_INCHES)
    try:
        replace_file(path, figure_to_png(figure))
    except OSError as error:
        raise MistError(f"--out {path} can't be written ({error.strerror}): give another file") from error
