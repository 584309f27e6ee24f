"""Files in full or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mistnn.files import replace_file, write_through


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
