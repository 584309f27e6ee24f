"""The hidden folder that collects results until a prediction is done, and from which a stopped one continues."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cattrs
import torch

from mistnn.data.images import DETECTIONS_FILE, PICTURE_FOLDERS, ImageFile, holds_results
from mistnn.data.text_files import listed
from mistnn.errors import MistError
from mistnn.files import replace_file, sync_folder
from mistnn.inference.other_formats import FOLDERS, MARKER
from mistnn.inference.predictor import Predictor
from mistnn.inference.tables import COCO_FILE, COUNTS_FILE
from mistnn.nn.mixed_precision import computed_in
from mistnn.weights import package_version, strict_converter, tensor_digest

REPORT_FILE = "predicted.html"
"""The page about a prediction."""
RESULTS = (DETECTIONS_FILE, COUNTS_FILE, COCO_FILE, REPORT_FILE, *PICTURE_FOLDERS)

RECORD_SECONDS = 5.0
"""Interval between two records of a prediction's progress: the most that a stop can cost."""

_STAGE, _RECORD, _WORKING, _FORMAT = ".predict.part", "record.json", "working", 3
_PROCESS = "process-"
"""Begins the names of the folders of the other processes, in that of the main one."""
# Files of a training run; results are not mixed into its folder unasked.
_RUN = ("config.json", "model.safetensors", "metrics.jsonl", "metrics.json", "checkpoint", "report.html")

_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, cattrs.BaseValidationError
)  # fmt: skip

Settings = Mapping[str, Any]
"""What must be unchanged for a prediction to continue; see ``settings_of``."""


@dataclass
class Tally:
    """The progress of a prediction; counts as in ``PredictSummary``.

    Attributes:
        done: number of files processed, in their order; of this process, if several share the prediction.
        limit: the most objects that the model reports in one of the images ``at_limit``; 0 if there is none.
        room: the most objects that can be found in any image with room for fewer than K; 0 if there is none.
        skipped: (index, name, reason) of skipped files.
        stacks: "name: pages" of the files with several pages.
    """

    done: int = 0
    images: int = 0
    detections: int = 0
    approximate: int = 0
    at_limit: int = 0
    limit: int = 0
    unlike: int = 0
    room: int = 0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    stacks: list[str] = field(default_factory=list)

    def plus(self, other: Tally) -> Tally:
        """Both together; ``other`` is of later files."""
        ours, theirs = asdict(self), asdict(other)
        return Tally(
            **{
                name: max(ours[name], theirs[name]) if name in ("limit", "room") else ours[name] + theirs[name]
                for name in ours
            }
        )

    @property
    def flagged(self) -> tuple[int, int, int]:
        """``at_limit``, ``limit`` and ``unlike``."""
        return self.at_limit, self.limit, self.unlike


@dataclass
class Record:
    """The stored state of a prediction.

    Attributes:
        lengths: of the tables at that time, in bytes.
        coco: entries of the COCO file at that time: images, objects.
        made: the names of all results once they are complete; empty before.
    """

    settings: Settings
    tally: Tally = field(default_factory=Tally)
    lengths: dict[str, int] = field(default_factory=dict)
    coco: tuple[int, int] = (0, 0)
    made: list[str] = field(default_factory=list)


class Stage:
    """The hidden folder of a prediction, and its state: that of an earlier run if it continues one.

    Where several processes share a prediction, each has a ``folder`` of its own inside that of the main process, the
    ``whole`` one, which also holds the pictures of all.
    """

    def __init__(self, folder: Path, record: Record, whole: Path | None = None) -> None:
        self.folder, self.record = folder, record
        self.whole = folder if whole is None else whole
        self._last = time.monotonic()
        self._working: int | None = None

    @property
    def recorded(self) -> bool:
        """Whether its progress has been recorded."""
        return (self.folder / _RECORD).is_file()

    @property
    def due(self) -> bool:
        """Whether it is time to record the progress."""
        return time.monotonic() - self._last >= RECORD_SECONDS

    def keep(self, tally: Tally, lengths: dict[str, int], coco: tuple[int, int]) -> None:
        """Records the progress; the tables must be on disk up to ``lengths``."""
        self.record = Record(self.record.settings, tally, lengths, coco)
        self._write()
        self._last = time.monotonic()

    def working_on(self, names: Sequence[str]) -> None:
        """Notes which images are being processed, in case the process dies; see ``died_at``."""
        if self._working is None:
            self._working = os.open(self.folder / _WORKING, os.O_RDWR | os.O_CREAT, 0o666)
        note = os.fsencode(names[0] + (f" to {names[-1]}" if len(names) > 1 else ""))
        os.pwrite(self._working, note, 0)
        os.ftruncate(self._working, len(note))

    def not_working(self) -> None:
        """Removes the note of ``working_on``: the process didn't die."""
        if self._working is not None:
            os.close(self._working)
            self._working = None
            (self.folder / _WORKING).unlink(missing_ok=True)

    def others(self, count: int) -> Iterator[tuple[Path, Record]]:
        """The folders and the records of the other processes, when all are done."""
        for rank in range(1, count):
            folder = self.folder / f"{_PROCESS}{rank}"
            yield folder, _read(folder, self.folder.parent, self.record.settings)

    def complete(self, tally: Tally) -> None:
        """Records that all results are complete; from now on ``_publish`` can be repeated."""
        self.record.tally = tally
        self.record.made = [name for name in RESULTS if (self.folder / name).exists()]
        self._write()

    def _write(self) -> None:
        content = json.dumps({"format": _FORMAT, **asdict(self.record)}, indent=1)
        replace_file(self.folder / _RECORD, content.encode())


@contextlib.contextmanager
def staged(out: Path, force: bool, settings: Settings, resume: bool, shared: bool = False) -> Iterator[Stage]:
    """A folder inside ``out`` whose results move into ``out`` when the block ends without an error.

    After an error it is removed, unless its progress has been recorded: then it stays, for ``resume``. The caller holds
    the lock of ``out``, see ``files.locked``. A ``shared`` one, of several processes, always stays after an error: the
    others may still write to it.

    Raises:
        MistError: if ``out`` can't be written to, or holds results or a run; or there is nothing to resume, or it has
            other settings.
    """
    folder = out / _STAGE
    record = _read(folder, out, settings) if resume else Record(settings)
    _check_free(out, folder, force, record)
    stage = Stage(folder, record)
    keeps = False
    try:
        if not record.lengths and not record.made:
            _remove(folder)  # of a run that was killed
        if not record.made:  # else what is missing in it has moved already
            (folder / PICTURE_FOLDERS[0]).mkdir(parents=True, exist_ok=True)
        if shared and not record.made:
            stage.keep(record.tally, record.lengths, record.coco)  # so that the records of the others count
        yield stage
        _publish(stage, out)
    except BaseException as error:
        keeps = shared or (stage.recorded and not isinstance(error, MistError))
        if not isinstance(error, OSError):
            raise
        raise _cannot_write(out, error, keeps) from error
    finally:
        stage.not_working()
        if not keeps:
            _remove(folder)


@contextlib.contextmanager
def shared_stage(out: Path, settings: Settings, resume: bool, rank: int) -> Iterator[Stage]:
    """The folder of another process than the main one, whose ``staged`` folder exists already.

    Raises:
        MistError: if ``out`` can't be written to, or the record of this process is damaged.
    """
    whole = out / _STAGE
    folder = whole / f"{_PROCESS}{rank}"
    record = _read(folder, out, settings) if resume and (folder / _RECORD).exists() else Record(settings)
    if resume and _is_complete(whole):
        record.made = list(RESULTS)
    stage = Stage(folder, record, whole)
    try:
        folder.mkdir(exist_ok=True)
        yield stage
    except OSError as error:
        raise _cannot_write(out, error, stage.recorded) from error
    finally:
        stage.not_working()


def _cannot_write(out: Path, error: OSError, keeps: bool) -> MistError:
    more = "; then continue with the same command and --resume" if keeps else ""
    return MistError(
        f"can't write to --out {out} ({error.strerror or error}): give a writable folder with enough space" + more
    )


def _check_free(out: Path, folder: Path, force: bool, record: Record) -> None:
    """Raises ``MistError`` if ``out`` holds what this prediction may not replace."""
    if record.made:  # its results have been moved in part
        return
    held = [name for name in (*RESULTS, *_RUN) if os.path.lexists(out / name)]
    if held and not force and _is_complete(folder):
        raise MistError(
            f"--out {out}: a prediction was killed while its results were moved here: the same command with --resume "
            "completes it; or give another folder, or --force to start again"
        )
    foreign = [name for name in held if name in RESULTS] if not (holds_results(out) or _is_complete(folder)) else []
    if foreign:
        perhaps = "perhaps your own counts" if COUNTS_FILE in foreign else "perhaps your own"
        raise MistError(
            f"--out {out} holds {listed(foreign)} that no prediction wrote, {perhaps}: give another folder, or rename "
            "them"
        )
    if held and not force:
        raise MistError(
            f"--out {out} already holds {', '.join(held)}: give another folder, or --force to replace results"
        )


def _is_complete(folder: Path) -> bool:
    """Whether a stage holds the record of a prediction that was complete when it was killed."""
    try:
        return bool(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["made"])
    except _DAMAGED:
        return False


def _remove(folder: Path) -> None:
    """Removes a stage, its record last: a removal that was interrupted can be repeated."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _RECORD):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        folder.rmdir()


def stopped_after(out: Path) -> int | None:
    """The number of files that a stopped prediction in ``out`` has processed; ``None`` if there is none to resume."""
    done = None
    for folder in (out / _STAGE, *sorted((out / _STAGE).glob(f"{_PROCESS}*"))):
        with contextlib.suppress(*_DAMAGED):
            one = int(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["tally"]["done"])
            done = (done or 0) + one
    return done


def died_at(out: Path) -> list[str]:
    """The images that processes worked on when they died, without an error or a signal that ends a prediction."""
    places = [out / _STAGE / _WORKING, *sorted((out / _STAGE).glob(f"{_PROCESS}*/{_WORKING}"))]
    return [os.fsdecode(place.read_bytes()) for place in places if place.is_file()]


def settings_of(predictor: Predictor, files: Sequence[ImageFile], options: Settings) -> Settings:
    """What a prediction depends on: its options by their names, and its model and its images by their hashes."""
    identity = identity_of(predictor, files)
    return {
        "mistnn": package_version(),
        "torch": torch.__version__,
        "device": predictor.device.type,
        "model": identity["model"],
        **options,
        "--precision": computed_in(predictor.precision, predictor.device.type),
        "largest image in one piece": predictor.max_pixels,
        "number of images": len(files),
        "images": identity["images"],
    }


def identity_of(predictor: Predictor, files: Sequence[ImageFile]) -> dict[str, str]:
    """The model and the images of a prediction, by their hashes."""
    model = predictor.model
    return {
        "model": f"{type(model).__name__} {model.config!r} {model.class_names} {tensor_digest(model.state_dict())}",
        "images": _hash_of_files(files),
    }


def _hash_of_files(files: Sequence[ImageFile]) -> str:
    """A hash of names, sizes and modification times: reading every image would take as long as predicting."""
    found = hashlib.sha256()
    for file in files:
        about = (-1, 0)
        with contextlib.suppress(OSError):  # a broken link is skipped and named later
            status = file.path.stat()
            about = (status.st_size, status.st_mtime_ns)
        found.update(os.fsencode(file.name) + b"\0" + repr(about).encode())
    return found.hexdigest()


def _read(folder: Path, out: Path, settings: Settings) -> Record:
    """The record of a stopped prediction; raises if there is none, it is damaged, or it has other settings."""
    again = "leave out --resume to start again"
    path = folder / _RECORD
    if not path.is_file():
        raise MistError(f"--resume: {out} holds no stopped prediction: leave out --resume")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise MistError(f"--resume: {path} was written by another version: {again}")
        record = strict_converter().structure(content, Record)
    except _DAMAGED as error:
        raise MistError(f"--resume: {path} is damaged ({type(error).__name__}): {again}") from error
    for name, length in () if record.made else record.lengths.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size < length:
            raise MistError(f"--resume: {folder / name} is shorter than it was, or gone: {again}")
    for name, value in settings.items():
        before = record.settings.get(name)
        if before != value:
            changes = {
                "images": "images have changed since the start: restore them",
                "model": "the prediction was started with another model: give that one",
            }
            other = f"{name} was {_shown(before)} at the start and is {_shown(value)} now: give the same"
            raise MistError(f"--resume: {changes.get(name, other)}, or {again}")
    return record


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


def _publish(stage: Stage, out: Path) -> None:
    """Moves the results into ``out`` and removes earlier ones. Can be interrupted and repeated."""
    old = stage.folder / "old"
    shutil.rmtree(old, ignore_errors=True)  # of a move that was interrupted
    old.mkdir(exist_ok=True)
    for name in FOLDERS.values():  # files of other programs for the earlier results; new ones are written later
        if (out / name / MARKER).is_file():
            os.replace(out / name, old / name)
    for name in RESULTS:
        new = stage.folder / name
        if os.path.lexists(out / name) and (new.exists() or name not in stage.record.made):
            os.replace(out / name, old / name)
        if new.exists():
            os.replace(new, out / name)
    sync_folder(out)
