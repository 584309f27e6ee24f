"""The progress bar: in a terminal, in a notebook with and without widgets, and nowhere else."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich import console

from mistnn.training import runlog
from mistnn.training.runlog import progress_bar, progress_console
from tests.training.toy import train

DONE = "training.*3/3.*it/s"


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Widget:
    """ipywidgets' output area."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def clear_output(self, wait: bool) -> None: ...


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pretends to be a notebook without ipywidgets; the list receives what is displayed."""
    shown: list[Any] = []
    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    vars(display)["display"] = shown.append
    vars(package)["display"] = display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    return shown


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def test_a_terminal_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    train(tmp_path / "run", steps=3)
    assert re.search(DONE, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()))


def test_a_terminal_shows_what_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar("reading images", show=False) as tell:
        assert tell is None
    with progress_bar("reading images") as tell:
        assert tell is not None
        tell(2, 3)
    assert re.search("reading images.*2/3", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()))


def test_a_notebook_with_widgets_shows_progress(
    tmp_path: Path, notebook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    widgets = ModuleType("ipywidgets")
    vars(widgets)["Output"] = Widget
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    train(tmp_path / "run", steps=3)
    assert isinstance(notebook[0], Widget)
    assert any(re.search(DONE, str(shown.text)) for shown in notebook[1:])


@pytest.mark.filterwarnings("error")
def test_a_notebook_without_widgets_shows_progress_as_text(
    tmp_path: Path, notebook: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", steps=3)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out))
    assert any(re.search(DONE, line) for line in lines)
    assert notebook == []


def test_a_pipe_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take a pipe for a terminal
    train(tmp_path / "run", steps=3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    assert progress_console() is None, "IPython's output goes to a pipe too"
    with progress_bar("reading images") as tell:
        assert tell is not None
        tell(1, 3)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runlog, "LINE_SECONDS", 0.0)
    train(tmp_path / "run", steps=3)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"training: {done} of 3, about 1 min left" for done in (1, 2)]
    lines, clock = runlog.ProgressLines("predicting", start=10), iter([100.0, 7300.0])
    lines.began = lines.last = 0.0
    monkeypatch.setattr(runlog.time, "monotonic", lambda: next(clock))
    lines(20, 70)  # 10 in 100 s
    lines(30, 70)
    assert capsys.readouterr().err.splitlines() == [
        "predicting: 20 of 70, about 8 min left",
        "predicting: 30 of 70, about 4.1 h left",
    ]


def test_a_pipe_gets_no_line_where_progress_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runlog, "LINE_SECONDS", 0.0)
    with progress_bar("reading images", show=False) as tell:
        assert tell is None
    assert capsys.readouterr() == ("", "")
