"""The README's code runs, and the commands it shows exist as shown."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"console", "bash", "sh", "shell"}
MAIN = "import sys; from mistnn.cli.main import main; sys.exit(main())"


def _blocks(*languages: str) -> list[str]:
    if not README.is_file():
        return []
    return [body for language, body in BLOCK.findall(README.read_text(encoding="utf-8")) if language in languages]


def _command_lines() -> list[str]:
    """Each command of a shell block, without prompt, comment and output; a continued line is joined."""
    lines = []
    for body in _blocks(*SHELL):
        joined = body.replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
        lines += [line.strip() for line in prompted or joined if line.strip() and not line.startswith("#")]
    return lines


def _mist_commands() -> list[tuple[str, ...]]:
    words = [shlex.split(line, comments=True) for line in _command_lines()]
    return sorted({tuple(line[1:]) for line in words if line and Path(line[0]).name == "mist"})


def _targets() -> list[str]:
    words = [shlex.split(line, comments=True) for line in _command_lines()]
    return sorted({word for line in words if line and line[0] == "make" for word in line[1:] if "=" not in word})


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # A narrow terminal would break long option names over two lines.
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


@cache
def _help(words: tuple[str, ...]) -> str:
    done = _run(sys.executable, "-c", MAIN, *words, "--help", cwd=ROOT)
    assert done.returncode == 0, f"mist {' '.join(words)} --help: {done.stdout}{done.stderr}"
    return done.stdout


@cache
def _preset_names() -> frozenset[str]:
    done = _run(sys.executable, "-c", MAIN, "presets", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return frozenset(re.findall(r"[\w.-]+", done.stdout))


def test_readme_shows_something() -> None:
    assert README.is_file(), "README.md is missing"
    assert "demo" in _targets()
    assert "test" in _targets()
    assert any(words[:1] == ("demo",) for words in _mist_commands())
    assert _blocks("python"), "the README shows no Python"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    missing = [name for name in _targets() if not re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE)]
    assert not missing


@pytest.mark.parametrize("words", _mist_commands(), ids=" ".join)
def test_commands_exist(words: tuple[str, ...]) -> None:
    """The subcommand is there, `train`'s preset too, and the help of that very command knows each option shown."""
    if not words or words[0].startswith("-"):
        _help(())
        return
    named = len(words) > 1 and not words[1].startswith("-")
    if words[0] == "train" and named:
        assert words[1] in _preset_names(), f"no preset {words[1]}"
    # The name that follows decides which options there are: `mist train PRESET --help` shows the preset's fields.
    text = _help(words[:2] if named and words[0] in {"train", "figure", "reproduce"} else words[:1])
    options = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--help"]
    missing = [option for option in options if not re.search(rf"{re.escape(option)}(?![\w.-])", text)]
    assert not missing, f"`mist {' '.join(words)}`: its --help doesn't know {missing}"


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in order, as one session, in a folder that holds one picture under each name they open."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    blocks = _blocks("python")
    for name in re.findall(r"[\"']([\w/.-]+\.(?:png|jpg|jpeg|tif|tiff))[\"']", "\n".join(blocks)):
        target = tmp_path / name
        if tmp_path in target.resolve().parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.radial_gradient("L").resize((80, 80)).save(target)
    session: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), session)
