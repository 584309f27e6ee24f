"""What the page of ``mist app`` works on: an image folder, its counts, the models that learn them, and predictions.

Everything is on disk, so that a page that is reloaded shows it again.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mistnn.data.folder.tables import ONLY_CLASS
from mistnn.data.images import PICTURE_FOLDERS, SUFFIXES, ImageFile
from mistnn.data.text_files import from_cell
from mistnn.devices import DeviceName, find_device
from mistnn.errors import MistError
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.stage import REPORT_FILE
from mistnn.inference.tables import COCO_FILE, COUNTS_FILE, DETECTIONS_FILE
from mistnn.reports.count_page import render_counts
from mistnn.reports.prediction_report import report_on_prediction
from mistnn.web.image_folder import ImageFolder, cell_texts
from mistnn.web.trainings import Trainings

OVERLAYS_FOLDER = PICTURE_FOLDERS[0]
PREDICTIONS = "predictions"
SHEET = "contact-sheet.png"
DOUBTS = {"at_limit": "as many as it can report", "unlike": "unlike the training images"}
"""What a 1 in a column of the table of counts means."""


class Results(NamedTuple):
    """A prediction.

    Attributes:
        header: the names of the columns.
        rows: for each image its name, the count of each class, and how sure the counts are.
        pictures: the images with boxes, with their names.
        files: to download.
        notes: what to know before trusting the counts.
    """

    header: list[str]
    rows: list[list[Any]]
    pictures: list[tuple[Path, str]]
    files: list[Path]
    notes: list[str]


class Workshop:
    """One image folder and a folder for all that is made from it.

    Attributes:
        images: the image folder and its counts.
        training: the models.
        out: model-1, model-2, ... and predictions.
        device: for trainings and predictions.
    """

    def __init__(self, root: Path, out: Path, device: DeviceName = "auto") -> None:
        """Reads the folder, which is created if it is missing; trains and counts on the device.

        Raises:
            MistError: if the folder can't be used, or there is no such device.
        """
        find_device(device)
        if root.resolve() == out.resolve() or out.resolve().is_relative_to(root.resolve()):
            raise MistError(f"--out {out} lies in {root}: give a folder elsewhere, so that results are not images")
        try:
            root.mkdir(parents=True, exist_ok=True)
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MistError(f"can't create {root} or {out} ({error.strerror}): give other folders") from error
        self.out, self.device = out, device
        self.images = ImageFolder(root)
        self.training = Trainings(root, out, device)

    def inspection(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[str], Path]:
        """What ``mist inspect`` says about the folder, and its contact sheet."""
        return self.images.inspection(self.out / SHEET, progress), self.out / SHEET

    def train(self, steps: int | None = None, from_last: bool = False) -> None:
        """Starts the training of a new model, see ``Trainings.start``. Raises ``MistError`` if no image has a count."""
        labels = self.images.labels
        if labels is None or not labels.counts:
            raise MistError("no image has a count yet: give the number of objects in some images first")
        self.training.start(steps, from_last)

    def predict(
        self, everything: bool, progress: Callable[[int, int], None] | None = None, model_name: str = ""
    ) -> Results:
        """Counts the images without counts, or all, by a model; by default, the last one.

        Raises:
            MistError: if there is no model, or no such image.
        """
        usable, labels = self.training.all_usable(), self.images.labels
        model = next((one for one in usable if model_name in ("", one.name)), None)
        if usable and model is None:
            raise MistError(f"{model_name} is gone: reload the page and choose another model")
        if model is None:
            raise MistError("no model has been trained yet: train one first")
        if labels is None:
            raise MistError("add images first")
        # Named as in the folder: two images of different subfolders may have one file name.
        chosen = [
            ImageFile(one.path, one.name)
            for one in sorted(labels.headers, key=lambda one: one.name)
            if everything or one.name not in labels.counts
        ]
        if not chosen:
            raise MistError("every image has a count already: add images, or choose all images")
        predictor = Predictor.from_pretrained(model, self.device)
        predictor.check_counting(None)
        out = self.out / PREDICTIONS
        command = f"mist predict {model} {self.images.root} --out {out}"

        def page(results: Path, summary: Any) -> bytes:
            found = report_on_prediction(predictor, chosen, out, results, summary, command)
            return render_counts(found).encode("utf-8", "replace")

        summary = predict_folder(predictor, chosen, out, force=True, progress=progress, coco=True, report=page)
        notes = [f"Counted by {self.training.describe(model)}", *summary.notes]
        return self.results([*notes, *(f"{file} was skipped: {why}" for file, why in summary.skipped)])

    def results(self, notes: Sequence[str] = ()) -> Results:
        """The last prediction; without rows if there is none."""
        out = self.out / PREDICTIONS
        found: dict[str, dict[str, dict[str, str]]] = {}  # image -> class -> row
        for row in _rows_of(out / COUNTS_FILE):
            found.setdefault(row["file"], {})[row["class"] or ONLY_CLASS] = row
        known = () if self.images.labels is None else self.images.labels.class_names
        names = sorted(next(iter(found.values()), ()), key=lambda name: _place(name, known))
        table = [
            [file, *(int(rows[name]["count"]) for name in names), _how_sure(names, rows)]
            for file, rows in found.items()
        ]
        folder = out / OVERLAYS_FOLDER
        overlays = sorted(path for path in folder.glob("**/*") if path.suffix.lower() in SUFFIXES)
        files = [out / name for name in (COUNTS_FILE, DETECTIONS_FILE, COCO_FILE, REPORT_FILE)]
        return Results(
            ["file", *names, "how sure"],
            table,
            [(path, path.relative_to(folder).as_posix()) for path in overlays],
            [path for path in files if path.exists()],
            list(notes),
        )

    def correct(self, rows: Iterable[Sequence[Any]], shown: Iterable[Sequence[Any]] = (), agreed: bool = False) -> str:
        """Takes corrected rows of ``results`` over as counts. A class that the model does not know keeps its counts.

        Args:
            rows: as they are now.
            shown: as they were: rows that are still the same were not corrected.
            agreed: also take the rows that were not corrected, of images without counts: the user has checked them.

        Raises:
            MistError: if a cell is no count, nothing was corrected, or the classes of the model and the folder do not
                match.
        """
        names, labels = self.results().header[1:-1], self.images.labels
        if labels is None:
            raise MistError("add images first")
        if strange := [name for name in names if name not in labels.class_names]:
            raise MistError(f"the model counts {', '.join(strange)}, which is no class of this folder: train it again")
        rows = list(rows)
        before = {str(name): cell_texts(cells[: len(names)]) for name, *cells in shown}
        changed = [row for row in rows if before.get(str(row[0])) != cell_texts(row[1 : len(names) + 1])]
        if agreed:
            corrected = {str(row[0]) for row in changed}
            changed += [row for row in rows if str(row[0]) not in corrected and str(row[0]) not in labels.counts]
        if not changed:
            raise MistError("no count was corrected: change wrong ones first, or say that you have checked the others")
        taken: list[list[Any]] = []
        for name, *cells in changed:
            counted = dict(zip(names, cells, strict=False))
            known = dict(zip(labels.class_names, labels.counts.get(str(name), ()), strict=False))
            lacking = [one for one in labels.class_names if one not in counted and one not in known]
            empty = all(value is None or not str(value).strip() for value in counted.values())
            if lacking and not empty:
                raise MistError(
                    f"{name}: the model does not count {', '.join(lacking)}: give these counts in the first tab, or "
                    "train a new model, before you save"
                )
            taken.append([name, *("" if empty else counted.get(one, known.get(one)) for one in labels.class_names)])
        said = self.images.save_rows(taken)
        return f"{len(taken)} image{'s' * (len(taken) != 1)} saved; {said}"


def _place(name: str, known: Sequence[str]) -> int:
    """Where a class stands in the folder's order; new ones come last."""
    return known.index(name) if name in known else len(known)


def _how_sure(names: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> str:
    """The intervals of an image's counts, where the model has some, and what to check."""
    intervals = [
        f"{name} " * (len(names) > 1) + f"{rows[name]['low']} to {rows[name]['high']}"
        for name in names
        if rows[name]["low"]
    ]
    doubts = [text for column, text in DOUBTS.items() if any(row[column] == "1" for row in rows.values())]
    return "; ".join(filter(None, (", ".join(intervals), ", ".join(doubts))))


def _rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as table:
        return [{name: from_cell(cell) for name, cell in row.items()} for row in csv.DictReader(table)]
