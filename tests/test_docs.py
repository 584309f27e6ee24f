"""The commands on the pages: each is understood by the real parser, and the blocks run in a scratch folder."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pkgutil
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mistnn.cli
from mistnn.cli import train
from mistnn.cli.completion import words as words_of_commands
from mistnn.cli.main import COMMANDS
from mistnn.errors import MistError
from mistnn.presets import PRESETS
from mistnn.weights import shipped_names
from tests.pages import DOCS, HISTORY, OF_THE_SYSTEM, ROOT, SHELL, Block, blocks, pages, shown_commands
from tests.web.squares import draw

CHECKED = [page for page in pages() if page.name not in HISTORY]
BLOCKS = [block for page in CHECKED for block in blocks(page, *SHELL)]
PLACEHOLDERS = ("COMMAND", "PRESET", "X", "NAME", "...", "…")
"""Words of commands that stand for others."""
LACKING = ("must be given", "no preset was named", "needs the folder of a run")
"""Of the errors about missing arguments."""


class Parsed(Exception):
    """The arguments were understood."""


@pytest.fixture
def parsing_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands stop after they have read their arguments."""
    monkeypatch.chdir(tmp_path)
    for info in pkgutil.iter_modules(mistnn.cli.__path__):
        module = importlib.import_module(f"mistnn.cli.{info.name}")
        usual = getattr(module, "parse", None)
        if usual is None or info.name == "parsing":
            continue

        def parse(*given: Any, usual: Any = usual, **named: Any) -> Any:
            usual(*given, **named)
            raise Parsed

        monkeypatch.setattr(module, "parse", parse)
    monkeypatch.setattr(train, "restore", lambda folder: PRESETS["my-folder"].experiment)


@pytest.mark.usefixtures("parsing_only")
@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    shown = shown_commands(page, "mist").items()
    wrong = {line: why for line, whole in shown if (why := _misunderstood(line, whole)) is not None}
    assert not wrong


def _misunderstood(line: str, whole: bool) -> str | None:
    """What is wrong with a command; ``None`` if nothing is, or if it stands for others.

    A command within a sentence may lack required arguments, as in "`mist predict --k N` finds N objects".
    """
    words = shlex.split(line.partition(" > ")[0].partition(" | ")[0], comments=True)[1:]
    if not words or set(words) & set(PLACEHOLDERS) or words[0].startswith("-"):
        return None
    if words[0] not in COMMANDS:
        return "no such command"
    try:
        importlib.import_module(f"mistnn.cli.{words[0]}").run(words[1:])
    except Parsed:
        return _unknown_names(words)
    except SystemExit as stop:
        return None if stop.code in (0, None) else f"ends with {stop.code}"
    except MistError as error:
        if whole or not any(said in str(error) for said in LACKING):
            return str(error)
        known = {*words_of_commands()[words[0]], "--data-root", "--resume"}
        unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
        return f"unknown {unknown}" if unknown else None
    return "its arguments were not parsed"


def _unknown_names(words: list[str]) -> str | None:
    """Whether a model that is named neither ships with the package nor is a run of a preset."""
    if words[0] not in ("evaluate", "export", "predict", "report", "serve", "tune") or words[1].startswith("-"):
        return None
    model = words[1]
    known = {*shipped_names(), *(f"runs/{name}" for name in PRESETS), "RUN", "MODEL", "DIR"}
    return None if model in known or "/tables/" in model else f"no model {model}"


def test_a_wrong_command_is_noticed(parsing_only: None) -> None:
    wrong = (
        "mist predikt x",
        "mist predict mist-mnist-3 a.png --out x --kk 3",
        "mist predict no-model a.png --out x",
        "mist predict mist-mnist-3",
        "mist train no-such-preset",
        "mist reproduce table9",
    )
    for line in wrong:
        assert _misunderstood(line, True) is not None, line
    assert _misunderstood("mist predict --k 3", False) is None and _misunderstood("mist predict --kk 3", False)


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_benchmarks_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *given: Any) -> Any:
        usual(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.chdir(tmp_path)
    for line, whole in shown_commands(page, "python").items():
        words = shlex.split(line)
        if words[1:2] != ["-m"] or not words[2].startswith("benchmarks."):
            continue
        monkeypatch.setattr(sys, "argv", words[2:])
        try:
            runpy.run_module(words[2], run_name="__main__")
        except Parsed:
            continue
        except SystemExit:  # within the text, a name alone stands for the study
            if not whole and "are required" in capsys.readouterr().err:
                continue
        pytest.fail(line)


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_imports_within_the_text_work(page: Path) -> None:
    for line in shown_commands(page, "from"):
        if line.startswith("from mistnn"):
            exec(compile(line, page.name, "exec"), {})


def test_every_block_that_is_not_run_says_why() -> None:
    for block in BLOCKS:
        assert block.mark in ("", "slow") or block.added or len(block.reason) > 10, f"{block}: <!-- {block.mark} -->"


def prepared(folder: Path) -> Path:
    """A scratch folder with what the pages' commands are given."""
    (folder / "docs" / "images").mkdir(parents=True)
    (folder / "docs" / "images" / "nine.png").write_bytes((DOCS / "images" / "nine.png").read_bytes())
    for index in range(10):
        draw(folder / "my-folder" / "images" / f"{index}.png", 1 + index % 3, index)
    rows = "".join(f"{index}.png,square,{1 + index % 3}\n" for index in range(10))
    (folder / "my-folder" / "counts.csv").write_text("file,class,count\n" + rows, encoding="utf-8")
    draw(folder / "new-images" / "new.png", 2, 77)
    (folder / "stacks").mkdir()
    layers = [Image.fromarray(np.full((20, 30), 40 * index, np.uint8)) for index in range(1, 4)]
    layers[0].save(folder / "stacks" / "stack.tif", save_all=True, append_images=layers[1:])
    return folder


def _run(block: Block, folder: Path) -> None:
    lines = [line for line in block.lines if line.split()[0] not in OF_THE_SYSTEM]
    added = " ".join(map(shlex.quote, block.added))
    lines = [f"{line} {added}" if line.startswith("mist train") else line for line in lines]
    script = "\n".join(['set -e; mist() { "$PYTHON" -m mistnn "$@"; }', *lines])
    places = {
        "PYTHON": sys.executable,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
    }
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, env={**os.environ, **places}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


def _blocks_to_run(slow: bool) -> list[Block]:
    """Those blocks, each once, that hold a line to run."""
    wanted = {block.lines: block for block in reversed(BLOCKS) if not block.reason and block.slow == slow}
    return [block for block in wanted.values() if any(line.split()[0] not in OF_THE_SYSTEM for line in block.lines)]


@pytest.mark.parametrize("block", _blocks_to_run(slow=False), ids=str)
def test_it_runs(block: Block, tmp_path: Path) -> None:
    _run(block, prepared(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("block", _blocks_to_run(slow=True), ids=str)
def test_it_runs_slowly(block: Block, tmp_path: Path) -> None:
    _run(block, prepared(tmp_path))


def test_code_of_the_page_on_mist_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared(tmp_path))
    for block in blocks(DOCS / "mist.md", "python"):
        with contextlib.redirect_stdout(None):
            exec(compile("\n".join(block.lines), "docs/mist.md", "exec"), {"__name__": "page"})
