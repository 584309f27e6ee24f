"""The folder in which a prediction grows until it is done, and from which a stopped one goes on."""

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

import torch
from torch import nn

from mistnn.data.images import DETECTIONS_FILE, PICTURE_FOLDERS, ImageFile, holds_results
from mistnn.errors import MistError
from mistnn.files import replace_file
from mistnn.inference.predictor import Predictor
from mistnn.inference.tables import COCO_FILE, COUNTS_FILE
from mistnn.weights.store import package_version

REPORT_FILE = "predicted.html"
"""The page about a prediction."""
RESULTS = (DETECTIONS_FILE, COUNTS_FILE, COCO_FILE, REPORT_FILE, *PICTURE_FOLDERS)

RECORD_SECONDS = 5.0
"""So often it is written down how far a prediction is: what a stop costs at most."""

_STAGE, _RECORD = ".predict.part", "record.json"
_FORMAT = 1
# A training run lives here: results are not mixed into it unasked.
_RUN = ("config.json", "model.safetensors", "metrics.jsonl", "metrics.json", "checkpoint", "report.html")

Settings = Mapping[str, str | int | bool | None]
"""What must be the same for a prediction to go on; see ``settings_of``."""


@dataclass
class Tally:
    """How far a prediction is.

    Attributes:
        done: files passed, in their order.
        images: of them predicted.
        detections: objects found.
        approximate: images that went through in tiles normalised on their own.
        room: most objects that fit into an image that has room for fewer than K; 0 if there is no such image.
        skipped: (place in the order, name, reason) of files passed over.
    """

    done: int = 0
    images: int = 0
    detections: int = 0
    approximate: int = 0
    room: int = 0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass
class Record:
    """What is written down.

    Attributes:
        settings: of the prediction.
        tally: how far it is.
        lengths: bytes of the tables up to there.
        coco: entries of the COCO file up to there: images, objects.
        made: the names of all results once they are complete; empty before.
    """

    settings: Settings
    tally: Tally = field(default_factory=Tally)
    lengths: dict[str, int] = field(default_factory=dict)
    coco: tuple[int, int] = (0, 0)
    made: list[str] = field(default_factory=list)


class Stage:
    """A prediction's own folder.

    Attributes:
        folder: where it writes.
        record: where it stands; from an earlier run if it goes on.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record
        self.recorded = bool(record.lengths)
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write down how far it is."""
        return time.monotonic() - self._last >= RECORD_SECONDS

    def keep(self, tally: Tally, lengths: dict[str, int], coco: tuple[int, int]) -> None:
        """Writes down how far it is; what the tables hold up to there is on the disk already."""
        # Images that were opened ahead are not done yet: those skipped among them will be met again.
        done = [one for one in tally.skipped if one[0] < tally.done]
        self.record = Record(self.record.settings, Tally(**{**asdict(tally), "skipped": done}), lengths, coco)
        self._write()
        self._last = time.monotonic()

    def complete(self, tally: Tally) -> None:
        """Writes down that all results are there."""
        self.record.tally = tally
        self.record.made = [name for name in RESULTS if (self.folder / name).exists()]
        self._write()

    def _write(self) -> None:
        content = {"format": _FORMAT, **asdict(self.record)}
        replace_file(self.folder / _RECORD, json.dumps(content, indent=1).encode())
        self.recorded = True


@contextlib.contextmanager
def staged(out: Path, force: bool, settings: Settings, resume: bool) -> Iterator[Stage]:
    """A folder inside ``out`` whose results move up when the block ends well.

    It vanishes when the block doesn't, unless it has been written down how far it is: then it stays, for ``resume``.

    Raises:
        MistError: ``out`` is no folder, can't be written to, or holds results or a run; there is nothing to go on with,
            or it was begun otherwise.
    """
    if out.exists() and not out.is_dir():
        raise MistError(f"--out {out} is a file: give a folder")
    folder = out / _STAGE
    record = _read(folder, out, settings) if resume else Record(settings)
    if os.path.lexists(out / COUNTS_FILE) and not record.made and not holds_results(out):
        raise MistError(
            f"--out {out} holds a {COUNTS_FILE} that no prediction wrote, perhaps your own counts: give another folder"
        )
    held = [name for name in (*RESULTS, *_RUN) if os.path.lexists(out / name)]
    if held and not force and not record.made:
        raise MistError(
            f"--out {out} already holds {', '.join(held)}: give another folder, or --force to replace results"
        )
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    stage = Stage(folder, record)
    keeps = False
    try:
        if not record.lengths and not record.made:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        (folder / PICTURE_FOLDERS[0]).mkdir(parents=True, exist_ok=True)
        yield stage
        _publish(stage, out)
        made = []
    except MistError:
        raise
    except OSError as error:
        keeps = stage.recorded
        more = "; the same command with --resume goes on then" if keeps else ""
        raise MistError(
            f"can't write to --out {out} ({error.strerror or error}): give a folder that can be written to, with room"
            + more
        ) from error
    except BaseException:
        keeps = stage.recorded
        raise
    finally:
        if not keeps:
            shutil.rmtree(folder, ignore_errors=True)
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()


def stopped_after(out: Path) -> int | None:
    """How many files a stopped prediction in ``out`` has passed; ``None`` if there is none to go on with."""
    try:
        return int(json.loads((out / _STAGE / _RECORD).read_text(encoding="utf-8"))["tally"]["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def settings_of(
    predictor: Predictor,
    files: Sequence[ImageFile],
    k: int | None,
    overlays: bool,
    coco: bool,
    batch: int,
    report: bool = False,
) -> Settings:
    """What a prediction depends on, its model and its images by their hashes."""
    return {
        "mistnn": package_version(),
        "torch": torch.__version__,
        "device": predictor.device.type,
        "model": _hash_of_model(predictor),
        "--k": k,
        "--overlays": overlays,
        "--coco": coco,
        "--report": report,
        "largest image in one piece": predictor.max_pixels,
        "images at once": batch,
        "number of images": len(files),
        "images": _hash_of_files(files),
    }


def _hash_of_model(predictor: Predictor) -> str:
    """Of the configuration and of every weight."""
    model = predictor.model
    found = hashlib.sha256(repr((type(model).__name__, model.config, model.class_names)).encode())
    for name, value in sorted(model.state_dict().items()) if isinstance(model, nn.Module) else ():
        found.update(repr((name, value.dtype, tuple(value.shape))).encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _hash_of_files(files: Sequence[ImageFile]) -> str:
    """Of names, sizes in bytes and times of change: reading every image for this would take as long as predicting."""
    found = hashlib.sha256()
    for file in files:
        about = (-1, 0)
        with contextlib.suppress(OSError):  # a link to nothing is skipped and named later
            status = file.path.stat()
            about = (status.st_size, status.st_mtime_ns)
        found.update(os.fsencode(file.name) + b"\0" + repr(about).encode())
    return found.hexdigest()


def _read(folder: Path, out: Path, settings: Settings) -> Record:
    """The record of a stopped prediction.

    Raises:
        MistError: there is none, it is damaged, or it was begun otherwise.
    """
    again = "leave --resume away to start again"
    path = folder / _RECORD
    if not path.is_file():
        raise MistError(f"--resume: {out} holds no stopped prediction to go on with: leave --resume away")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise MistError(f"--resume: {path} was written by another version: {again}")
        skipped = [(int(place), str(name), str(reason)) for place, name, reason in content["tally"].pop("skipped")]
        tally = Tally(**{name: int(value) for name, value in content["tally"].items()}, skipped=skipped)
        record = Record(
            content["settings"], tally, content["lengths"], (content["coco"][0], content["coco"][1]), content["made"]
        )
        for name, length in () if record.made else record.lengths.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size < length:
                raise MistError(f"--resume: {folder / name} is shorter than it was, or gone: {again}")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise MistError(f"--resume: {path} is damaged ({type(error).__name__}): {again}") from error
    for name, value in settings.items():
        before = record.settings.get(name)
        if before == value:
            continue
        if name == "images":
            raise MistError(f"--resume: images have changed since it was begun: put them back, or {again}")
        if name == "model":
            raise MistError(
                f"--resume: this is another model than the prediction was begun with: give that, or {again}"
            )
        raise MistError(
            f"--resume: {name} was {_said(before)} when it was begun and is {_said(value)} now: give the same, or "
            + again
        )
    return record


def _said(value: str | int | bool | None) -> str:
    if value is None:
        return "not given"
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


def _publish(stage: Stage, out: Path) -> None:
    """Moves the results up; an earlier run's go. Can be interrupted and done again."""
    old = stage.folder / "old"
    old.mkdir(exist_ok=True)
    for name in RESULTS:
        new = stage.folder / name
        if os.path.lexists(out / name) and (new.exists() or name not in stage.record.made):
            _remove(old / name)
            os.replace(out / name, old / name)
        if new.exists():
            os.replace(new, out / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
