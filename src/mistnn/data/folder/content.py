"""A folder of your own: images, and what is known of them.

::

    my-folder/
      images/          or JPEGImages/, or the images in my-folder itself; folders below are searched too
      counts.csv       file,class,count: or file and a column a class, or file,count
      labels.csv       instead: file,class, or file and a column of 0 and 1 a class: only which classes are present
      Annotations/     PASCAL VOC XML, or COCO JSON, or boxes.json: boxes, for evaluation only
      ImageSets/Main/  train.txt, val.txt, test.txt: which image is for what

All but the images may be missing. Without either table the counts are the numbers of boxes; without boxes nothing is
known but what the user says. ``folder_tables`` and ``annotations`` tell how the files are read.

Splits, the first that there is: ``ImageSets/Main``; a column ``split`` in the table; a ``split`` in ``boxes.json``;
all images in folders called train, val (or valid, validation) and test; else a hash of each image's name without its
ending, which puts about 70 % in train, 15 % in validation and 15 % in test, whatever other images there are; only where
a split would be empty does it get the one image whose hash comes nearest. An image that the first three don't name,
where there are some, is in no split.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from mistnn.data.annotations import Annotation, Annotations, read_annotations
from mistnn.data.corners import centred
from mistnn.data.digits.source import Split
from mistnn.data.folder.files import (
    ImageFiles,
    ImageHeader,
    NameMatcher,
    check_file,
    listed,
    read_image_files,
    read_text,
)
from mistnn.data.folder.tables import SPLIT_WORDS, Table, read_table
from mistnn.data.images import DETECTIONS_FILE, holds_results
from mistnn.errors import MistError

CountsFrom = Literal["counts.csv", "labels.csv", "boxes", "nothing"]

LISTS: Mapping[str, Split] = {"train.txt": "train", "val.txt": "validation", "test.txt": "test"}
TRAIN_SHARE, VALIDATION_SHARE = 0.70, 0.15
"""Of the images that are split by a hash; the rest is for testing (our choice)."""
OUTLIER_FACTOR, OUTLIER_LEAST = 5, 10
"""A count above both 5 x the median of the images that hold the class and 10 is pointed out (our choice)."""


class FolderImage(NamedTuple):
    """An image and what is known of it; what isn't known is ``None``.

    Attributes:
        name: path relative to the folder of the images, with "/".
        path: where it is.
        width: in pixels, upright.
        height: in pixels, upright.
        counts: objects of each class.
        present: whether each class is there.
        boxes: (objects, 4), centre x, centre y, width, height in pixels; for evaluation only.
        labels: (objects,), the class of each box.
        split: "train", "validation" or "test".
    """

    name: str
    path: Path
    width: int
    height: int
    counts: tuple[int, ...] | None
    present: tuple[bool, ...] | None
    boxes: Float[np.ndarray, "n 4"] | None
    labels: Int[np.ndarray, " n"] | None
    split: Split | None


class OwnFolder(NamedTuple):
    """A folder of images.

    Attributes:
        root: the folder.
        images: those that can be used, sorted by name.
        class_names: the order of counts, presence and labels; empty if nothing is known.
        counts_from: where counts or presence come from.
        notes: what is worth knowing or looks wrong, one line each.
    """

    root: Path
    images: tuple[FolderImage, ...]
    class_names: tuple[str, ...]
    counts_from: CountsFrom
    notes: tuple[str, ...]


def in_order_of(folder: OwnFolder, class_names: Sequence[str]) -> OwnFolder:
    """The same with its classes in another order, that of a model.

    Raises:
        MistError: if they are other classes.
    """
    if set(folder.class_names) != set(class_names) or len(folder.class_names) != len(class_names):
        known = (
            f"has the classes {', '.join(folder.class_names)}" if folder.class_names else "has no counts and no boxes"
        )
        raise MistError(
            f"{folder.root} {known}, and the model was trained on {', '.join(class_names)}: give the folder it was "
            "trained on, or one with the same classes"
        )
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
    """Reads a folder; no image is decoded.

    Args:
        root: laid out as the module says.

    Raises:
        MistError: no folder, no image that can be used, or a table, a list or an annotation that isn't understood; the
            message names the file, the row, the value and the mend.
    """
    root = Path(root)
    files = read_image_files(root)
    matcher = NameMatcher([header.name for header in files.headers] + list(files.left_out))
    annotations = read_annotations(root, files, matcher)
    counts_from, table, notes = _read_known(root, files, matcher, annotations)
    drawn = {} if annotations is None else annotations.of_image
    splits, split_notes = _splits(root, files, matcher, table, drawn)
    images = tuple(
        _image(header, table, drawn.get(header.name), counts_from, splits.get(header.name)) for header in files.headers
    )
    notes += [*_file_notes(files), *table.notes, *(() if annotations is None else annotations.notes)]
    notes += [*_class_notes(table, drawn, counts_from), *split_notes, *_count_notes(images, table, counts_from)]
    return OwnFolder(root, images, table.class_names, counts_from, tuple(notes))


def _read_known(
    root: Path, files: ImageFiles, matcher: NameMatcher, annotations: Annotations | None
) -> tuple[CountsFrom, Table, list[str]]:
    """The counts or labels, and where they come from."""
    counts, labels = (_find(name, root, files.folder) for name in ("counts.csv", "labels.csv"))
    if counts is not None:
        notes = [] if labels is None else ["labels.csv isn't used: counts.csv says more"]
        if holds_results(counts.parent):
            notes.append(f"{counts} lies beside a {DETECTIONS_FILE}: what a model counted is no truth to learn from")
        return "counts.csv", read_table(counts, matcher, "counts"), notes
    if labels is not None:
        return "labels.csv", read_table(labels, matcher, "labels"), []
    if annotations is None:
        return "nothing", Table((), {}, {}, ()), []
    classes = tuple(sorted({label for one in annotations.of_image.values() for label in one.labels}))
    counted = {name: tuple(one.labels.count(label) for label in classes) for name, one in annotations.of_image.items()}
    note = f"there is no counts.csv and no labels.csv: counts are the numbers of boxes in {annotations.source}"
    return "boxes", Table(classes, counted, {}, ()), [note]


def _find(name: str, *folders: Path) -> Path | None:
    """The file in the first folder that has it, whatever the case of its name.

    Raises:
        MistError: if what is called so is no file.
    """
    paths = (path for folder in folders for path in sorted(folder.iterdir()) if path.name.lower() == name)
    found = next(paths, None)
    if found is not None:
        check_file(found)
    return found


def _image(
    header: ImageHeader, table: Table, drawn: Annotation | None, counts_from: CountsFrom, split: Split | None
) -> FolderImage:
    values = table.values.get(header.name)
    boxes = labels = None
    if drawn is not None and drawn.corners is not None:
        kept = [index for index, label in enumerate(drawn.labels) if label in table.class_names]
        corners = drawn.corners[kept]
        boxes = centred(corners)
        labels = np.array([table.class_names.index(drawn.labels[index]) for index in kept], dtype=np.int64)
    return FolderImage(
        name=header.name,
        path=header.path,
        width=header.width,
        height=header.height,
        counts=None if counts_from == "labels.csv" else values,
        present=None if values is None else tuple(value > 0 for value in values),
        boxes=boxes,
        labels=labels,
        split=split,
    )


def _splits(
    root: Path, files: ImageFiles, matcher: NameMatcher, table: Table, drawn: Mapping[str, Annotation]
) -> tuple[dict[str, Split], list[str]]:
    """The split of each image that has one, and notes."""
    names = [header.name for header in files.headers]
    notes: list[str] = []
    splits = _listed_splits(root, matcher, notes)
    source = "ImageSets/Main"
    if not splits:
        source, splits = "the column split", table.splits
    if not splits:
        source, splits = "boxes.json", _named({name: one.split for name, one in drawn.items()})
    if not splits:
        source, splits = "the folders", _folder_splits(names) or _hashed_splits(names)
    missing = [name for name in names if name not in splits]
    if missing:
        notes.append(f"{len(missing)} images have no split in {source} ({listed(missing)}): they are left out of all")
    there = {splits[name] for name in names if name in splits}
    empty = [split for split in get_args(Split) if split not in there]
    if empty:
        notes.append(f"no image is for {' or '.join(empty)}: add images, or a column split to the table")
    return splits, notes


def _named(splits: Mapping[str, Split | None]) -> dict[str, Split]:
    return {name: split for name, split in splits.items() if split is not None}


def _folder_splits(names: Sequence[str]) -> dict[str, Split]:
    """By the names of the topmost folders; nothing if an image is in none that is called as a split."""
    splits = _named({name: SPLIT_WORDS.get(name.partition("/")[0].lower()) for name in names if "/" in name})
    return splits if len(splits) == len(names) else {}


def _hashed_splits(names: Sequence[str]) -> dict[str, Split]:
    stems = {
        name: unicodedata.normalize("NFC", name.rpartition(".")[0]).encode("utf-8", "surrogatepass") for name in names
    }
    shares = {name: int.from_bytes(hashlib.sha256(stem).digest()[:8], "big") / 2**64 for name, stem in stems.items()}
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
    strange: list[str] = []
    for file, split in LISTS.items():
        path = root / "ImageSets" / "Main" / file
        for number, line in enumerate(read_text(path).splitlines() if os.path.lexists(path) else (), start=1):
            written = line.strip()
            if written and not matcher.match(written):
                written = written.split()[0]  # "000012 -1": VOC's lists of one class
            if written and not matcher.match(written):
                strange.append(written)
            elif written:
                name = matcher.find(written, f"ImageSets/Main/{file}, row {number}")
                if splits.setdefault(name, split) != split:
                    place = f"ImageSets/Main/{file}, row {number}"
                    raise MistError(f"{place}: {name} is for {splits[name]} too: take it out of one list")
    if strange:
        notes.append(f"ImageSets/Main names {len(strange)} images that are not there ({listed(strange)})")
    return splits


def _file_notes(files: ImageFiles) -> list[str]:
    notes = [f"{name} is left out: {why}" for name, why in list(files.left_out.items())[:3]]
    if len(files.left_out) > 3:
        notes.append(f"{len(files.left_out) - 3} more images are left out ({listed(list(files.left_out)[3:])})")
    sizes = sorted({(one.width * one.height, one.width, one.height) for one in files.headers})
    if len(sizes) > 1:
        (_, *least), (_, *most) = sizes[0], sizes[-1]
        notes.append(
            f"images have {len(sizes)} sizes, from {least[0]} x {least[1]} to {most[0]} x {most[1]} px: objects should "
            "be of one size in pixels all the same"
        )
    kinds = Counter(one.kind for one in files.headers)
    if len(kinds) > 1:
        parts = ", ".join(f"{many} {kind}" for kind, many in kinds.most_common())
        notes.append(f"images are of several kinds ({parts}): all are converted to one")
    return notes


def _class_notes(table: Table, drawn: Mapping[str, Annotation], counts_from: CountsFrom) -> list[str]:
    if counts_from == "nothing":
        return []
    other = sorted({label for one in drawn.values() for label in one.labels} - set(table.class_names))
    return [f"boxes of {listed(other)} are left out: {counts_from} has no such class"] if other else []


def _count_notes(images: Sequence[FolderImage], table: Table, counts_from: CountsFrom) -> list[str]:
    if counts_from == "nothing":
        return []
    notes = []
    unknown = [image.name for image in images if image.name not in table.values]
    if unknown:
        what = "boxes" if counts_from == "boxes" else f"a row in {counts_from}"
        notes.append(
            f"{len(unknown)} of {len(images)} images are without {what} ({listed(unknown)}): they are left out of "
            "training, and can still be predicted"
        )
    known = [(image.name, table.values[image.name]) for image in images if image.name in table.values]
    if not any(any(values) for _, values in known):
        return [*notes, "all counts are zero: there is nothing to learn from"]
    for index, label in enumerate(table.class_names):
        holding = [(values[index], name) for name, values in known if values[index]]
        if len(holding) < 2:
            where = f"in one image only ({holding[0][1]})" if holding else "in no image"
            notes.append(f"class {label} is {where}: too little to learn it")
            continue
        median = statistics.median(count for count, _ in holding)
        high = sorted(one for one in holding if one[0] > max(OUTLIER_FACTOR * median, OUTLIER_LEAST))
        if high:
            shown = listed([f"{name}: {count}" for count, name in reversed(high)])
            notes.append(f"counts of {label} above {OUTLIER_FACTOR} x their median of {median:g} ({shown}): check them")
    return notes
