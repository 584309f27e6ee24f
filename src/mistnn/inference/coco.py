"""Detections as one COCO JSON file, written image by image with constant memory."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mistnn.records import Detections


class CocoCounts(NamedTuple):
    """The number of entries in a COCO file."""

    images: int = 0
    objects: int = 0


NOTHING_YET = CocoCounts()


class CocoWriter:
    """An open COCO file, see ``coco_file``: the ``counts`` of its entries so far, and its ``files`` by name."""

    def __init__(self, images: TextIO, annotations: TextIO, begun: CocoCounts) -> None:
        self._images, self._annotations, self.counts = images, annotations, begun
        self.files = {Path(file.name).name: file for file in (images, annotations)}

    def add(self, name: str, width: int, height: int, found: Detections) -> None:
        """Adds one image, with the name of its file in the tables, and its detections."""
        image = self.counts.images + 1
        _add(self._images, {"id": image, "file_name": name, "width": width, "height": height})
        for entry in coco_annotations(found, image, self.counts.objects + 1):
            _add(self._annotations, entry)
        self.counts = CocoCounts(image, self.counts.objects + len(found.boxes))

    def append(self, path: Path) -> None:
        """Adds the entries of another file that isn't complete; their ids continue those here."""
        images, objects = self.counts
        for part, file in zip(_parts(path), (self._images, self._annotations), strict=True):
            with part.open(encoding="utf-8") as lines:
                for line in lines:
                    if not (text := line.strip().removesuffix(",")):
                        continue
                    entry = json.loads(text)
                    if "image_id" in entry:
                        entry |= {"id": entry["id"] + objects, "image_id": entry["image_id"] + images}
                        self.counts = CocoCounts(self.counts.images, entry["id"])
                    else:
                        entry["id"] += images
                        self.counts = CocoCounts(entry["id"], self.counts.objects)
                    _add(file, entry)


def coco_categories(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The categories, with ids from 1; that of a model without classes is "object"."""
    return [{"id": number, "name": name} for number, name in enumerate(class_names or ("object",), start=1)]


def coco_annotations(found: Detections, image: int = 1, first: int = 1) -> list[dict[str, Any]]:
    """The annotations of an image with the id ``image``, with ids from ``first``.

    Convention: ``bbox`` is (left, top, width, height) in pixels of the image, rounded to 4 decimals.
    """
    labels = [0] * len(found.boxes) if found.labels is None else found.labels.tolist()
    objects = zip(found.boxes.tolist(), found.scores.tolist(), labels, strict=True)
    entries = []
    for number, ((x, y, w, h), score, label) in enumerate(objects, first):
        bbox = [round(value, 4) for value in (x - w / 2, y - h / 2, w, h)]
        area = round(bbox[2] * bbox[3], 4)
        entry = {"id": number, "image_id": image, "category_id": label + 1, "bbox": bbox, "area": area}
        entries.append(entry | {"iscrowd": 0, "score": round(score, 6)})
    return entries


def _parts(path: Path) -> list[Path]:
    """The two hidden files that become a COCO file."""
    return [path.with_name(f".{path.name}.{name}") for name in ("images", "annotations")]


@contextlib.contextmanager
def coco_file(
    path: Path, class_names: Sequence[str], begun: CocoCounts = NOTHING_YET, complete: bool = True
) -> Iterator[CocoWriter]:
    """Writes a COCO data set: ``images``, ``annotations`` with a ``score`` each, ``categories``.

    Args:
        path: the file, written when the block ends. Two hidden files beside it remain; the caller removes the folder.
        begun: the number of entries that the two hidden files already hold, to continue them.
        complete: whether to write the file itself; else only the two hidden files, for ``CocoWriter.append``.
    """
    parts = _parts(path)
    mode = "a" if begun.images else "w"
    with parts[0].open(mode, encoding="utf-8") as images, parts[1].open(mode, encoding="utf-8") as annotations:
        yield CocoWriter(images, annotations, begun)
    if not complete:
        return
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json.dumps(coco_categories(class_names))},\n"images": [')
        for part, end in zip(parts, ('\n],\n"annotations": [', "\n]}\n"), strict=True):
            with part.open(encoding="utf-8") as lines:
                shutil.copyfileobj(lines, file)
            file.write(end)


def _add(file: TextIO, entry: dict[str, Any]) -> None:
    file.write(("," if entry["id"] > 1 else "") + "\n" + json.dumps(entry))
