"""A prediction that was stopped goes on, and ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import mistnn
from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.inference import Predictor, folder, predict_folder, stage
from mistnn.inference.stage import stopped_after
from tests.cli.runs import only_line
from tests.inference.fakes import FakeDetector

HIDDEN = ".predict.part"
PICTURES = 11


class _Stops(FakeDetector):
    """Stops at the image with its brightest pixel in column ``stop``."""

    stop: int | None = None
    error: BaseException = KeyboardInterrupt()

    def detect(self, images, k=None, max_pixels=None):
        if self.stop is not None and (images[:, 0].amax(1).argmax(1) == self.stop).any():
            raise self.error
        return super().detect(images, k, max_pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven images of two sizes, the bright column tells which; one broken among the first, one small, one last."""
    (tmp_path / "in").mkdir()
    for index in range(PICTURES):
        image = Image.new("L", (24, 20) if index % 4 else (26, 20))
        image.putpixel((index * 2, index), 255)
        image.save(tmp_path / "in" / f"{index:02}.png")
    (tmp_path / "in" / "02b.png").write_text("no image")
    Image.new("L", (1, 1)).save(tmp_path / "in" / "06b.png")
    (tmp_path / "in" / "99.png").write_text("no image")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def always_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "RECORD_SECONDS", 0.0)
    monkeypatch.setattr(folder, "BATCH_SIZE", 2)


def _files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _stop(pictures: Path, out: Path, column: int, resume: bool = False, error: BaseException | None = None) -> None:
    model = _Stops()
    model.stop = column
    model.error = KeyboardInterrupt() if error is None else error
    with pytest.raises(type(model.error)):
        predict_folder(Predictor(model), [pictures], out, 2, coco=True, resume=resume)


@pytest.mark.parametrize("stops", [[4], [6], [10, 12], [20], [4, 6, 10, 18]])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("the network failed"), OSError(28, "No space left")]
)
def test_as_if_never_stopped(pictures: Path, tmp_path: Path, stops: list[int], error: BaseException) -> None:
    whole = predict_folder(Predictor(_Stops()), [pictures], tmp_path / "whole", 2, coco=True)
    assert whole.images == PICTURES and [one.file for one in whole.skipped] == ["02b.png", "06b.png", "99.png"]
    out = tmp_path / "out"
    wanted = MistError("") if isinstance(error, OSError) else error
    for number, column in enumerate(stops):
        model = _Stops()
        model.stop, model.error = column, error
        with pytest.raises(type(wanted)) as caught:
            predict_folder(Predictor(model), [pictures], out, 2, coco=True, resume=number > 0)
        assert not isinstance(error, OSError) or "and --resume" in str(caught.value)
        assert [path.name for path in out.iterdir()] == [HIDDEN], "nothing under its final name"
        assert 0 < (stopped_after(out) or 0) < PICTURES + 3
    model = _Stops()
    assert predict_folder(Predictor(model), [pictures], out, 2, coco=True, resume=True) == whole
    assert _files(out) == _files(tmp_path / "whole")
    assert sum(shape[0] for shape in model.seen) < PICTURES, "what was done is not done again"
    assert stopped_after(out) is None


def test_what_was_written_after_the_last_record_is_cut_off(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(Predictor(_Stops()), [pictures], tmp_path / "whole", 2, coco=True)
    _stop(pictures, tmp_path / "out", 6)
    hidden = tmp_path / "out" / HIDDEN
    for name in ("detections.csv", "counts.csv", ".detections.json.images", ".detections.json.annotations"):
        with (hidden / name).open("a") as file:
            file.write("half a ro")
    monkeypatch.setattr(stage, "RECORD_SECONDS", 100.0)
    _stop(pictures, tmp_path / "out", 14, resume=True)
    predict_folder(Predictor(_Stops()), [pictures], tmp_path / "out", 2, coco=True, resume=True)
    assert _files(tmp_path / "out") == _files(tmp_path / "whole")


def test_stopped_while_results_are_moved(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old results stay complete or the new ones do, whichever rename was the last."""
    predictor, out = Predictor(_Stops()), tmp_path / "out"
    predict_folder(predictor, [pictures], tmp_path / "whole", 2)
    real = os.replace
    for last in range(6):
        predict_folder(predictor, [pictures], out, 1, force=True, coco=True)  # an older one, with one file more
        moves = iter(range(last))

        def moved(old: Path, new: Path, moves=moves) -> None:
            if Path(old).name != "record.json.tmp" and next(moves, None) is None:
                raise KeyboardInterrupt
            real(old, new)

        monkeypatch.setattr(stage.os, "replace", moved)
        with pytest.raises(KeyboardInterrupt):
            predict_folder(predictor, [pictures], out, 2, force=True)
        monkeypatch.setattr(stage.os, "replace", real)
        predict_folder(predictor, [pictures], out, 2, force=True, resume=True)
        assert _files(out) == _files(tmp_path / "whole"), last


def test_what_differs_is_refused_and_kept(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _stop(pictures, out, 12)
    before = _files(out)
    other = _Stops()
    with torch.no_grad():
        other.first.weight[0, 0, 0, 0] += 1e-3
    same = Predictor(_Stops())
    for predictor, more, words in (
        (same, {"k": 3}, "--k was 2 at the start and is 3 now: give the same, or leave out --resume"),
        (same, {"k": None}, "--k was 2 .* is not given now"),
        (same, {"coco": False}, "--coco was on .* off now"),
        (same, {"overlays": False}, "--overlays was on .* off now"),
        (Predictor(_Stops(), 999), {}, "largest image in one piece"),
        (Predictor(other), {}, "another model"),
    ):
        with pytest.raises(MistError, match=words):
            predict_folder(predictor, [pictures], out, **{"k": 2, "coco": True, "resume": True, **more})
    name = pictures / "03.png"
    data, status = name.read_bytes(), name.stat()
    Image.new("L", (24, 20)).save(pictures / "00b.png")
    with pytest.raises(MistError, match="number of images was 14 .* 15 now"):
        predict_folder(same, [pictures], out, 2, coco=True, resume=True)
    (pictures / "00b.png").unlink()
    name.write_bytes(data + b" ")
    with pytest.raises(MistError, match="images have changed since the start: restore them, or leave out --resume"):
        predict_folder(same, [pictures], out, 2, coco=True, resume=True)
    name.write_bytes(data)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _files(out) == before
    assert predict_folder(same, [pictures], out, 2, coco=True, resume=True).images == PICTURES


def test_damage_is_said(pictures: Path, tmp_path: Path) -> None:
    out, record = tmp_path / "out", tmp_path / "out" / HIDDEN / "record.json"

    def refused(words: str) -> None:
        with pytest.raises(MistError, match=words):
            predict_folder(Predictor(_Stops()), [pictures], out, 2, coco=True, resume=True)

    refused("holds no stopped prediction")
    assert not out.exists()
    _stop(pictures, out, 12)
    content = json.loads(record.read_text())
    for text, words in (
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps({**content, "format": 0}), "another version"),
        (json.dumps({**content, "tally": {}, "lengths": 3}), "damaged"),
    ):
        record.write_text(text)
        refused(words)
    record.write_text(json.dumps(content))
    table = out / HIDDEN / "counts.csv"
    table.write_bytes(table.read_bytes()[:10])
    refused("counts.csv is shorter")
    table.unlink()
    refused("counts.csv is shorter than it was, or gone")
    predict_folder(Predictor(_Stops()), [pictures], out, 2)
    with pytest.raises(MistError, match="holds no stopped prediction"):
        predict_folder(Predictor(_Stops()), [pictures], out, 2, resume=True)


def test_without_resume_it_starts_again(pictures: Path, tmp_path: Path) -> None:
    _stop(pictures, tmp_path / "out", 12)
    model = _Stops()
    predict_folder(Predictor(model), [pictures], tmp_path / "out", 2)
    assert sum(shape[0] for shape in model.seen) == PICTURES


def test_a_mistake_leaves_nothing(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(MistError, match="--k 700 is too large"):
        predict_folder(Predictor(_Stops()), [pictures], tmp_path / "out", 700)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_and_resumed_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process of its own, killed without a warning while it works."""
    folder_of_images, out = tmp_path / "in", tmp_path / "out"
    folder_of_images.mkdir()
    for index in range(60):
        Image.radial_gradient("L").resize((60 + index, 60)).save(folder_of_images / f"{index:02}.png")
    arguments = ["predict", "mist-mnist-3", str(folder_of_images), "--out", str(out)]
    code = (
        "import sys, mistnn.inference.stage as stage\n"
        "import mistnn.inference.folder as folder\n"
        "stage.RECORD_SECONDS, folder.BATCH_SIZE = 0.0, 2\n"
        "from mistnn.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(mistnn.__file__).parents[1])}

    def stopped_by(sign: int, *more: str) -> subprocess.CompletedProcess[str]:
        before = stopped_after(out) or 0
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *more],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 60
        while (stopped_after(out) or 0) <= before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(sign)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    assert stopped_by(signal.SIGKILL).returncode == -signal.SIGKILL
    done = stopped_by(signal.SIGINT, "--resume")
    assert done.returncode == 130
    died, stopped = done.stderr.splitlines()
    assert died.startswith("mist: the last run died while it processed ") and died.endswith(".png")
    only_line(stopped + "\n", "stopped after", "images", "--resume continues")
    assert [path.name for path in out.iterdir()] == [HIDDEN]
    assert main([*arguments, "--resume", "--k", "1"]) == 2
    only_line(capsys.readouterr().err, "--k was not given at the start and is 1 now", "--resume")
    assert main([*arguments, "--resume"]) == 0
    assert main([*arguments[:-1], str(tmp_path / "whole")]) == 0
    assert _files(out) == _files(tmp_path / "whole")
