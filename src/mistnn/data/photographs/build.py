"""Builds PASCAL+COCO and full VOC07 as MIST (CVPR 2021) uses them, from copies of VOC 2007 and COCO.

Output::

    OUT/images/voc2007-000005.jpg  ...   at the size that the networks see
    OUT/boxes.json                       boxes and split of every image; `mist inspect OUT` reads it too
    OUT/counts.csv                       file,class,count
    OUT/split.csv                        file,split
    OUT/dataset.json                     name, classes, all filters, images dropped by each, SHA-256 of split.csv

**The crop** (the paper: "random cropped to ensure that all objects within the image cover 30% of the image in
average"). A square of side sqrt(A / c), where A is the summed area of the boxes and c is uniform from .2 to .4, mean
.3; but at least as large as the rectangle around all boxes, which are never cut, and at most as large as the image. Its
position is uniform over all that hold all boxes. An image without such a square is dropped. Objects that lie far apart
make the square larger, so ``dataset.json`` states the share that is really covered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from mistnn.config import Config, above, at_least, between
from mistnn.data.images import read_image
from mistnn.data.photographs.published import VOC_CLASSES, Photograph, read_coco, read_voc
from mistnn.data.text_files import AnnotatedObject, Corners
from mistnn.errors import MistError
from mistnn.files import locked
from mistnn.interfaces import Split

FORMAT = 1
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IMAGES, BOXES, COUNTS, SPLIT, DATASET = "images", "boxes.json", "counts.csv", "split.csv", "dataset.json"


@dataclass(frozen=True)
class BuildConfig(Config):
    """All choices of the builder.

    Attributes:
        classes: images with objects of these classes are used; other objects are ignored.
        largest_share: images with an object that covers a larger share are dropped (paper: .3); 1 keeps all.
        aspect_ratio: images with an object whose sides differ by a larger factor are dropped (paper: 2); 0 keeps all.
        difficult: objects that VOC marks as difficult: "ignore" (released code), "keep", or "drop" the image.
        most_objects: images with more objects are dropped; 0 keeps all (the paper has no such filter: its K = 2 is the
            number of places it attends to).
        coverage: smallest and largest share of the crop that the boxes cover together, before the crop is enlarged to
            hold them (paper: 30 % on average); 0 0 for no crop.
        shorter_edge: of an image in pixels (paper: 224).
        longest_edge: an image whose longer edge would be longer is made smaller (ours: 3:2 photographs fit).
        split: "shares" splits at random; "voc" uses train, val and test of ``ImageSets/Main``.
        shares: of training, validation and test (paper: 7,816, 987 and 977 images).
        most_images: number of images drawn at random from those that pass all filters; 0 uses all (the paper has
            9,780).
        seed: of crops, of the selection and of the split.
        quality: of the JPEG files.
    """

    classes: tuple[str, ...] = VOC_CLASSES
    largest_share: Annotated[float, above(0), between(0, 1)] = 0.3
    aspect_ratio: float = 2.0
    difficult: Literal["ignore", "keep", "drop"] = "ignore"
    most_objects: Annotated[int, at_least(0)] = 0
    coverage: tuple[float, float] = (0.2, 0.4)
    shorter_edge: Annotated[int, at_least(16)] = 224
    longest_edge: int = 352
    split: Literal["shares", "voc"] = "shares"
    shares: tuple[int, int, int] = (7816, 987, 977)
    most_images: Annotated[int, at_least(0)] = 9780
    seed: Annotated[int, at_least(0)] = 0
    quality: Annotated[int, between(1, 100)] = 95

    def check(self) -> None:
        """Checks classes, filters and edges."""
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise MistError(f"classes={self.classes} must be distinct names, at least one")
        if self.aspect_ratio and self.aspect_ratio < 1:
            raise MistError(f"aspect_ratio={self.aspect_ratio} must be 1 or more, or 0 for any")
        if min(self.shares) < 1:
            raise MistError(f"shares={self.shares} must be three numbers of images above 0")
        low, high = self.coverage
        if (low, high) != (0, 0) and not 0 < low <= high <= 1:
            raise MistError(f"coverage={self.coverage} must be two increasing shares above 0, or 0 0 for no crop")
        if self.shorter_edge > self.longest_edge:
            raise MistError(f"shorter_edge={self.shorter_edge} must not exceed longest_edge={self.longest_edge}")


PASCAL_COCO = BuildConfig()
VOC07 = BuildConfig(largest_share=1.0, aspect_ratio=0.0, coverage=(0.0, 0.0), split="voc", most_images=0)
"""Supplement, section E: no filter, whole images."""


class Built(NamedTuple):
    """A summary of a built folder."""

    images: dict[Split, int]  #: Number in each split.
    dropped: dict[str, int]  #: Reason -> number of images.
    covered: float  #: Mean share of an image that its boxes cover.
    digest: str  #: SHA-256 of ``split.csv``.


class _Chosen(NamedTuple):
    photograph: Photograph
    objects: tuple[AnnotatedObject, ...]
    window: tuple[int, int, int, int]  # left, top, right, bottom of the crop


def build_photographs(
    name: str,
    config: BuildConfig,
    out: Path,
    voc: Path | None,
    coco: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Filters, crops, resizes and splits photographs into a new folder.

    Raises:
        MistError: if there is no source or it can't be used, no image is left, a split or a class is empty, an image
            can't be read, or ``out`` is not empty or can't be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MistError(f"--out {out} exists already: give a new folder, or remove it first")
    photographs = ([] if voc is None else read_voc(voc)) + ([] if coco is None else read_coco(coco))
    if not photographs:
        raise MistError("no source was given: name --voc DIR, --coco DIR or both")
    dropped: Counter[str] = Counter()
    chosen = [one for place in photographs if (one := _choose(place, config, dropped)) is not None]
    random = np.random.default_rng((config.seed, 1))
    if config.most_images and len(chosen) > config.most_images:
        dropped["beyond most_images"] = len(chosen) - config.most_images
        chosen = [chosen[place] for place in sorted(random.permutation(len(chosen))[: config.most_images])]
    splits = _splits(chosen, config, random, dropped)
    used: list[tuple[_Chosen, Split]]
    used = [(one, split) for one, split in zip(chosen, splits, strict=True) if split is not None]
    trained = {item.label for one, split in used if split == "train" for item in one.objects}
    if empty := [label for label in config.classes if label not in trained]:
        raise MistError(f"no training image holds {', '.join(empty)}: add images, or exclude the class with --classes")
    out = out.resolve()
    aside = out.with_name(f".{out.name}.part")
    with locked(aside):  # another process may build the same
        try:
            for left in aside.iterdir():  # by a process that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            (aside / IMAGES).mkdir()
            entries = []
            for done, (one, split) in enumerate(used, start=1):
                entries.append(_write_image(one, split, config, aside))
                if progress is not None:
                    progress(done, len(used))
            built = _write_lists(name, config, aside, entries, dropped)
            if out.exists():
                out.rmdir()
            aside.replace(out)
        except OSError as error:
            raise MistError(f"--out {out} can't be written ({error.strerror}): give another folder") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return built


def _choose(photograph: Photograph, config: BuildConfig, dropped: Counter[str]) -> _Chosen | None:
    """The objects and the crop of a photograph; ``None`` if it is dropped."""
    width, height = photograph.width, photograph.height
    objects: list[AnnotatedObject] = []
    for one in photograph.objects:
        if one.label not in config.classes or (one.difficult and config.difficult == "ignore"):
            continue
        if one.crowd:  # the number of objects is unknown
            return _drop(dropped, "a crowd")
        if one.difficult and config.difficult == "drop":
            return _drop(dropped, "a difficult object")
        left, top, right, bottom = one.corners
        left, right = max(left, 0.0), min(right, float(width))
        top, bottom = max(top, 0.0), min(bottom, float(height))
        if right - left < 1 or bottom - top < 1:
            return _drop(dropped, "an object without area in the image")
        objects.append(one._replace(corners=(left, top, right, bottom)))
    if not objects:
        return _drop(dropped, "no object of the classes")
    if config.most_objects and len(objects) > config.most_objects:
        return _drop(dropped, f"more than {config.most_objects} objects")
    for one in objects:
        wide, high = one.corners[2] - one.corners[0], one.corners[3] - one.corners[1]
        if wide * high > config.largest_share * width * height:
            return _drop(dropped, "an object that is too large")
        if config.aspect_ratio and max(wide / high, high / wide) > config.aspect_ratio:
            return _drop(dropped, "an object that is too wide or narrow")
    window = (0, 0, width, height)
    if config.coverage[1]:
        found = crop_window(photograph.name, [one.corners for one in objects], width, height, config)
        if found is None:
            return _drop(dropped, "no square crop holds all objects")
        window = found
    return _Chosen(photograph, tuple(objects), window)


def _drop(dropped: Counter[str], reason: str) -> None:
    dropped[reason] += 1


def crop_window(
    name: str, corners: Sequence[Corners], width: int, height: int, config: BuildConfig
) -> tuple[int, int, int, int] | None:
    """A random square that holds all boxes, see the module; the name of the image and the seed determine it.

    Returns left, top, right and bottom in whole pixels; ``None`` if there is no such square.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    random = np.random.default_rng((config.seed, 0, key))
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in corners)
    left, top = math.floor(min(box[0] for box in corners)), math.floor(min(box[1] for box in corners))
    right, bottom = math.ceil(max(box[2] for box in corners)), math.ceil(max(box[3] for box in corners))
    wanted = round(math.sqrt(area / random.uniform(*config.coverage)))
    side = min(max(wanted, right - left, bottom - top), width, height)
    if side < max(right - left, bottom - top):
        return None
    x = int(random.integers(max(0, right - side), min(left, width - side) + 1))
    y = int(random.integers(max(0, bottom - side), min(top, height - side) + 1))
    return x, y, x + side, y + side


def _splits(
    chosen: Sequence[_Chosen], config: BuildConfig, random: np.random.Generator, dropped: Counter[str]
) -> list[Split | None]:
    """The split of each image; ``None`` for images that VOC's lists don't name."""
    if config.split == "voc":
        unlisted = sum(one.photograph.split is None for one in chosen)
        if unlisted:
            dropped["in no list of ImageSets/Main"] = unlisted
        splits: list[Split | None] = [one.photograph.split for one in chosen]
    else:
        ends = np.cumsum(config.shares) / sum(config.shares)
        splits = [None] * len(chosen)
        for rank, place in enumerate(random.permutation(len(chosen)).tolist()):
            splits[place] = SPLITS[int(np.searchsorted(ends, (rank + 0.5) / len(chosen)))]
    if not chosen:
        why = "; ".join(f"{reason}: {many}" for reason, many in dropped.most_common(4))
        raise MistError(f"no image passes the filters ({why}): are these the right folders?")
    if empty := [split for split in SPLITS if split not in splits]:
        lists = " and complete train.txt, val.txt and test.txt in ImageSets/Main" if config.split == "voc" else ""
        raise MistError(f"{len(chosen)} images pass the filters, none is for {' or '.join(empty)}: add images{lists}")
    return splits


def _write_image(one: _Chosen, split: Split, config: BuildConfig, out: Path) -> dict[str, Any]:
    """Crops, resizes and writes an image; returns its entry of ``boxes.json``."""
    path = one.photograph.path
    image = read_image(path, "unpack the archive again").convert("RGB")
    if image.size != (one.photograph.width, one.photograph.height):
        written = f"its annotation {one.photograph.width} x {one.photograph.height}"
        raise MistError(f"{path} has {image.width} x {image.height} px, {written}: unpack the archive again")
    left, top, right, bottom = one.window
    wide, high = right - left, bottom - top
    zoom = min(config.shorter_edge / min(wide, high), config.longest_edge / max(wide, high))
    width, height = max(1, round(wide * zoom)), max(1, round(high * zoom))
    image = image.resize((width, height), Image.Resampling.BILINEAR, box=one.window)
    file = f"{IMAGES}/{one.photograph.name}.jpg"
    image.save(out / file, quality=config.quality, subsampling=0)
    scale = np.array((width / wide, height / high) * 2)
    corners = (np.array([item.corners for item in one.objects]) - np.array((left, top) * 2)) * scale
    boxes, labels = corners.round(3).tolist(), [item.label for item in one.objects]
    return {"file": file, "width": width, "height": height, "boxes": boxes, "labels": labels, "split": split}


def _write_lists(
    name: str, config: BuildConfig, out: Path, entries: list[dict[str, Any]], dropped: Counter[str]
) -> Built:
    entries.sort(key=lambda entry: entry["file"])
    rows, covered = ["file,class,count"], []
    for entry in entries:
        labels, boxes = entry["labels"], np.array(entry["boxes"])
        rows += [f"{entry['file']},{label},{many}" for label, many in sorted(Counter(labels).items())]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        covered.append(float(areas.sum()) / (entry["width"] * entry["height"]))
    listing = "\n".join(["file,split", *(f"{entry['file']},{entry['split']}" for entry in entries), ""]).encode()
    counts = Counter(entry["split"] for entry in entries)
    images: dict[Split, int] = {split: counts[split] for split in SPLITS}
    share = round(sum(covered) / len(covered), 4)
    built = Built(images, dict(dropped.most_common()), share, hashlib.sha256(listing).hexdigest())
    described = {
        "format": FORMAT,
        "name": name,
        "classes": list(config.classes),
        "images": built.images,
        "covered": built.covered,
        "split_sha256": built.digest,
        "dropped": built.dropped,
        "build": dataclasses.asdict(config),
    }
    (out / BOXES).write_text(json.dumps(entries), encoding="utf-8")
    (out / COUNTS).write_text("\n".join(rows) + "\n", encoding="utf-8")
    (out / SPLIT).write_bytes(listing)
    (out / DATASET).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return built
