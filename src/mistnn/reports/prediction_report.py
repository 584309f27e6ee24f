"""The page of a prediction without true counts: the predicted counts, and examples to check by eye."""

from __future__ import annotations

import csv
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

from mistnn.data.images import DETECTIONS_FILE, ImageFile, UnreadableImage, find_images, open_image, to_tensor
from mistnn.data.text_files import from_cell
from mistnn.inference import Predictor, PredictSummary
from mistnn.inference.judged import JudgedScene
from mistnn.inference.tables import COUNTS_FILE
from mistnn.records import Detections
from mistnn.reports.count_page import MOST_ROWS, CountPage, Example, Table, commonest, heatmap_of, in_words, shrunk

EXAMPLES = 4  #: Images shown with most objects, and with fewest.
MOST_PIXELS = 25_000_000  #: Larger images are not shown: drawing them would take gigabytes.


class _Counts(NamedTuple):
    name: str
    of_class: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.of_class)


def report_on_prediction(
    predictor: Predictor,
    paths: Sequence[Path | ImageFile],
    out: Path,
    results: Path,
    summary: PredictSummary,
    command: str,
) -> CountPage:
    """Reads the results of ``predict_folder`` row by row and shows some of the images.

    Args:
        predictor, command: that made the results.
        paths: the files or folders of the images, as ``predict_folder`` got them.
        out: the final folder of the results.
        results: their current folder.
        summary: of the prediction.
    """
    skipped = summary.skipped
    classes = list(predictor.model.class_names) or ["objects"]
    histograms: dict[str, Counter[int]] = {name: Counter() for name in classes}
    totals: Counter[int] = Counter()
    rows: list[tuple[str, ...]] = []
    images = 0
    for images, one in enumerate(_counts(results / COUNTS_FILE), start=1):
        for name, count in zip(classes, one.of_class, strict=True):
            histograms[name][count] += 1
        totals[one.total] += 1
        if images <= MOST_ROWS:
            rows.append((one.name, *map(str, one.of_class)))
    groups = {
        "With most objects": heapq.nlargest(EXAMPLES, _counts(results / COUNTS_FILE), key=lambda one: one.total),
        "With fewest objects": heapq.nsmallest(EXAMPLES, _counts(results / COUNTS_FILE), key=lambda one: one.total),
    }
    if images <= EXAMPLES:  # both groups would be the same
        groups = {"All images": groups["With most objects"]}
    examples = _examples(predictor, paths, out, results, groups)
    shown = [example for some in examples.values() for example in some]
    together = {"all classes": totals} if len(classes) > 1 else {}
    objects = sum(number * many for number, many in totals.items())
    return CountPage(
        title=f"Predicted counts: {out.resolve().name}",
        summary=f"{objects:,} objects in {images:,} images, a mean of {objects / max(images, 1):.1f} per image. The "
        "true counts are unknown: check the examples before you trust these numbers.",
        notes=summary.notes
        + tuple(f"{one.file} was skipped: {one.reason}" for one in skipped[:5])
        + ((f"{len(skipped) - 5:,} more images were skipped",) if len(skipped) > 5 else ()),
        class_names=tuple(predictor.model.class_names),
        unnamed=commonest([example.scene.detections for example in shown], list(predictor.model.class_names)),
        histograms={**together, **histograms} if images else {},
        examples=examples,
        heatmaps=[example for example in shown if example.heatmap is not None],
        images=Table(("image", *classes), rows) if rows else None,
        more=max(0, images - MOST_ROWS),
        repeat=command,
    )


def _counts(path: Path) -> Iterator[_Counts]:
    """The rows of ``counts.csv``, one image at a time."""
    for name, rows in groupby(_rows(path), key=lambda row: row["file"]):
        yield _Counts(name, tuple(int(row["count"]) for row in rows))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: from_cell(value) for name, value in row.items()}


def _examples(
    predictor: Predictor, paths: Sequence[Path | ImageFile], out: Path, results: Path, groups: dict[str, list[_Counts]]
) -> dict[str, list[Example]]:
    """The chosen images with their boxes; the first of each group with its heat map."""
    wanted = {one.name for some in groups.values() for one in some}
    files = {file.name: file.path for file in find_images(paths, exclude=out) if file.name in wanted}
    found = _found(results / DETECTIONS_FILE, wanted, predictor.model.class_names)
    examples: dict[str, list[Example]] = {}
    for heading, some in groups.items():
        examples[heading] = shown = []
        for one in (one for one in some if one.name in files):  # others were deleted in the meantime
            try:
                picture = open_image(files[one.name])
            except UnreadableImage:
                continue
            if picture.width * picture.height > MOST_PIXELS:
                continue
            image = to_tensor(picture, predictor.model.config.channels)
            words = f"counted {in_words(one.of_class, predictor.model.class_names or ['objects'])}"
            name = one.name.encode("utf-8", "replace").decode()
            heatmap = None if shown else heatmap_of(predictor, image)
            shown.append(Example(name, shrunk(JudgedScene(image, found[one.name])), words, heatmap=heatmap))
    return examples


def _found(path: Path, wanted: set[str], classes: Sequence[str]) -> dict[str, Detections]:
    """The detections of some images."""
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in wanted}
    for row in _rows(path):
        if row["file"] in wanted:
            rows[row["file"]].append(row)
    return {
        name: Detections(
            torch.tensor([[float(row[side]) for side in "xywh"] for row in some]).reshape(-1, 4),
            torch.tensor([float(row["score"]) for row in some]),
            torch.tensor([classes.index(row["label"]) for row in some], dtype=torch.long) if classes else None,
        )
        for name, some in rows.items()
    }
