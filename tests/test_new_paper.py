"""A new paper is one folder, two files and one line: a toy paper is added to a copy of the package and used by name."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

from mistnn.papers import PAPERS, modules
from mistnn.weights.strict import BASES, classes_of

ROOT = Path(__file__).resolve().parents[1]
TOY = Path(__file__).parent / "toy_paper"


@pytest.mark.parametrize("floor", ["mistnn.models", "mistnn.experiments", "mistnn.presets"])
def test_every_paper_is_on_every_floor(floor: str) -> None:
    names = {"mistnn.models": ("MODELS", "STEPS"), "mistnn.experiments": ("SYSTEMS",), "mistnn.presets": ("PRESETS",)}
    found = list(modules(floor))
    assert len(found) == len(PAPERS)
    for module in found:
        for name in names[floor]:
            assert getattr(module, name), f"{module.__name__}.{name} is empty"


def test_kinds_are_unique() -> None:
    for base in BASES:
        assert all(name == kind.kind for name, kind in classes_of(base).items())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the toy paper: nothing but one line of one file differs."""
    root = tmp_path_factory.mktemp("package")
    package = root / "mistnn"
    shutil.copytree(ROOT / "src" / "mistnn", package, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    shutil.copytree(TOY / "models", package / "models" / "toy")
    shutil.copy(TOY / "experiments.py", package / "experiments" / "toy.py")
    shutil.copy(TOY / "presets.py", package / "presets" / "toy.py")
    listed = package / "papers.py"
    lines = listed.read_text().splitlines()
    changed = [line.replace(")", ', "toy")') if line.startswith("PAPERS = ") else line for line in lines]
    assert sum(old != new for old, new in zip(lines, changed, strict=True)) == 1
    listed.write_text("\n".join(changed) + "\n")
    return root


def mist(package: Path, *commands: tuple[str, ...]) -> list[str]:
    """What each command prints. One process runs them all, because importing the package takes seconds."""
    code = """
import contextlib, io, json, sys
from mistnn.cli.main import main
said = []
for arguments in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(arguments)
    assert code == 0, (arguments, out.getvalue())
    said.append(out.getvalue())
print(json.dumps(said))
"""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=package, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_toy_paper_trains_resumes_evaluates_and_predicts_by_name(package: Path) -> None:
    image = torch.zeros(3, 40, 40)
    image[:, 8:16, 8:16] = image[:, 26:34, 20:28] = 1
    (package / "images").mkdir()
    save_image(image, package / "images" / "two.png")
    presets, _, resumed, measured, _ = mist(
        package,
        ("presets",),
        ("train", "toy-scenes", "--out", "run", "--train.steps", "4", "--model.window", "7"),
        ("train", "--resume", "run", "--train.steps", "6"),
        ("evaluate", "run", "--images", "8", "--json", "metrics.json"),
        ("predict", "run", "images", "--out", "found", "--k", "2"),
    )
    assert "toy-scenes" in presets and "Trained 6 steps" in resumed and "iou50" in measured
    stored = json.loads((package / "run" / "config.json").read_text())
    assert stored["model"]["kind"] == stored["experiment"]["step"]["kind"] == "brightest"
    assert (stored["model"]["window"], stored["experiment"]["step"]["decay_steps"]) == (7, 4)
    assert json.loads((package / "metrics.json").read_text())["iou50"] > 0.2

    with (package / "found" / "detections.csv").open() as file:
        places = sorted((float(row["x"]), float(row["y"])) for row in csv.DictReader(file))
    for place, square in zip(places, [(12, 12), (24, 30)], strict=True):
        assert math.dist(place, square) < 4
