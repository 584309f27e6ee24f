"""The folder of a run: which files it holds, and whether a run may write there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mistnn.errors import MistError
from mistnn.files import replace_file

CONFIG = "config.json"
MODEL = "model.safetensors"
METRICS = "metrics.jsonl"
CHECKPOINT = Path("checkpoint") / "state.safetensors"
TENSORBOARD = "tensorboard"

_RUN_ENTRIES = (CONFIG, MODEL, METRICS, CHECKPOINT.parts[0], TENSORBOARD)


def prepare_run_folder(out: Path, force: bool, resume: bool) -> None:
    """Makes sure that a run can write into a folder, and makes the folder where it is missing.

    Args:
        out: the run folder.
        force: remove an earlier run's files from it first (only a run's own files, nothing else that lies there).
        resume: go on with the run that the folder holds.

    Raises:
        MistError: if the folder holds a run and neither ``force`` nor ``resume`` is given, if there is no run to
            resume, if both are given, or if the folder cannot be written.
    """
    if force and resume:
        raise MistError(f"{out}: --force starts again and --resume goes on; give one of them")
    if resume and not (out / CONFIG).is_file():
        raise MistError(f"{out}: no run to resume here ({CONFIG} is missing); start one without --resume")
    if not resume and not force:
        found = [entry for entry in _RUN_ENTRIES if (out / entry).exists()]
        if found:
            raise MistError(
                f"{out}: already holds a run ({found[0]}); --force starts again, `mist train --resume {out}` goes on"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        if force:
            _remove_run(out)
    except OSError as error:
        raise MistError(f"{out}: cannot write here ({error.strerror}); choose another folder with --out") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file such that, whenever the process dies, either the old or the new content is there in full.

    Args:
        path: its folder is made where it is missing.
        data: the whole new content.

    Raises:
        MistError: if the file cannot be written (a full disk, for instance); the old file stays.
    """
    if path.exists() and not path.is_file():
        raise MistError(f"{path}: is no regular file, so it can't be replaced; give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise MistError(f"{path}: cannot be written ({error.strerror}); free space or mend the permissions") from error


def _remove_run(out: Path) -> None:
    for entry in _RUN_ENTRIES:
        path = out / entry
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
