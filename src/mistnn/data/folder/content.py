"""The content of an image folder: its images, and their counts, labels, boxes and splits.

::

    my-folder/
      images/          or JPEGImages/, or the images in my-folder itself; subfolders are searched too
      counts.csv       file,class,count; or file and one column per class; or file,count; counts.tsv and .xlsx, too
      labels.csv       instead: file,class, or file and one column of 0 and 1 per class: only which classes are present
      Annotations/     PASCAL VOC XML, or COCO JSON, or boxes.json: boxes, for evaluation only
      ImageSets/Main/  train.txt, val.txt, test.txt: the images of each split

Everything but the images is optional. Without a table, counts are the numbers of boxes; without boxes, counts are
unknown. See ``mistnn.data.folder.tables`` and ``mistnn.data.folder.annotations`` for the formats.

Splits come from the first of: ``ImageSets/Main``; a column ``split`` of the table; a ``split`` in ``boxes.json``;
folders called train, val (or valid, validation) and test that hold all images; a hash of each image's name without its
suffix. The hash puts about 70 % in train, 15 % in validation and 15 % in test, independently of the other images; a
split that would be empty gets the image with the nearest hash. If one of the first three exists, an image that it does
not name is in no split.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mistnn.data.corners import centred
from mistnn.data.folder.annotations import Annotation, Annotations, read_annotations
from mistnn.data.folder.files import ImageFiles, ImageHeader, NameMatcher, read_image_files
from mistnn.data.folder.other_tools import other_annotations, unread_tables
from mistnn.data.folder.tables import PREDICTED, SPLIT_WORDS, TABLE_SUFFIXES, Table, alike, odd_names, read_table
from mistnn.data.images import DETECTIONS_FILE, PICTURE_FOLDERS, SUFFIXES, holds_results, is_hidden
from mistnn.data.random_numbers import hash_share
from mistnn.data.text_files import check_file, check_name, listed, printable, read_text
from mistnn.errors import MistError
from mistnn.interfaces import Split

CountsFrom = Literal["counts.csv", "labels.csv", "boxes", "nothing"]

LISTS: Mapping[str, Split] = {"train.txt": "train", "val.txt": "validation", "test.txt": "test"}
TRAIN_SHARE, VALIDATION_SHARE = 0.70, 0.15  #: Shares of the splits by hash; the rest is for testing (our choice).
OUTLIER_FACTOR, OUTLIER_LEAST = 5, 10
"""A count above 10 and above 5 x the median over images that hold the class is noted as suspicious (our choice)."""

SHOWN_REASONS = 3
_SPLIT_LIKE = re.compile(r"(?<![a-z])(train(ing)?|val(idation)?|test(ing)?)(?![a-z])", re.IGNORECASE)
SHOWN_NOTES = 3
FEW_IMAGES = 3
"""A class that fewer training images hold is named."""


class FolderImage(NamedTuple):
    """An image and its annotations; unknown ones are ``None``."""

    name: str  #: Path relative to the folder of the images, with "/".
    path: Path
    width: int
    height: int
    counts: tuple[int, ...] | None
    present: tuple[bool, ...] | None
    #: (objects, 4), centre x, centre y, width, height in pixels; for evaluation only.
    boxes: Float[np.ndarray, "n 4"] | None
    labels: Int[np.ndarray, " n"] | None  #: (objects,), the class of each box.
    split: Split | None
    #: Returns an image that is not a file, (channels, height, width) in [0, 1], given the number of channels.
    load: Callable[[int], Tensor] | None = None


class OwnFolder(NamedTuple):
    """The content of an image folder."""

    root: Path
    images: tuple[FolderImage, ...]  #: The usable images, sorted by name.
    class_names: tuple[str, ...]  #: The order of counts, presence and labels; empty if nothing is known.
    counts_from: CountsFrom  #: The source of counts or presence.
    notes: tuple[str, ...]  #: Information and warnings, one line each.
    hashed: bool = False  #: Whether a hash of the names chose the splits, since nothing else says them.


def noticed(folder: OwnFolder) -> list[str]:
    """The first notes about a folder, for users who haven't inspected it, and how many there are besides."""
    shown, more = folder.notes[:SHOWN_NOTES], len(folder.notes) - SHOWN_NOTES
    return [*shown, *([f"more notes about the folder: {more}; `mist inspect {folder.root}` shows them"] * (more > 0))]


def in_order_of(folder: OwnFolder, class_names: Sequence[str]) -> OwnFolder:
    """The folder with its classes in the order of a model's; raises ``MistError`` if they are not the same classes."""
    if set(folder.class_names) != set(class_names) or len(folder.class_names) != len(class_names):
        own = f"has the classes {', '.join(folder.class_names)}" if folder.class_names else "has no counts and no boxes"
        trained = f"the model was trained on {', '.join(class_names)}"
        raise MistError(f"{folder.root} {own}, and {trained}: give a folder with the same classes")
    order = [folder.class_names.index(name) for name in class_names]
    place = np.argsort(order)
    images = tuple(
        image._replace(
            counts=None if image.counts is None else tuple(image.counts[at] for at in order),
            present=None if image.present is None else tuple(image.present[at] for at in order),
            labels=None if image.labels is None else place[image.labels],
        )
        for image in folder.images
    )
    return folder._replace(images=images, class_names=tuple(class_names))


def read_folder(root: Path | str) -> OwnFolder:
    """Reads a folder, see the module; no image is decoded.

    Raises:
        MistError: if there is no folder or no usable image, if a table or a list is not understood, or if there is no
            table and no annotation can be used; the message names the file, the row, the value and the fix.
    """
    root = Path(root)
    files = read_image_files(root)
    matcher = NameMatcher([header.name for header in files.headers] + list(files.left_out))
    annotations = read_annotations(root, files, matcher)
    counts_from, table, notes = _read_known(root, files, matcher, annotations)
    drawn, class_notes = _of_classes(annotations.of_image, table, counts_from)
    splits, split_notes, hashed = _splits(root, files, matcher, table, drawn)
    images = tuple(
        _image(header, table, drawn.get(header.name), counts_from, splits.get(header.name)) for header in files.headers
    )
    notes = [*table.notes, *notes, *_beside(root, files), *_file_notes(files), *annotations.notes]
    notes += other_annotations(root, files, annotations.used)
    notes += class_notes
    if counts_from == "counts.csv":
        notes += _disagreements(table, drawn)
    if counts_from == "nothing":
        notes += unread_tables(root, files)
    notes += [*split_notes, *_count_notes(images, table, counts_from)]
    for name in table.class_names:
        check_name(name, f"{root}, {counts_from}")
    return OwnFolder(root, images, table.class_names, counts_from, tuple(map(printable, notes)), hashed)


def _read_known(
    root: Path, files: ImageFiles, matcher: NameMatcher, annotations: Annotations
) -> tuple[CountsFrom, Table, list[str]]:
    """The counts or labels, and their source."""
    (counts, more), (labels, _) = (_find(name, root, files.folder) for name in ("counts", "labels"))
    if counts is not None:
        notes = [] if labels is None else [f"{labels.name} isn't used: {counts.name} contains more information"]
        notes += [f"{path.name} isn't used: {counts.name} is" for path in more]
        inner = None if counts.parent == files.folder else _find("counts", files.folder)[0]
        notes += [] if inner is None else [f"{inner.relative_to(root)} isn't used: {counts.relative_to(root)} is"]
        table = read_table(counts, matcher, "counts")
        if holds_results(counts.parent) and not any(PREDICTED in note for note in table.notes):
            notes += [f"{counts} lies beside a {DETECTIONS_FILE}: {PREDICTED}"]
        return "counts.csv", table, notes
    if labels is not None:
        return "labels.csv", read_table(labels, matcher, "labels"), []
    if not annotations.of_image and annotations.problems:
        raise MistError(annotations.problems[0])  # left out, nothing would be known
    if not annotations.source:
        return "nothing", Table((), {}, {}, ()), []
    classes = tuple(sorted({label for one in annotations.of_image.values() for label in one.classes}))
    counted = {name: tuple(one.classes.count(label) for label in classes) for name, one in annotations.of_image.items()}
    note = f"there is no counts.csv and no labels.csv: counts are the numbers of boxes in {annotations.source}"
    return "boxes", Table(classes, counted, {}, ()), [note, *alike(classes), *odd_names(classes)]


def _of_classes(
    drawn: dict[str, Annotation], table: Table, counts_from: CountsFrom
) -> tuple[dict[str, Annotation], list[str]]:
    """The annotations, without boxes if none is of a class of the table; and notes on classes that only one has."""
    labels = {label for one in drawn.values() for label in one.classes}
    other = sorted(labels - set(table.class_names))
    if not other or counts_from == "nothing":
        return drawn, []
    if labels & set(table.class_names):
        return drawn, [f"boxes of {listed(other)} are ignored: {counts_from} does not have this class"]
    # Images whose boxes are all ignored would else be taken for images without objects.
    without = {name: one._replace(corners=None) for name, one in drawn.items()}
    return without, [
        f"boxes of {listed(other)} are ignored, so nothing is measured by boxes: {counts_from} has the classes "
        f"{listed(table.class_names)}; write the same names in both"
    ]


def _disagreements(table: Table, drawn: Mapping[str, Annotation]) -> list[str]:
    """A note on images with other numbers of boxes than counts, of the classes that have both."""
    shared = set(table.class_names) & {label for one in drawn.values() for label in one.classes}
    differ = []
    for name, one in drawn.items():
        for label, count in zip(table.class_names, table.values.get(name, ()), strict=False):
            if label in shared and one.classes.count(label) != count:
                differ.append(f"{name}: {count} {label} and {one.classes.count(label)} boxes")
    images = len({one.partition(": ")[0] for one in differ})
    if not differ:
        return []
    return [f"the counts differ from the numbers of boxes in {images} images ({listed(differ)}): the counts are used"]


def _find(stem: str, *folders: Path) -> tuple[Path | None, list[Path]]:
    """The table of a name in the first folder that has one, ignoring case, and those of other formats beside it.

    The order of the formats is that of ``TABLE_SUFFIXES``.
    """
    names = [stem + suffix for suffix in TABLE_SUFFIXES]
    for folder in folders:
        found = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
        there = [found[name] for name in names if name in found]
        if there:
            check_file(there[0])
            return there[0], there[1:]
    return None, []


def _image(
    header: ImageHeader, table: Table, drawn: Annotation | None, counts_from: CountsFrom, split: Split | None
) -> FolderImage:
    values = table.values.get(header.name)
    boxes = labels = None
    if drawn is not None and drawn.corners is not None:
        kept = [index for index, label in enumerate(drawn.labels) if label in table.class_names]
        boxes = centred(drawn.corners[kept])
        labels = np.array([table.class_names.index(drawn.labels[index]) for index in kept], dtype=np.int64)
    counts = None if counts_from == "labels.csv" else values
    present = None if values is None else tuple(value > 0 for value in values)
    return FolderImage(header.name, header.path, header.width, header.height, counts, present, boxes, labels, split)


def _splits(
    root: Path, files: ImageFiles, matcher: NameMatcher, table: Table, drawn: Mapping[str, Annotation]
) -> tuple[dict[str, Split], list[str], bool]:
    """The splits of the images, notes, and whether a hash chose the splits."""
    names = [header.name for header in files.headers]
    notes: list[str] = []
    sources = {
        "ImageSets/Main": _listed_splits(root, matcher, notes),
        "the column split": table.splits,
        "boxes.json": _named({name: one.split for name, one in drawn.items()}),
        "the folders": _folder_splits(names),
        "a hash": _hashed_splits(names),
    }
    source, splits = next((source, splits) for source, splits in sources.items() if splits)
    notes += _no_splits(names) if source == "a hash" else []
    notes += [] if source == "ImageSets/Main" else _other_lists(root, files)
    if missing := [name for name in names if name not in splits]:
        notes.append(f"{len(missing)} images have no split in {source} ({listed(missing)}): they are not used")
    there = {splits[name] for name in names if name in splits}
    if empty := [split for split in get_args(Split) if split not in there]:
        notes.append(f"no image is for {' or '.join(empty)}: add images, or a column split to the table")
    return splits, notes, source == "a hash"


def _no_splits(names: Sequence[str]) -> Iterator[str]:
    """Notes on folders that are perhaps meant as splits: not all images lie in such, or their names are others."""
    tops = {name: name.partition("/")[0] for name in names if "/" in name}
    inside = {name: top for name, top in tops.items() if top.lower() in SPLIT_WORDS}
    chosen = "a hash chooses the splits of all images"
    if inside:
        others = [name for name in names if name not in inside]
        yield (
            f"the folders {', '.join(sorted(set(inside.values())))} are no splits, because other images lie elsewhere "
            f"({listed(others)}): {chosen}; move them, or add a column split to the table"
        )
    meant = sorted({top for top in tops.values() if top not in inside.values() and _SPLIT_LIKE.search(top)})
    if meant:
        yield (
            f"folders such as {listed(meant)} are no splits: {chosen}; if they are meant as splits, call them train, "
            "val and test, or add a column split to the table"
        )


def _other_lists(root: Path, files: ImageFiles) -> list[str]:
    """A note on lists of splits that lie where they are not read."""
    folders = dict.fromkeys((root, root / "ImageSets", root / "splits", files.folder, files.folder.parent))
    lists = [f for folder in folders for f in map(folder.joinpath, LISTS) if f.is_file() and root in f.parents]
    found = [path.relative_to(root).as_posix() for path in lists]
    return (
        [f"{listed(found)}: not read; if they list the images of each split, put them into ImageSets/Main"]
        if found
        else []
    )


def _named(splits: Mapping[str, Split | None]) -> dict[str, Split]:
    return {name: split for name, split in splits.items() if split is not None}


def _folder_splits(names: Sequence[str]) -> dict[str, Split]:
    """By the names of the top-level folders; empty unless all images are in folders named after splits."""
    splits = _named({name: SPLIT_WORDS.get(name.partition("/")[0].lower()) for name in names if "/" in name})
    return splits if len(splits) == len(names) else {}


def _hashed_splits(names: Sequence[str]) -> dict[str, Split]:
    stems = {name: unicodedata.normalize("NFC", name.rpartition(".")[0]) for name in names}
    shares = {name: hash_share(stem.encode("utf-8", "surrogatepass")) for name, stem in stems.items()}
    first, second = TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE
    splits: dict[str, Split] = {
        name: "train" if share < first else "validation" if share < second else "test" for name, share in shares.items()
    }
    middles: dict[Split, float] = {"train": first / 2, "validation": (first + second) / 2, "test": (second + 1) / 2}
    for split, middle in middles.items():
        sizes = Counter(splits.values())
        spare = [name for name in names if sizes[splits[name]] > 1]
        if not sizes[split] and spare:
            splits[min(spare, key=lambda name: abs(shares[name] - middle))] = split
    return splits


def _listed_splits(root: Path, matcher: NameMatcher, notes: list[str]) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    unknown: list[str] = []
    named: list[str] = []
    for file, split in LISTS.items():
        path = root / "ImageSets" / "Main" / file
        for number, line in enumerate(read_text(path).splitlines() if os.path.lexists(path) else (), start=1):
            written = line.strip()
            if written and not matcher.match_loosely(written):
                written = written.split()[0]  # "000012 -1": a list of VOC for one class
            if written and not matcher.match_loosely(written):
                unknown.append(written)
            elif written:
                named.append(written)
                place = f"ImageSets/Main/{file}, row {number}"
                name = matcher.find(written, place)
                if splits.setdefault(name, split) != split:
                    raise MistError(f"{place}: {name} is also for {splits[name]}: remove it from one list")
    notes += matcher.loosely_matched("ImageSets/Main", named)
    if unknown:
        notes.append(f"ImageSets/Main names {len(unknown)} images that are not there ({listed(unknown)})")
    return splits


def _beside(root: Path, files: ImageFiles) -> list[str]:
    """Notes on images in the folder itself and in other folders of it, if those in a folder of images are read."""
    if files.folder == root:
        return []
    names = [path.name for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
    beside = [name for name in names if not is_hidden(name)]
    where = files.folder.relative_to(root)
    notes = [f"{len(beside)} images beside the folder {where} are not used ({listed(beside)})"] if beside else []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path != files.folder):
        if is_hidden(folder.name) or holds_results(folder) or folder.name in PICTURE_FOLDERS:
            continue
        inside: list[str] = []
        with contextlib.suppress(OSError):  # a folder that can't be listed holds no images of the user
            inside = [path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
        if number := len([name for name in inside if not is_hidden(name)]):
            notes.append(f"{number} images in {folder.name} are not used: only those in {where} are")
    return notes


def _file_notes(files: ImageFiles) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in files.left_out.items():
        reasons.setdefault(why, []).append(name)
    notes = [
        f"{names[0]} is left out: {why}"
        if len(names) == 1
        else f"{len(names)} files ({listed(names)}) are left out: {why}"
        for why, names in list(reasons.items())[:SHOWN_REASONS]
    ]
    if more := [name for names in list(reasons.values())[SHOWN_REASONS:] for name in names]:
        notes.append(f"{len(more)} more images are left out ({listed(more)})")
    if stacks := [f"{one.name}: {one.pages}" for one in files.headers if one.pages > 1]:
        notes.append(f"{len(stacks)} files hold several pages ({listed(stacks)}): only the first of each is used")
    sizes = sorted({(one.width * one.height, one.width, one.height) for one in files.headers})
    if len(sizes) > 1:
        (_, *least), (_, *most) = sizes[0], sizes[-1]
        notes.append(
            f"images have {len(sizes)} sizes, from {least[0]} x {least[1]} to {most[0]} x {most[1]} px: the objects "
            "should still have one size in pixels"
        )
    kinds = Counter(one.kind for one in files.headers)
    if len(kinds) > 1:
        parts = ", ".join(f"{many} {kind}" for kind, many in kinds.most_common())
        notes.append(f"images are of several kinds ({parts}): all are converted to one kind")
    return notes


def _count_notes(images: Sequence[FolderImage], table: Table, counts_from: CountsFrom) -> list[str]:
    if counts_from == "nothing":
        return []
    notes = []
    if unknown := [image.name for image in images if image.name not in table.values]:
        what = "boxes" if counts_from == "boxes" else f"row in {counts_from}"
        notes.append(
            f"{len(unknown)} of {len(images)} images have no {what} ({listed(unknown)}): they are not used for "
            "training, but can be predicted"
        )
    known = [(image.name, table.values[image.name]) for image in images if image.name in table.values]
    if not any(any(values) for _, values in known):
        return [*notes, "all counts are zero: there is nothing to learn from"]
    splits = {image.name: image.split for image in images}
    for index, label in enumerate(table.class_names):
        holding = [(values[index], name) for name, values in known if values[index]]
        if len(holding) < 2:
            where = f"in one image only ({holding[0][1]})" if holding else "in no image"
            notes.append(f"class {label} is {where}: this is too little to learn it")
            continue
        trained = [name for _, name in holding if splits[name] == "train"]
        if len(trained) < FEW_IMAGES:
            where = f"{len(trained)} training images ({listed(trained)})" if trained else "no training image"
            notes.append(f"class {label} is in {where}: this is too little to learn it")
        median = statistics.median(count for count, _ in holding)
        if high := sorted(one for one in holding if one[0] > max(OUTLIER_FACTOR * median, OUTLIER_LEAST)):
            shown = listed([f"{name}: {count}" for count, name in reversed(high)])
            notes.append(
                f"counts of {label} above {OUTLIER_FACTOR} x their median of {median:g} ({shown}): check these counts"
            )
    return notes
