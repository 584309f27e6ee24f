"""Every benchmark runs at its smallest size, as a module and as a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ("ablation", "benchmarks", "blobs", "measuring", "tiny_data")
COMPARISON = "unchanged"  # of two versions, at one size; see test_unchanged.py
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in (*SHARED, COMPARISON))
NEEDS_DATA = ("blood_cells",)  # see test_blood_cells.py
QUICK = "render"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def _smoke(name: str, tmp_path: Path) -> None:
    done = _run([str(ROOT / "benchmarks" / f"{name}.py"), "--smoke"], tmp_path)
    assert done.returncode == 0 and done.stdout, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written without --json"


def test_a_quick_one_runs(tmp_path: Path) -> None:
    _smoke(QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in (QUICK, *NEEDS_DATA)])
def test_it_runs_as_a_file(name: str, tmp_path: Path) -> None:
    _smoke(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_a_module(name: str) -> None:
    done = _run(["-m", f"benchmarks.{name}", "--help"], ROOT)
    assert done.returncode == 0 and "--smoke" in done.stdout, done.stderr


@pytest.mark.parametrize("name", [*NAMES, COMPARISON])
def test_it_says_how_to_run_it(name: str) -> None:
    assert f"python -m benchmarks.{name}" in (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
