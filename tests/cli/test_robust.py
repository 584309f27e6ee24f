"""What users do to a command: paths of the shell, empty values, two at once, signals, too little memory, devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.nn.finder import Finder
from tests.cli.runs import only_line
from tests.data.folders import make_folder

Captured = pytest.CaptureFixture[str]
MODEL = "mist-mnist-3"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.radial_gradient("L").resize((40, 40)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_tilde_is_the_home_folder(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    image.rename(home / "a.png")
    assert main(["predict", MODEL, "~/a.png", "--out=~/found"]) == 0
    assert (home / "found" / "counts.csv").is_file() and not list(here.iterdir())


@pytest.mark.parametrize("out", [["--out", ""], ["--out="]])
def test_an_empty_value_is_refused(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, out: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["predict", MODEL, str(image), *out]) == 2
    only_line(capsys.readouterr().err, "--out is empty")
    assert main(["predict", MODEL, "", "--out", "x"]) == 2
    only_line(capsys.readouterr().err, "an argument is empty")
    assert not list((tmp_path / "here").iterdir())


def test_a_report_is_printed_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    folder = make_folder(tmp_path / "own", images=4)

    def refused(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mistnn.reports.inspection.replace_file", refused)
    assert main(["inspect", str(folder), "--no-estimate"]) == 0
    shown = capsys.readouterr()
    assert "largest count" in shown.out and "contact sheet  not drawn: the current folder can't be written" in shown.out
    assert main(["inspect", str(folder), "--no-estimate", "--out", str(tmp_path / "sheet.png")]) == 2
    only_line(capsys.readouterr().err, "sheet.png", "Read-only")


def test_letters_without_a_glyph_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "own", images=3)
    table = folder / "counts.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    table.write_text(
        "\n".join([header, *(row.replace("one", "\u7ec6\u80de\U0001f9eb") for row in rows)]), encoding="utf-8"
    )
    code = f"from mistnn.cli.main import main; main(['inspect', {str(folder)!r}, '--no-estimate', '--out', 'x.png'])"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert "\u7ec6\u80de" in done.stdout and done.stderr == ""
    assert (tmp_path / "x.png").is_file()


def test_one_command_at_a_time_writes_to_a_folder(image: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    code = (
        "import time; from pathlib import Path; from mistnn.files import locked\n"
        f"with locked(Path({str(out)!r})): print(1, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "1\n"
    for command in (["predict", MODEL, str(image)], ["train", MODEL], ["tune", MODEL], ["demo"]):
        assert main([*command, "--out", str(out)]) == 2
        only_line(capsys.readouterr().err, "another process or thread is writing to", str(out))
    other.kill()
    other.communicate()
    assert main(["predict", MODEL, str(image), "--out", str(out)]) == 0  # the lock ended with the process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_signals_stop_a_prediction_and_keep_its_finished_part(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(100):
        Image.radial_gradient("L").resize((40 + index, 40)).save(tmp_path / "in" / f"{index:03}.png")
    code = (
        "import sys, time, mistnn.inference.stage as stage, mistnn.inference.folder as folder\n"
        "from mistnn.inference import Predictor\n"
        "stage.RECORD_SECONDS, folder.BATCH_SIZE, real = 0.0, 1, Predictor.predict_batch\n"
        # So slow that the signal comes before the end.
        "Predictor.predict_batch = lambda self, *given: (time.sleep(0.05), real(self, *given))[1]\n"
        "from mistnn.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "predict", MODEL, str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    for number, more in ((signal.SIGTERM, []), (signal.SIGHUP, ["--resume"])):
        process = subprocess.Popen(
            [*command, *more], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        record, until = tmp_path / "out" / ".predict.part" / "record.json", time.monotonic() + 120
        before = record.stat().st_mtime_ns if record.exists() else 0
        while not (record.exists() and record.stat().st_mtime_ns != before):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130
        only_line(said, "stopped after", "--resume continues")


def test_an_image_that_needs_too_much_memory_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for name, side in (("a.png", 40), ("b.png", 40), ("large.png", 80)):
        Image.radial_gradient("L").resize((side, 40)).save(tmp_path / name)
    real = Finder.detect
    seen: list[int] = []

    def limited(self: Finder, images: torch.Tensor, *arguments: object) -> object:
        seen.append(len(images))
        if images.shape[-1] > 60:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
        if len(images) > 1:
            raise MemoryError
        return real(self, images, *arguments)  # type: ignore[arg-type]

    from mistnn.models.mist import Mist

    monkeypatch.setattr(Mist, "detect", limited)
    assert (
        main(
            [
                "predict",
                MODEL,
                *(str(tmp_path / f"{one}.png") for one in ("a", "b", "large")),
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 1
    )
    said = capsys.readouterr()
    assert "skipped large.png: needs more memory than there is" in said.err and "in 2 images" in said.out
    assert seen == [2, 1, 1, 1]


def test_too_little_memory_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def too_large(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("mistnn.experiments.evaluate_stored", too_large)
    assert main(["evaluate", MODEL]) == 2
    only_line(capsys.readouterr().err, "not enough memory", "--train.batch-size")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command", ["predict MODEL IMAGE --out OUT", "evaluate MODEL", "tune MODEL --out OUT", "demo --out OUT",
                "inspect FOLDER --model MODEL", "figure fig5 --out OUT", "figure samples --out OUT",
                "reproduce table2 --ledger OUT", "label FOLDER --model MODEL", "app FOLDER --no-open"],
)  # fmt: skip
def test_a_missing_device_is_named(image: Path, tmp_path: Path, capsys: Captured, command: str) -> None:
    words = {"MODEL": MODEL, "IMAGE": str(image), "OUT": str(tmp_path / "out"), "FOLDER": str(tmp_path)}
    given = [words.get(word, word) for word in command.split()]
    assert main([*given, "--device", "cuda"]) == 2
    only_line(capsys.readouterr().err, "cuda", "torch finds no GPU here")


def test_a_device_is_chosen(image: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["predict", MODEL, str(image), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert main(["evaluate", "mist-discover-gabor", "--images", "2", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["predict", MODEL, str(image), "--out", str(tmp_path / "out"), "--device", "tpu"]) == 2
    only_line(capsys.readouterr().err, "tpu")


def test_a_folder_that_is_named_like_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-cells").mkdir()
    assert main(["train", "my-cells"]) == 2
    only_line(capsys.readouterr().err, "`mist train my-folder --data-root my-cells`")
    assert main(["train", "my-folder"]) == 2
    only_line(capsys.readouterr().err, "my-folder is the name of a preset", "--data-root DIR")
