"""The README's code runs, and the commands it shows exist as shown."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"console", "bash", "sh", "shell"}


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
