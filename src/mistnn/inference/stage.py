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
from mistnn.errors import MistError
from mistnn.files import replace_file, sync_folder
from mistnn.inference.predictor import Predictor
from mistnn.inference.tables import COCO_FILE, COUNTS_FILE
from mistnn.weights import package_version, strict_converter, tensor_digest

REPORT_FILE = "predicted.html"
"""The page about a prediction."""
RESULTS = (DETECTIONS_FILE, COUNTS_FILE, COCO_FILE, REPORT_FILE, *PICTURE_FOLDERS)

RECORD_SECONDS = 5.0
"""Interval between two records of a prediction's progress: the most that a stop can cost."""

_STAGE, _RECORD, _FORMAT = ".predict.part", "record.json", 2
# Files of a training run; results are not mixed into its folder unasked.
_RUN = ("config.json", "model.safetensors", "metrics.jsonl", "metrics.json", "checkpoint", "report.html")

Settings = Mapping[str, Any]
"""What must be unchanged for a prediction to continue; see ``settings_of``."""


@dataclass
class Tally:
    """The progress of a prediction; counts as in ``PredictSummary``.

    Attributes:
        done: number of files processed, in their order.
        limit: the most objects that the model reports in one of the images ``at_limit``; 0 if there is none.
        room: the most objects that can be found in any image with room for fewer than K; 0 if there is none.
        skipped: (index, name, reason) of skipped files.
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
    """The hidden folder of a prediction, and its state: that of an earlier run if it continues one."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record
        self._last = time.monotonic()

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
        # Images that were opened ahead are not done: those skipped among them will be opened again.
        done = [one for one in tally.skipped if one[0] < tally.done]
        self.record = Record(self.record.settings, Tally(**{**asdict(tally), "skipped": done}), lengths, coco)
        self._write()
        self._last = time.monotonic()

    def complete(self, tally: Tally) -> None:
        """Records that all results are complete; from now on ``_publish`` can be repeated."""
        self.record.tally = tally
        self.record.made = [name for name in RESULTS if (self.folder / name).exists()]
        self._write()

    def _write(self) -> None:
        content = json.dumps({"format": _FORMAT, **asdict(self.record)}, indent=1)
        replace_file(self.folder / _RECORD, content.encode())


@contextlib.contextmanager
def staged(out: Path, force: bool, settings: Settings, resume: bool) -> Iterator[Stage]:
    """A folder inside ``out`` whose results move into ``out`` when the block ends without an error.

    After an error it is removed, unless its progress has been recorded: then it stays, for ``resume``. The caller holds
    the lock of ``out``, see ``files.locked``.

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
        yield stage
        _publish(stage, out)
    except BaseException as error:
        keeps = stage.recorded and not isinstance(error, MistError)
        if not isinstance(error, OSError):
            raise
        more = "; then continue with the same command and --resume" if keeps else ""
        raise MistError(
            f"can't write to --out {out} ({error.strerror or error}): give a writable folder with enough space" + more
        ) from error
    finally:
        if not keeps:
            _remove(folder)


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
    if os.path.lexists(out / COUNTS_FILE) and not holds_results(out) and not _is_complete(folder):
        raise MistError(
            f"--out {out} holds a {COUNTS_FILE} that no prediction wrote, perhaps your own counts: give another folder"
        )
    if held and not force:
        raise MistError(
            f"--out {out} already holds {', '.join(held)}: give another folder, or --force to replace results"
        )


def _is_complete(folder: Path) -> bool:
    """Whether a stage holds the record of a prediction that was complete when it was killed."""
    try:
        return bool(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["made"])
    except (OSError, ValueError, KeyError, TypeError):
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
    try:
        return int(json.loads((out / _STAGE / _RECORD).read_text(encoding="utf-8"))["tally"]["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def settings_of(predictor: Predictor, files: Sequence[ImageFile], options: Settings) -> Settings:
    """What a prediction depends on: its options by their names, and its model and its images by their hashes."""
    model = predictor.model
    return {
        "mistnn": package_version(),
        "torch": torch.__version__,
        "device": predictor.device.type,
        "model": f"{type(model).__name__} {model.config!r} {model.class_names} {tensor_digest(model.state_dict())}",
        **options,
        "largest image in one piece": predictor.max_pixels,
        "number of images": len(files),
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
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
    for name in RESULTS:
        new = stage.folder / name
        if os.path.lexists(out / name) and (new.exists() or name not in stage.record.made):
            os.replace(out / name, old / name)
        if new.exists():
            os.replace(new, out / name)
    sync_folder(out)
