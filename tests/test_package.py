"""What is in the wheel and the source distribution, and that an installed package works outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import mistnn
from mistnn.weights import shipped_names

ROOT = Path(__file__).resolve().parents[1]
LARGEST_WHEEL = 10_000_000
"""Bytes."""


def build(kind: str, root: Path, out: Path) -> Path:
    """The file that hatchling builds; skips where it is not installed."""
    pytest.importorskip("hatchling", reason="hatchling is not installed (pip install hatchling)")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


def tracked(folder: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: no list of the project's files")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    wheel = build("wheel", ROOT, tmp_path)
    found = content(wheel)
    expected = {name.removeprefix("src/") for name in tracked("src/mistnn")}
    assert expected <= found, expected - found
    extra = {name for name in found - expected if not (ROOT / "src" / name).is_file() or "/__pycache__/" in name}
    assert not extra
    for name in shipped_names():
        assert f"mistnn/weights/shipped/{name}/model.safetensors" in found
    for name in ("py.typed", "reports/templates/report.css", "web/label.html", "web/cells.js"):
        assert f"mistnn/{name}" in found
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        assert "mist = mistnn.cli.main:main" in archive.read(entries).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert f"\nVersion: {mistnn.__version__}\n" in archive.read(metadata).decode()
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_source_distribution_builds_the_same_wheel(tmp_path: Path) -> None:
    source = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("mistnn-*")
    for folders in ("src", "tests", "docs", "notebooks", "benchmarks"):
        for name in tracked(folders):
            assert (folder / name).is_file(), name
    for name in ("Dockerfile", ".dockerignore", "constraints.txt", "Makefile", "LICENSE"):
        assert (folder / name).is_file(), name
    assert content(build("wheel", folder, tmp_path / "a")) == content(build("wheel", ROOT, tmp_path / "b"))


def copied() -> list[str]:
    """What the Dockerfile copies from its context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def test_the_dockerfile_copies_what_the_wheel_needs_and_runs_without_rights(tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    rules = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert sorted(copied()) == sorted(allowed)
    last = text.rpartition("\nFROM ")[2]
    user = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert user == ["mist"] and "useradd" in last and last.index("USER") < last.index("ENTRYPOINT")
    assert not re.search(r"(?i)password|secret|token", text) and not re.search(r"^ADD ", text, re.MULTILINE)
    ignored = shutil.ignore_patterns(*(rule.removeprefix("**/") for rule in rules if rule.startswith("**/")))
    for name in copied():
        assert (ROOT / name).exists(), name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    wheel = content(build("wheel", tmp_path, tmp_path / "dist"))
    assert {name.removeprefix("src/") for name in tracked("src/mistnn")} <= wheel


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """In a virtual environment of its own; only the dependencies come from the present one."""
    wheel = build("wheel", ROOT, tmp_path / "dist")
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    (site,) = (tmp_path / "venv").rglob("site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    assert str(site) in run(python, "-c", "import mistnn; print(mistnn.__file__)")
    mist = programs / "mist"
    assert (
        run(mist, "--version").split()
        == run(python, "-m", "mistnn", "--version").split()
        == ["mist", mistnn.__version__]
    )
    assert "mist-mnist-hard" in run(mist, "doctor") and "_mist()" in run(mist, "completion", "bash")
    shutil.copy(ROOT / "docs" / "images" / "nine.png", scratch)
    assert "9 objects" in run(mist, "predict", "mist-mnist-hard", "nine.png", "--out", "found", "--report")
    assert (scratch / "found" / "predicted.html").is_file()
    read = (
        "from importlib.resources import files; print(*[len((files('mistnn.web') / n).read_bytes()) for n in {names}])"
    )
    assert "0" not in run(python, "-c", read.format(names=("label.html", "label.js", "label.css", "cells.js"))).split()
