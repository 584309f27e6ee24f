"""Atomic replacement of files, and locks on folders."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from mistnn.errors import MistError, MistWarning

PART = ".part"
"""Suffix of a file that is still being written."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""Errors of file systems that know no locks."""

_held: dict[tuple[int, int], tuple[int, int]] = {}
"""Folders locked by this process: device and inode -> the thread, and how often it has locked the folder."""
_held_guard = threading.Lock()


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
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # already renamed on success
            part.unlink()


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replaces several files: all are written under other names (``PART``), then renamed in their order.

    A full disk leaves all old files. If the process dies between two renames, the later files still have their other
    names.

    Args:
        folder: an existing folder.
        files: the whole new content by name.

    Raises:
        OSError: if a file can't be written.
    """
    try:
        for name, content in files.items():
            write_through(folder / (name + PART), content)
    except OSError:
        for name in files:
            with contextlib.suppress(OSError):
                (folder / (name + PART)).unlink()
        raise
    for name in files:
        os.replace(folder / (name + PART), folder / name)
    sync_folder(folder)


def move_folder(made: Path, folder: Path) -> None:
    """Gives a finished folder its name. If another process has made the same folder meanwhile, that one stays.

    Raises:
        OSError: if the folder can't be moved.
    """
    try:
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir() or not any(folder.iterdir()):
            raise


def sync_folder(folder: Path) -> None:
    """Flushes the names of a folder's files to the disk."""
    if os.name == "posix":  # other systems can't open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside the context, no other process and no other thread can lock the folder; missing folders are created.

    The lock is on the folder itself, so no file is left behind, and it ends with the process. A thread may lock a
    folder that it has locked already. Folders created here are removed again if they are empty at the end.

    Windows can't open folders: there only the threads of this process exclude each other.

    Raises:
        MistError: if another process or thread holds the lock, or the folder is a file, or can't be created or opened.
    """
    if folder.exists() and not folder.is_dir():
        raise MistError(f"--out {folder} is a file: give a folder")
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        descriptor = _open_locked(folder)
    except OSError as error:
        _remove_empty(made)
        raise MistError(f"can't write to --out {folder} ({error.strerror or error}): give another folder") from error
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    try:
        yield
    finally:
        _remove_empty(made)  # while the lock is held: another process then sees that the folder is gone
        with _held_guard:
            thread, depth = _held[place]
            if depth > 1:
                _held[place] = (thread, depth - 1)
            else:
                del _held[place]
        if descriptor is not None:
            _unlock(descriptor)
            os.close(descriptor)


def _unlock(descriptor: int) -> None:
    """Ends a lock, also where a forked process still has the folder open."""
    import fcntl

    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _remove_empty(folders: list[Path]) -> None:
    for one in folders:
        with contextlib.suppress(OSError):
            one.rmdir()


def _open_locked(folder: Path) -> int | None:
    """Creates and locks a folder; returns its descriptor, or ``None`` if this thread holds the lock already."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
        kept = False
        try:
            status = os.stat(folder) if descriptor is None else os.fstat(descriptor)
            place, me = (status.st_dev, status.st_ino), threading.get_ident()
            with _held_guard:
                thread, depth = _held.get(place, (me, 0))
                if thread != me:
                    raise _in_use(folder)
                if depth == 0 and descriptor is not None and not _lock(descriptor, folder):
                    continue
                _held[place] = (me, depth + 1)
            kept = depth == 0
            return descriptor if kept else None
        finally:
            if descriptor is not None and not kept:
                os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    """Locks an open folder; false if the folder was removed or replaced meanwhile."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _in_use(folder) from error
        warnings.warn(
            f"the file system of {folder} has no locks ({error.strerror}): let only one command write there at a time",
            MistWarning,
            stacklevel=2,
        )
    try:
        found, own = os.stat(folder), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _in_use(folder: Path) -> MistError:
    return MistError(
        f"another process or thread is writing to {folder}: wait until it is done, or choose another folder"
    )
