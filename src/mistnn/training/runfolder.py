"""The files of a run folder, and the checks before a run writes to it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mistnn.errors import MistError
from mistnn.files import PART, locked, replace_file

CONFIG = "config.json"
MODEL = "model.safetensors"
METRICS = "metrics.jsonl"
CHECKPOINT = Path("checkpoint") / "state.safetensors"
TENSORBOARD = "tensorboard"
STATES = "states"
FURTHER = "images-further.json"  #: Checksums of other files that the run has seen, see ``remember``.
IMAGES = "images.json"  #: What the run was started with, see ``DataConfig.inventory``.
SHOWN_CHANGES = 3  #: Names that a note lists.

_RUN_ENTRIES = (CONFIG, MODEL, METRICS, CHECKPOINT.parts[0], TENSORBOARD, STATES)
_UNFINISHED = tuple(name + PART for name in (CONFIG, MODEL))


def run_folder(out: Path) -> AbstractContextManager[None]:
    """Locks a run folder, see ``files.locked``. Of several processes that train together, the main one does."""
    return locked(out) if os.environ.get("RANK", "0") == "0" else nullcontext()


def prepare_run_folder(out: Path, force: bool, resume: bool) -> None:
    """Checks that a run can write to a folder, and creates the folder if it is missing.

    Args:
        force: first remove the files of an earlier run, and no others.
        resume: continue the run in the folder.

    Raises:
        MistError: if the folder holds a run and neither ``force`` nor ``resume`` is given, if there is no run to
            resume, if both are given, or if the folder can't be written to.
    """
    if force and resume:
        raise MistError(f"{out}: --force starts again and --resume continues; give one of them")
    if resume and not (out / CONFIG).is_file():
        raise MistError(f"{out}: no run to resume here ({CONFIG} is missing); start one without --resume")
    found = [] if resume or force else [entry for entry in _RUN_ENTRIES if (out / entry).exists()]
    if found:
        raise MistError(
            f"{out}: already holds a run ({found[0]}); --force starts again, `mist train --resume {out}` continues"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        for path in (out / entry for entry in (*_RUN_ENTRIES, *_UNFINISHED, IMAGES, FURTHER) if force):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise MistError(f"{out}: cannot write here ({error.strerror}); choose another folder with --out") from error


def write_inventory(out: Path, inventory: Mapping[str, str]) -> None:
    """Keeps what a run is started with; nothing where that is empty."""
    if inventory:
        write_atomically(out / IMAGES, json.dumps(inventory, indent=0, sort_keys=True).encode())


def _inventory(out: Path) -> dict[str, str]:
    """What ``write_inventory`` kept; empty if there is nothing, or it is broken."""
    try:
        kept = json.loads((out / IMAGES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def checksums_in(inventory: Mapping[str, str]) -> frozenset[str]:
    """The CRC-32 of each file of an inventory, in hexadecimal digits."""
    return frozenset(str(line).rpartition(" ")[2] for line in inventory.values())


def remember(out: Path, checksums: Collection[str]) -> None:
    """Adds files, by their CRC-32, that a run also knows: those of the run that it started from, or of a resume."""
    if checksums:
        write_atomically(out / FURTHER, json.dumps(sorted({*checksums, *_remembered(out)}), indent=0).encode())


def _remembered(out: Path) -> list[str]:
    try:
        kept = json.loads((out / FURTHER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [str(one) for one in kept] if isinstance(kept, list) else []


def files_of_training(out: Path) -> frozenset[str]:
    """The CRC-32 of each file that a run has seen, in hexadecimal digits; none if it kept none.

    These are the files of its start, of its resumes, and of the runs that it started from.
    """
    return checksums_in(_inventory(out)) | frozenset(_remembered(out))


def replace_files_of_training(out: Path, checksums: Collection[str]) -> None:
    """Makes these the files that ``files_of_training`` returns, for a folder whose model is replaced."""
    for name in (IMAGES, FURTHER):
        (out / name).unlink(missing_ok=True)
    remember(out, checksums)


def changes_since(out: Path, inventory: Mapping[str, str]) -> list[str]:
    """A note on what changed since a run was started; nothing if it kept no inventory."""
    before = _inventory(out)
    if not before:
        return []
    changed = {
        "gone": sorted(before.keys() - inventory.keys()),
        "new": sorted(inventory.keys() - before.keys()),
        "changed (count, split or content)": [
            name for name in sorted(inventory.keys() & before.keys()) if inventory[name] != before[name]
        ],
    }
    parts = []
    for what, names in changed.items():
        if names:
            more = f" and {len(names) - SHOWN_CHANGES} more" if len(names) > SHOWN_CHANGES else ""
            parts.append(f"{', '.join(names[:SHOWN_CHANGES])}{more} {'is' if len(names) == 1 else 'are'} {what}")
    if not parts:
        return []
    return [
        f"images are not those that this run was started with: {'; '.join(parts)}; it goes on with the present ones; "
        "train anew, with another --out, for a run on them alone"
    ]


def write_atomically(path: Path, data: bytes) -> None:
    """``files.replace_file``, which creates a missing folder.

    Raises:
        MistError: if the file can't be written (a full disk, for instance); the old file stays.
    """
    if path.exists() and not path.is_file():
        raise MistError(f"{path}: is not a regular file, so it can't be replaced; give another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise MistError(f"{path}: cannot be written ({error.strerror}); free space or fix the permissions") from error
