"""The clock of the computer is set back, as by a time server: nothing depends on it."""

from __future__ import annotations

import ast
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import mistnn
from mistnn.files import locked
from mistnn.inference import Predictor, folder, predict_folder, stage
from mistnn.training.checkpoint import read_checkpoint
from tests.inference.fakes import FakeDetector
from tests.training.toy import train

PACKAGE = Path(mistnn.__file__).parent
SHOWN = {"web/service.py": "the time of a request, in the log"}
"""Files that read the clock of the computer, and why."""


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes back by an hour each time that it is read."""
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(hours))
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 - 3600 * 10**9 * next(hours))


def test_a_run_is_saved_and_resumed(tmp_path: Path, falling: None) -> None:
    with locked(tmp_path / "run"):
        train(tmp_path / "run", steps=8)
        train(tmp_path / "run", steps=16, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    assert len(lines) == 4 and seconds == sorted(seconds) and 0 <= seconds[0] and seconds[-1] < 60
    header, _ = read_checkpoint(tmp_path / "run" / "checkpoint" / "state.safetensors")
    assert header["iteration"] == 16


def test_a_prediction_is_recorded_every_five_seconds(
    tmp_path: Path, falling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of time that passes, whatever the clock of the computer shows: twenty blocks of one second each."""
    (tmp_path / "in").mkdir()
    for index in range(20):
        Image.new("L", (24, 20), index + 1).save(tmp_path / "in" / f"{index:02}.png")
    passed, kept = [100.0], list[int]()
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    monkeypatch.setattr(folder, "BATCH_SIZE", 1)
    real_keep, real_write = stage.Stage.keep, folder._Job.write

    def keep(self: stage.Stage, tally: stage.Tally, *rest: object) -> None:
        kept.append(tally.done)
        real_keep(self, tally, *rest)

    def write(self: object, *given: object) -> None:
        passed[0] += 1.0
        real_write(self, *given)

    monkeypatch.setattr(stage.Stage, "keep", keep)
    monkeypatch.setattr(folder._Job, "write", write)
    done = predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out", 2)
    assert done.images == 20
    assert kept == [5, 10, 15, 20]


def test_no_other_code_reads_the_clock_of_the_computer() -> None:
    """Intervals come from ``time.monotonic`` and ``time.perf_counter``, which never go back."""
    readers = {
        *(f"time.{name}" for name in ("time", "time_ns", "gmtime", "localtime", "ctime", "strftime")),
        *(f"{of}.{name}" for of in ("datetime", "date", "datetime.datetime") for name in ("now", "today", "utcnow")),
    }
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in readers:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(SHOWN)
