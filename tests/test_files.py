"""Files in full or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mistnn.errors import MistError
from mistnn.files import locked, move_folder, replace_file, replace_files, write_through


def test_the_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"first", b"", b"second"):
        replace_file(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    write_through(tmp_path / "b", b"third")
    assert (tmp_path / "b").read_bytes() == b"third"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_old_file_stays_whatever_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    replace_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_the_name_aside_can_be_chosen(tmp_path: Path) -> None:
    """Two processes that write one file need two names."""
    (tmp_path / "a.tmp").write_text("another's")
    replace_file(tmp_path / "a", b"mine", aside=".7.tmp")
    assert (tmp_path / "a.tmp").read_text() == "another's" and (tmp_path / "a").read_bytes() == b"mine"


def test_of_several_files_the_old_ones_stay_until_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_files(tmp_path, {"a": b"1", "b": b"2"})
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("b.part"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    if os.path.isdir("/proc/self/fd"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", full)
            replace_files(tmp_path, {"a": b"3", "b": b"4"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_a_folder_is_locked_by_one(tmp_path: Path) -> None:
    """By one thread of one process; the lock leaves nothing behind."""
    out = tmp_path / "new" / "out"
    code = (
        f"from pathlib import Path; from mistnn.files import locked\nwith locked(Path({str(out)!r})): print('locked')"
    )

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    refused: list[str] = []

    def from_a_thread() -> None:
        try:
            with locked(out):
                refused.append("")
        except MistError as error:
            refused.append(str(error))

    with locked(out):
        with locked(out):  # by the same thread
            pass
        done = other()
        assert done.returncode == 1 and "another process or thread is writing to" in done.stderr
        thread = threading.Thread(target=from_a_thread)
        thread.start()
        thread.join()
        (out / "kept").write_text("")
    assert refused and "another process or thread is writing to" in refused[0]
    assert list(out.iterdir()) == [out / "kept"]
    assert other().stdout == "locked\n"
    (out / "kept").unlink()
    out.rmdir()
    with locked(out):
        pass
    assert out.parent.is_dir() and not out.exists(), "only what the lock created, and only if it is empty"


def test_a_lock_on_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MistError, match="is a file"), locked(tmp_path / "file"):
        pass
    with pytest.raises(MistError, match="can't write to --out"), locked(tmp_path / "file" / "out"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A worker that was forked inside the context, and outlives it."""
    reading, writing = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:  # pragma: no cover
            os.read(reading, 1)
            os._exit(0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.write(writing, b"x")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_folder_that_another_process_has_made_stays(tmp_path: Path) -> None:
    """As when two processes unpack one archive: none is moved into the other, which ``shutil.move`` does."""
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    move_folder(tmp_path / "mine", tmp_path / "data")
    move_folder(tmp_path / "theirs", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["file"]
    assert (tmp_path / "data" / "file").read_text() == "mine"
    with pytest.raises(OSError, match="nowhere"):
        move_folder(tmp_path / "theirs", tmp_path / "nowhere" / "data")
