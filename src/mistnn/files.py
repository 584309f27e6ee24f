"""Atomic replacement of files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_through(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to the disk, so that a later rename never exposes an empty file.

    Raises:
        OSError: if the file can't be written.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, aside: str = ".tmp") -> None:
    """Replaces a file atomically: if the process dies, the file holds either the old or the new content in full.

    Args:
        path: the file, in an existing folder.
        data: the whole new content.
        aside: suffix of the temporary file. Processes that may write the same file need different suffixes.

    Raises:
        OSError: if the file can't be written; the old file stays.
    """
    part = path.with_name(path.name + aside)
    try:
        write_through(part, data)
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # already renamed on success
            part.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # other systems can't open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
