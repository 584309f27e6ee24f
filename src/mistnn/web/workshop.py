"""What the page of ``mist app`` works on: an image folder, its counts, the models that learn them, and predictions.

Everything is on disk, so that a page that is reloaded shows it again. Training runs in a process of its own, which is
the command ``mist train``: it can be stopped and continued from a terminal too.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mistnn.data.folder.files import NameMatcher
from mistnn.data.folder.tables import ONLY_CLASS, TABLE_SUFFIXES, Table, read_table
from mistnn.data.images import PICTURE_FOLDERS, SUFFIXES, UnreadableImage, open_image
from mistnn.data.text_files import printable
from mistnn.devices import DeviceName, find_device
from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.files import PART
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.pictures import displayed
from mistnn.inference.stage import REPORT_FILE
from mistnn.inference.tables import COCO_FILE, COUNTS_FILE, DETECTIONS_FILE
from mistnn.reports.count_page import render_counts
from mistnn.reports.inspection import describe, inspect_folder, write_sheet
from mistnn.reports.prediction_report import report_on_prediction
from mistnn.training.runfolder import CHECKPOINT, CONFIG, METRICS, MODEL
from mistnn.web.labels import Labels
from mistnn.web.watching import Watched, watched_images

OVERLAYS_FOLDER = PICTURE_FOLDERS[0]
MODEL_PREFIX = "model-"
PREDICTIONS = "predictions"
DOUBTS = {"at_limit": "as many as it can report", "unlike": "unlike the training images"}
"""What a 1 in a column of the table of counts means."""
LOSSES = {"count_error": "error of a count, training images", "classification": "loss of classes, training images"}
"""What is drawn of a training: the first of these that it logs. Models of photographs log the error of their counts."""
CHECKED, GUESS = "evaluate/count_error", "evaluate/count_error_mean"
SHEET = "contact-sheet.png"
LONGEST = 1200
"""The longest side of an image that is shown, in pixels."""
MOMENT = 10.0
"""Seconds."""
GRACE = 30.0
"""Seconds that a training process has to save its checkpoint, before it is killed at the end of the app."""


class Progress(NamedTuple):
    """How far the training of the last model is.

    Attributes:
        state: "none": there is no model; "running"; "stopped": it can go on; "failed"; "trained".
        model: the name of its run folder; empty if there is none.
        step: done, of ``steps``; 0 while the folder is read.
        loss: what ``losses`` hold: the error of a count, or for models that learn by another loss, that.
        losses: (step, mean over training batches).
        checked: (step, error of the counts of the validation images).
        guess: the error of always guessing the mean count of the training images; ``None`` if it is not known.
        message: the last line of a run that failed, or what a run is doing.
    """

    state: str
    model: str
    step: int
    steps: int
    loss: str
    losses: Sequence[tuple[int, float]]
    checked: Sequence[tuple[int, float]]
    guess: float | None
    message: str


class Results(NamedTuple):
    """A prediction.

    Attributes:
        header: the names of the columns.
        rows: for each image its name, the count of each class, and what to check.
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
        root: the images, and ``counts.csv``.
        out: model-1, model-2, ... and predictions.
        labels: the images and their counts; ``None`` while there is no image.
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
        self.root, self.out, self.device = root, out, device
        self.labels: Labels | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = -MOMENT
        self._lock, self._watched = threading.RLock(), Watched()
        self.reload()

    # Images and counts

    def reload(self, class_names: Sequence[str] = ()) -> None:
        """Reads the folder again. Raises ``MistError`` if its images or counts can't be used."""
        with self._lock:
            some = any(one.suffix.lower() in SUFFIXES for one in self.root.iterdir())
            self.labels = Labels(self.root, class_names) if some else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; one without a name of its own while there are no images."""
        return (ONLY_CLASS,) if self.labels is None else self.labels.class_names

    def name_classes(self, text: str) -> None:
        """Sets the classes from names with commas between them. Raises ``MistError`` if counts would be lost."""
        names = tuple(one.strip() for one in text.split(",") if one.strip())
        if not names:
            raise MistError("give the names of the classes with commas between them, such as: red cells, white cells")
        if self.labels is None:
            raise MistError("add images first")
        self.reload(names)

    def add(self, paths: Iterable[Path]) -> list[str]:
        """Copies images into the folder and reads tables of counts; returns what happened, one line each."""
        with self._lock:
            tables: list[Path] = []
            notes: list[str] = []
            added = 0
            for path in paths:
                if path.suffix.lower() in TABLE_SUFFIXES:
                    tables.append(path)
                elif (why := self._refused(path)) is not None:
                    notes.append(f"{path.name} was not added: {why}")
                else:
                    self._copy(path)  # at once: the next one may have the same name
                    added += 1
            if added:
                notes.insert(0, "1 image added" if added == 1 else f"{added} images added")
                self.reload(() if self.labels is None else self.labels.class_names)
            for path in tables:
                try:
                    notes.append(self.read_counts(path))
                except (MistError, ValueError) as error:
                    notes.append(f"no counts were read: {error}")
            return list(map(printable, notes))

    def _copy(self, path: Path) -> None:
        """Copies an image into the folder, under a hidden name until it is whole."""
        part = self.root / f".upload{PART}"  # always the same, so that a kill leaves one; the image's may be too long
        try:
            shutil.copyfile(path, part)
            os.replace(part, self.root / path.name)
        except OSError as error:
            raise MistError(
                f"{printable(path.name)} can't be added to {self.root} ({error.strerror or error}): make room, or "
                "change its permissions; images before it are there"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # already renamed on success
                part.unlink()

    def _refused(self, path: Path) -> str | None:
        """Why an image can't be added; ``None`` if it can."""
        if path.suffix.lower() not in SUFFIXES:
            return f"it is neither an image nor a table ({', '.join(sorted(TABLE_SUFFIXES))})"
        if path.name.startswith("."):
            return "its name begins with a dot"
        there = self.root / path.name
        if there.exists():
            same = there.is_file() and there.read_bytes() == path.read_bytes()
            return "it is there already" if same else "another image has this name: rename it"
        try:
            open_image(path)
        except UnreadableImage as error:
            return str(error)
        return None

    def read_counts(self, path: Path) -> str:
        """Takes the counts of a table over, beside those that are known. Raises ``MistError`` if it can't be used."""
        with self._lock:
            if self.labels is None:
                raise MistError("add the images first, and then the table of their counts")
            matcher = NameMatcher([one.name for one in self.labels.headers])
            table = read_table(path, matcher, "counts")
            names = self._joined(table)
            if names != self.labels.class_names:
                self.reload(names)
            labels = self.labels
            order = [labels.class_names.index(name) for name in table.class_names]
            counts: dict[str, list[int]] = {}
            for name, values in table.values.items():
                row = list(labels.counts.get(name, (0,) * len(labels.class_names)))
                for place, value in zip(order, values, strict=True):
                    row[place] = value
                counts[name] = row
            labels.set_all(counts)
            return "; ".join(
                [f"counts of {len(counts)} image{'s' * (len(counts) != 1)} read from {path.name}", *table.notes]
            )

    def _joined(self, table: Table) -> tuple[str, ...]:
        """The classes of the folder and of a table. Without any count, only those of the table."""
        assert self.labels is not None
        known = self.labels.class_names if self.labels.counts else ()
        return (*known, *(name for name in table.class_names if name not in known))

    def rows(self) -> list[list[Any]]:
        """For each image its name and its counts, empty where they are unknown; by name."""
        labels = self.labels
        if labels is None:
            return []
        empty = ("",) * len(labels.class_names)
        names = sorted(one.name for one in labels.headers)
        return [[name, *labels.counts.get(name, empty)] for name in names]

    def save_rows(self, rows: Iterable[Sequence[Any]]) -> str:
        """Saves rows as those of ``rows``. Raises ``MistError`` if a count is none."""
        with self._lock:
            if self.labels is None:
                raise MistError("add images first")
            counts = {str(name): _counts(str(name), values) for name, *values in rows}
            try:
                self.labels.set_all(counts)
            except ValueError as error:
                raise MistError(str(error)) from error
            return f"{len(self.labels.counts)} of {len(self.labels.headers)} images have counts"

    def picture(self, name: str) -> Image.Image:
        """An image as it is shown. Raises ``MistError`` if there is none of this name, or it can't be decoded."""
        headers = [] if self.labels is None else self.labels.headers
        path = next((one.path for one in headers if one.name == name), None)
        if path is None:
            raise MistError(f"no image is called {name!r}: reload the page")
        try:
            image = displayed(open_image(path))
        except UnreadableImage as error:
            raise MistError(f"{name}: {error}") from error
        image.thumbnail((LONGEST, LONGEST))
        return image

    def inspection(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[str], Path]:
        """What ``mist inspect`` says about the folder, and its contact sheet."""
        found = inspect_folder(self.root, progress)
        write_sheet(found, self.out / SHEET)
        return describe(found), self.out / SHEET

    # Training

    def models(self) -> list[Path]:
        """The run folders, the last one first."""
        found = [one for one in self.out.glob(f"{MODEL_PREFIX}*") if one.name[len(MODEL_PREFIX) :].isdigit()]
        return sorted((one for one in found if one.is_dir()), key=lambda one: -int(one.name[len(MODEL_PREFIX) :]))

    def train(self, steps: int | None = None, from_last: bool = False) -> None:
        """Starts the training of a new model.

        Args:
            steps: of training; by default as many as the plan says.
            from_last: start from the weights of the last model.

        Raises:
            MistError: if a training is running, or no image has a count.
        """
        with self._lock:
            self._check_idle()
            if self.labels is None or not self.labels.counts:
                raise MistError("no image has a count yet: give the number of objects in some images first")
            models = self.models()
            number = int(models[0].name[len(MODEL_PREFIX) :]) + 1 if models else 1
            out = self.out / f"{MODEL_PREFIX}{number}"
            command = ["train", "my-folder", "--data-root", str(self.root), "--out", str(out)]
            command += ["--train.device", self.device]
            if steps is not None:
                command += ["--train.steps", str(steps)]
            if from_last:
                if not models or not (models[0] / MODEL).exists():
                    raise MistError("there is no trained model to go on from: train one first")
                command += ["--start-from", str(models[0])]
            self._start(command, out)

    def go_on(self) -> None:
        """Continues the last training. Raises ``MistError`` if there is none that was stopped."""
        with self._lock:
            self._check_idle()
            if self.progress().state not in ("stopped", "failed"):
                raise MistError("no training was stopped: start a new one")
            last = self.models()[0]
            if not (last / CONFIG).exists():
                raise MistError(f"{last.name} ended before it had saved anything: train again")
            self._start(
                ["train", "--resume", str(last), "--data-root", str(self.root), "--train.device", self.device], last
            )

    def stop(self) -> None:
        """Asks the training to save its state and stop. Raises ``MistError`` if none is running."""
        with self._lock:
            if not self.running:
                raise MistError("no training is running")
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Stops the training, and waits until it has saved its state."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def running(self) -> bool:
        """Whether a training is running."""
        return self._process is not None and self._process.poll() is None

    def news(self) -> bool:
        """Whether there may be something new about the training: it runs, or has ended a moment ago."""
        if self.running:
            self._ran = time.monotonic()
        return time.monotonic() - self._ran < MOMENT

    def _check_idle(self) -> None:
        if self.running:
            raise MistError("a training is running: stop it first")

    def _start(self, arguments: Sequence[str], out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = self._log(out).open("ab")
        except OSError as error:
            raise MistError(
                f"can't write to {self.out} ({error.strerror or error}): make room, or change its permissions"
            ) from error
        with file as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mistnn", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )

    @staticmethod
    def _log(out: Path) -> Path:
        return out.with_suffix(".log")

    def progress(self) -> Progress:
        """How far the last training is."""
        models = self.models()
        if not models:
            return Progress("none", "", 0, 0, "", (), (), None, "No model has been trained yet.")
        out = models[0]
        lines = [line for line in _json_lines(out / METRICS) if "step" in line]
        step = max((int(line["step"]) for line in lines), default=0)
        said = self._log(out).read_text("utf-8", "replace").splitlines() if self._log(out).exists() else []
        last = next((line for line in reversed(said) if line.strip()), "")
        steps, trouble = 0, ""
        try:
            steps = restore(out).train.steps if (out / CONFIG).exists() else 0
        except MistError as error:
            trouble = str(error)
        state = "running" if self.running else self._ended(out, step, steps)
        if state == "running":
            last = f"step {step} of {steps}{time_left(lines, steps)}" if step else last or "reading the images"
        elif state == "trained":
            last = f"{steps} steps are done"
        elif state == "stopped" and step:
            last = f"step {step} of {steps}; Go on continues"
        key = next((one for one in LOSSES if any(one in line for line in lines)), "")
        return Progress(
            state,
            out.name,
            step,
            steps,
            LOSSES.get(key, ""),
            [(int(line["step"]), float(line[key])) for line in lines if key in line],
            [(int(line["step"]), float(line[CHECKED])) for line in lines if CHECKED in line],
            next((float(line[GUESS]) for line in reversed(lines) if GUESS in line), None),
            trouble or last,
        )

    def _ended(self, out: Path, step: int, steps: int) -> str:
        if self._process is not None and self._process.returncode not in (0, 130, -signal.SIGINT):
            return "failed"
        if steps and step >= steps and (out / MODEL).exists():
            return "trained"
        return "stopped" if (out / CHECKPOINT).exists() or (out / CONFIG).exists() else "failed"

    def watch(self) -> list[tuple[Image.Image, str]]:
        """Validation images with boxes and heat maps of the last model, as far as it has learned.

        Empty while there is no model, or it can't be used: ``trouble`` then says why.
        """
        models = [one for one in self.models() if (one / MODEL).exists()]
        return watched_images(self._watched, models[0], self.root) if models else []

    @property
    def trouble(self) -> str:
        """Why ``watch`` has no pictures of the last model, in one line; else empty."""
        return self._watched.trouble

    # Prediction

    def predict(self, everything: bool, progress: Callable[[int, int], None] | None = None) -> Results:
        """Counts the images without counts, or all, by the last model.

        Raises:
            MistError: if there is no model, or no such image.
        """
        models = [one for one in self.models() if (one / MODEL).exists()]
        if not models:
            raise MistError("no model has been trained yet: train one first")
        if self.labels is None:
            raise MistError("add images first")
        labels = self.labels
        chosen = sorted(one.path for one in labels.headers if everything or one.name not in labels.counts)
        if not chosen:
            raise MistError("every image has a count already: add images, or choose all images")
        predictor = Predictor.from_pretrained(models[0], self.device)
        predictor.check_counting(None)
        out = self.out / PREDICTIONS
        command = f"mist predict {models[0]} {self.root} --out {out}"

        def page(results: Path, summary: Any) -> bytes:
            found = report_on_prediction(predictor, chosen, out, results, summary, command)
            return render_counts(found).encode("utf-8", "replace")

        summary = predict_folder(predictor, chosen, out, force=True, progress=progress, coco=True, report=page)
        notes = [*summary.notes, *(f"{file} was skipped: {why}" for file, why in summary.skipped)]
        return self.results(notes)

    def results(self, notes: Sequence[str] = ()) -> Results:
        """The last prediction; without rows if there is none."""
        out = self.out / PREDICTIONS
        counts: dict[str, list[int]] = {}
        doubts: dict[str, dict[str, None]] = {}
        names: dict[str, None] = {}
        for row in _rows_of(out / COUNTS_FILE):
            names[row["class"] or ONLY_CLASS] = None
            counts.setdefault(row["file"], []).append(int(row["count"]))
            said = doubts.setdefault(row["file"], {})
            said.update({text: None for column, text in DOUBTS.items() if row[column] == "1"})
        table = [[file, *numbers, ", ".join(doubts[file])] for file, numbers in counts.items()]
        folder = out / OVERLAYS_FOLDER
        overlays = sorted(path for path in folder.glob("**/*") if path.suffix.lower() in SUFFIXES)
        files = [out / name for name in (COUNTS_FILE, DETECTIONS_FILE, COCO_FILE, REPORT_FILE)]
        return Results(
            ["file", *names, "look at it"],
            table,
            [(path, path.relative_to(folder).as_posix()) for path in overlays],
            [path for path in files if path.exists()],
            list(notes),
        )

    def correct(self, rows: Iterable[Sequence[Any]]) -> str:
        """Takes corrected counts of a prediction over as counts. Raises ``MistError`` if one is no count."""
        size = len(self.class_names)
        return self.save_rows([row[: 1 + size] for row in rows])


def _counts(name: str, values: Sequence[Any]) -> list[int] | None:
    """The counts in the cells of a row; ``None`` if all are empty."""
    texts = ["" if value is None or value != value else str(value).strip() for value in values]
    if not any(texts):
        return None
    numbers = []
    for text in texts:
        try:
            number = float(text or 0)
            numbers.append(int(number))
        except (ValueError, OverflowError):
            raise MistError(f"{name}: {text!r} is not a whole number from 0") from None
        if number != numbers[-1] or number < 0:
            raise MistError(f"{name}: {text!r} is not a whole number from 0")
    return numbers


def _rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as table:
        return list(csv.DictReader(table))


def time_left(lines: Sequence[Mapping[str, Any]], steps: int) -> str:
    """How long a training takes from now on, as a part of a sentence; empty before the second entry of its log."""
    timed = [(int(line["step"]), float(line["seconds"])) for line in lines if "seconds" in line]
    last = timed[-1] if timed else (0, 0.0)
    before = next((one for one in reversed(timed) if one[0] < last[0] and one[1] < last[1]), None)
    if before is None:
        return ""
    minutes = (steps - last[0]) * (last[1] - before[1]) / (last[0] - before[0]) / 60
    return f", about {minutes:.0f} min left" if minutes >= 1.5 else ", about a minute left or less"


def _json_lines(path: Path) -> list[Mapping[str, Any]]:
    """The whole lines of a log that is being written."""
    lines = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # the last one is not complete yet
            break
    return lines
