"""Several processes share a prediction; here they are threads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.inference import Predictor, PredictSummary, folder, predict_folder, stage
from mistnn.inference.stage import died_at, stopped_after
from mistnn.processes import Processes
from tests.inference.fakes import FakeDetector

PICTURES = 13


class _Stops(FakeDetector):
    """Stops at the image with its brightest pixel in column ``stop``."""

    stop: int | None = None

    def detect(self, images, k=None, max_pixels=None):
        if self.stop is not None and (images[:, 0].amax(1).argmax(1) == self.stop).any():
            raise KeyboardInterrupt
        return super().detect(images, k, max_pixels)


class Meeting:
    """Where the threads wait for each other and compare what they hold."""

    def __init__(self, count: int) -> None:
        self.count, self.changed, self.ended = count, threading.Condition(), False
        self.turns, self.held = [0] * count, defaultdict[int, dict[int, Any]](dict)

    def all(self, rank: int, value: Any) -> list[Any]:
        with self.changed:
            held = self.held[self.turns[rank]]
            self.turns[rank] += 1
            held[rank] = value
            self.changed.notify_all()
            self.changed.wait_for(lambda: len(held) == self.count or self.ended, timeout=60)
            if len(held) < self.count:
                raise MistError("another process stopped")
            return list(held.values())

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()


@dataclass(frozen=True)
class Threads(Processes):
    """A thread that plays a process."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def any(self, flag: bool) -> bool:
        return any(self.meeting.all(self.rank, flag))

    def agree(self, content: str) -> bool:
        return len(set(self.meeting.all(self.rank, content))) == 1

    def wait(self) -> None:
        self.meeting.all(self.rank, None)


def together(
    count: int, paths: list[list[Path]], out: Path, stop: int | None = None, resume: bool = False
) -> list[PredictSummary | BaseException]:
    meeting = Meeting(count)

    def one(rank: int) -> PredictSummary | BaseException:
        model = _Stops()
        model.stop = stop
        predictor = Predictor(model)
        processes = Threads(rank, count, torch.device("cpu"), None, meeting)
        try:
            return predict_folder(
                predictor, paths[rank], out, 2, coco=True, resume=resume, workers=2, processes=processes
            )
        except BaseException as error:
            meeting.end()
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirteen images of two sizes, the bright column tells which; broken and small ones between them."""
    (tmp_path / "in").mkdir()
    for index in range(PICTURES):
        image = Image.new("L", (28, 20) if index % 3 else (26, 20))
        image.putpixel((index * 2, index), 255)
        image.save(tmp_path / "in" / f"{index:02}.png")
    (tmp_path / "in" / "02b.png").write_text("no image")
    Image.new("L", (1, 1)).save(tmp_path / "in" / "09b.png")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "RECORD_SECONDS", 0.0)
    monkeypatch.setattr(folder, "BATCH_SIZE", 2)


def _files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [2, 3, 11])
def test_the_results_are_those_of_one_process(pictures: Path, tmp_path: Path, count: int) -> None:
    """Byte for byte; with eleven, some processes have nothing to do."""
    whole = predict_folder(Predictor(FakeDetector()), [pictures], tmp_path / "one", 2, coco=True)
    main_one, *others = together(count, [[pictures]] * count, tmp_path / "several")
    assert main_one == whole and all(isinstance(one, PredictSummary) for one in others)
    assert _files(tmp_path / "several") == _files(tmp_path / "one")


@pytest.mark.parametrize("column", [4, 22])
def test_resumes_after_one_of_them_stopped(pictures: Path, tmp_path: Path, column: int) -> None:
    predict_folder(Predictor(_Stops()), [pictures], tmp_path / "one", 2, coco=True)
    out = tmp_path / "several"
    ended = together(2, [[pictures]] * 2, out, column)
    assert {type(one) for one in ended} <= {KeyboardInterrupt, MistError}
    assert [path.name for path in out.iterdir()] == [".predict.part"] and died_at(out) == []
    assert 0 < (stopped_after(out) or 0) < PICTURES + 2
    with pytest.raises(MistError, match="processes was 2 at the start and is 1 now"):
        predict_folder(Predictor(_Stops()), [pictures], out, 2, coco=True, resume=True)
    again = together(2, [[pictures]] * 2, out, resume=True)
    assert all(isinstance(one, PredictSummary) for one in again), again
    assert _files(out) == _files(tmp_path / "one")


def test_what_one_of_them_cannot_do_stops_all(pictures: Path, tmp_path: Path) -> None:
    Image.new("L", (28, 20)).save(tmp_path / "other.png")
    said = together(2, [[pictures], [tmp_path / "other.png"]], tmp_path / "out")
    assert all("the processes see different images" in str(one) for one in said)
    said = together(2, [[pictures], [tmp_path / "missing"]], tmp_path / "out")
    assert "another process could not begin" in str(said[0]) and "no such file or folder" in str(said[1])
    (tmp_path / "taken").write_text("")
    said = together(2, [[pictures]] * 2, tmp_path / "taken")
    assert "is a file" in str(said[0]) and "another process could not begin" in str(said[1])


def test_the_command_under_accelerate_launch(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(40):
        Image.radial_gradient("L").resize((40, 40)).save(pictures / f"more{index}.png")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    command = ["predict", "mist-mnist-3", str(pictures), "--k", "2", "--coco", "--device", "cpu", "--out"]
    done = subprocess.run(
        [*launcher, *settings, "-m", "mistnn", *command, str(tmp_path / "two")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert "53 images; results in" in done.stdout, done.stderr
    assert done.stderr.count("skipped 02b.png") == 1, "the other process says nothing"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(folder, "BATCH_SIZE", 32)
    assert main([*command, str(tmp_path / "one")]) == 1
    torch.set_num_threads(before)
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
