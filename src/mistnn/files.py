"""Files that are there in full or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_through(path: Path, data: bytes) -> None:
    """Writes a file through to the disk, so that a rename that follows never points to an empty file.

    Raises:
        OSError: if it can't be written.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, aside: str = ".tmp") -> None:
    """Replaces a file such that, whenever the process dies, either the old or the new content is there in full.

    Args:
        path: in a folder that exists.
        data: the whole new content.
        aside: appended to the name while the file is being written; one of each process where several may write it.

    Raises:
        OSError: if it can't be written; the old file stays.
    """
    part = path.with_name(path.name + aside)
    try:
        write_through(part, data)
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it is gone already if all went well
            part.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
