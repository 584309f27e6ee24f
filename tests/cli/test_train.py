from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import mistnn
from mistnn.cli.main import main
from mistnn.presets import PRESETS
from tests.cli.runs import TINY, logged, only_line, read_config, train_tiny
from tests.data.folders import make_folder

Captured = pytest.CaptureFixture[str]
CHECKPOINT = Path("checkpoint") / "state.safetensors"


ON_FILES = {"svhn", "numbers", "natural", "common-object", "number-crops", "birds"}
"""Presets on these data are trained in tests/presets/test_house_numbers.py, test_stn_numbers.py, test_stn_birds.py,
tests/cli/test_natural.py and the tests in tests/reproduce/test_stn.py."""


@pytest.mark.parametrize("name", [name for name, one in PRESETS.items() if one.experiment.data.kind not in ON_FILES])
def test_every_preset_trains(name: str, tmp_path: Path) -> None:
    """Each preset as it is, but for the number of steps, the batch and the digits, which need no files."""
    short = "--train.steps 2 --train.batch-size 2 --train.threads 1 --evaluation-images 1"
    of_digits = PRESETS[name].experiment.data.kind in ("scenes", "scatter", "distorted")
    short += " --data.source embedded" if of_digits else ""
    short += f" --data-root {make_folder(tmp_path / 'own')}" if name in ("my-folder", "my-photos", "my-shapes") else ""
    out = tmp_path / "run"
    assert main(["train", name, "--out", str(out), *short.split()]) == 0
    lines = logged(out)
    assert lines[-1]["step"] == 2
    steps = [line["step"] for line in lines if not any(key.startswith("evaluate/") for key in line)]
    assert steps == ([1, 2] if name.startswith("conncomp") else [2])  # its training is short, so each step is logged
    config = read_config(out)["experiment"]
    assert (config["train"]["steps"], config["train"]["batch_size"]) == (2, 2)
    assert (out / "model.safetensors").is_file() and (out / CHECKPOINT).is_file()


def test_default_folder_and_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    # Options first, a name with underscores, a value after an equals sign.
    assert main(["train", *TINY, "--train.log_every=2", "mist-mnist-3"]) == 0
    assert [line["step"] for line in logged(Path("runs/mist-mnist-3")) if "heatmap" in line] == [2]
    text = capsys.readouterr().out
    assert "Trained 2 steps" in text and "both" in text and "mist evaluate" in text


def test_a_folder_may_have_the_name_of_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--force", "mist-mnist-3", "--out", "mist-mnist-hard", *TINY]) == 0
    assert main(["train", "--out", "mist-mnist-3", "mist-mnist-3", *TINY]) == 0
    assert main(["train", "mist-mnist-3", "--out=demo", *TINY]) == 0
    assert main(["train", "--resume", "mist-mnist-hard", "--train.steps", "3"]) == 0
    steps = {path.name: logged(path)[-1]["step"] for path in tmp_path.iterdir()}
    assert steps == {"mist-mnist-hard": 3, "mist-mnist-3": 2, "demo": 2}


@pytest.mark.parametrize("flag", ["--step.objects-only", "--train.no-tensorboard", "--force", "--model.background"])
def test_a_preset_may_follow_a_flag(flag: str, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "run"
    assert main(["train", flag, "mist-mnist-3", "--out", str(out), *TINY, "--train.stepz", "3"]) == 2
    only_line(capsys.readouterr().err, "'--train.stepz'", "--train.steps")


@pytest.mark.parametrize("option", ["--out", "--start-from", "--data-root", "--train.device", "--unknown"])
def test_the_value_of_an_option_names_no_preset(option: str, capsys: Captured) -> None:
    assert main(["train", option, "mist-mnist-3"]) == 2
    only_line(capsys.readouterr().err, "no preset was named")


@pytest.mark.parametrize("name", ["spair-9", "conncomp-9", "stn-fcn-affine-rts"])
def test_k_where_the_model_has_none(name: str, capsys: Captured) -> None:
    assert main(["train", name, "--k", "3"]) == 2
    only_line(capsys.readouterr().err, name, "no --k")


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], 2), (["--step.decay-steps", "7"], 7), (["--step.decay_steps=9"], 9)],
    ids=["follows", "given", "given with underscores"],
)
def test_decay_takes_the_whole_run_unless_given(given: list[str], expected: int, tmp_path: Path) -> None:
    assert getattr(PRESETS["mist-mnist-3"].experiment.step, "decay_steps", 0) is None, "the whole run"
    assert train_tiny(tmp_path / "run", *given) == 0
    assert read_config(tmp_path / "run")["experiment"]["step"]["decay_steps"] == expected


def test_resume_keeps_the_settings_of_the_run(copy: Path, capsys: Captured) -> None:
    assert main(["train", "--resume", str(copy), "--train.steps", "4"]) == 0
    assert [line["step"] for line in logged(copy) if "heatmap" in line] == [1, 2, 3, 4]
    config = read_config(copy)["experiment"]
    assert config["train"]["steps"] == 4 and config["data"]["canvas"] == 32
    assert config["step"]["decay_steps"] == 2, "the fall that was begun goes on"
    only_line(capsys.readouterr().err, "decay until step 2", "step.decay_steps", "train.steps=4", "--start-from")
    assert main(["train", f"--resume={copy}", "--train.steps=5"]) == 0
    assert logged(copy)[-1]["step"] == 5


@pytest.mark.parametrize("more", [["--step.decay", "1"], ["--step.decay-steps", "9"]], ids=["constant", "falling"])
def test_resume_is_silent_where_the_rates_do_not_stay_at_the_bottom(
    more: list[str], tmp_path: Path, capsys: Captured
) -> None:
    assert train_tiny(tmp_path / "run", *more) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--train.steps", "3"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0, "nothing is left to do"
    assert capsys.readouterr().err == ""


def test_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mistnn", "train", "mist-mnist-3", "--out", str(out), *TINY]
    environment = {**os.environ, "PYTHONPATH": str(Path(mistnn.__file__).parents[1])}
    process = subprocess.Popen(
        [*command, "--train.steps", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").is_file() or not logged_bytes(out):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 130, complained
    assert f"mist train --resume {out}" in said.decode()
    assert complained == b""
    done = logged(out)[-1]["step"]
    assert main(["train", "--resume", str(out), "--train.steps", str(done + 2)]) == 0
    assert logged(out)[-1]["step"] == done + 2


def logged_bytes(out: Path) -> int:
    return (out / "metrics.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mist-mnist3"], ["'mist-mnist3'", "did you mean mist-mnist-3"]),
        ([], ["no preset was named", "mist presets"]),
        (["--train.steps", "3"], ["no preset was named"]),
        (["mist-mnist-3", "mist-mnist-hard"], ["'mist-mnist-hard'"]),
        (["mist-mnist-3", "--steps", "3"], ["'--steps'", "--train.steps"]),
        (["mist-mnist-3", "--train.stpes", "3"], ["'--train.stpes'", "--train.steps"]),
        (["mist-mnist-3", "--train.steps", "x"], ["--train.steps", "'x'", "whole number"]),
        (["mist-mnist-3", "--step.task-rate", "fast"], ["--step.task-rate", "'fast'", "number"]),
        (["mist-mnist-3", "--data.layout", "mild"], ["--data.layout", "'mild'", "'uneven'"]),
        (["mist-mnist-3", "--train.steps", "0"], ["train.steps=0", "1 or more"]),
        (["mist-mnist-3", "--train.device", "tpu"], ["--train.device", "'tpu'", "'cuda'"]),
        (["mist-mnist-3", "--data.canvas", "10"], ["data.canvas=10"]),
        (["mist-mnist-3", "--data.classes", "5"], ["model.class_names has 10 classes", "have 5"]),
        (["mist-mnist-3", "--model.k", "0"], ["model.k=0", "1 or more"]),
        (["mist-mnist-3", "--model.k", "2305"], ["model.k=2305", "2304 pixels"]),
        (["mist-mnist-3", "--model.channels", "2"], ["model.channels=2", "1 or 3"]),
        (["mist-mnist-3", "--model.box-size", "0"], ["model.box_size=0.0", "above 0"]),
        (["mist-mnist-3", "--model.patch-extent", "nan"], ["model.patch_extent=nan"]),
        (["mist-mnist-3", "--model.patch-size", "20"], ["model.patch_size=20", "multiple of 8"]),
        (["mist-mnist-3", "--model.encoder.network", "paper"], ["model.patch_size=24", "multiple of 32"]),
        (["mist-mnist-3", "--model.patch-window", "-1"], ["model.patch_window=-1.0"]),
        (["mist-mnist-3", "--model.decoder", "-1"], ["model.decoder=-1"]),
        (["mist-mnist-3", "--model.softmax-window", "4"], ["model.softmax_window=4", "odd"]),
        (["mist-mnist-3", "--model.nms-window", "0"], ["model.nms_window=0", "odd"]),
        (["mist-mnist-3", "--model.class-names", "a", "a"], ["model.class_names", "distinct"]),
        (["mist-mnist-3", "--model.heatmap.channels", "0"], ["heatmap.channels=0", "1 or more"]),
        (["mist-mnist-3", "--model.encoder.width", "0"], ["encoder.width=0", "1 or more"]),
        (["mist-mnist-3", "--step.task-rate", "0"], ["step.task_rate=0.0", "above 0"]),
        (["mist-mnist-3", "--step.heatmap-rate", "inf"], ["step.heatmap_rate=inf"]),
        (["mist-mnist-3", "--step.inner-steps", "-1"], ["step.inner_steps=-1", "0 or more"]),
        (["mist-mnist-3", "--step.decay", "2"], ["step.decay=2.0", "0 to 1"]),
        (
            ["mist-mnist-3", "--data.source", "embedded", "--step.reconstruction", "1"],
            ["step.reconstruction=1.0", "decoder"],
        ),
        (["--resume"], ["--resume needs the folder"]),
        (["--resume", "nowhere"], ["'nowhere'"]),
        (["--resume", "nowhere", "--force"], ["--force"]),
        (["mist-mnist-3", "--resume", "nowhere"], ["leave out the preset mist-mnist-3"]),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)
def test_mistakes_write_nothing(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    only_line(capsys.readouterr().err, *words)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten(copy: Path, capsys: Captured) -> None:
    before = (copy / CHECKPOINT).read_bytes()
    assert train_tiny(copy) == 2
    only_line(capsys.readouterr().err, str(copy), "already holds a run", "--force")
    assert (copy / CHECKPOINT).read_bytes() == before
    assert train_tiny(copy, "--force", "--train.seed", "1") == 0
    assert (copy / CHECKPOINT).read_bytes() != before


def test_out_is_a_file(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert train_tiny(out) == 2
        only_line(capsys.readouterr().err, str(out), "--out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.access("/", os.W_OK), reason="root may write everywhere")
def test_out_is_not_writable(tmp_path: Path, capsys: Captured) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert train_tiny(locked / "run") == 2
    only_line(capsys.readouterr().err, str(locked / "run"), "--out")


def test_missing_mnist_names_the_option(tmp_path: Path, capsys: Captured) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for option in ("--data-root", "--data.root", "--data_root"):
        assert main(["train", "mist-mnist-3", "--out", str(tmp_path / "run"), option, str(empty)]) == 2
        only_line(capsys.readouterr().err, str(empty), "--data-root")
    assert main(["train", "mist-mnist-3", f"--data-root={tmp_path / 'gone'}", "--out", str(tmp_path / "run")]) == 2
    only_line(capsys.readouterr().err, "gone", "--data-root")
    assert not (tmp_path / "run").exists()


def test_mnist_that_cannot_be_fetched_is_one_line(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: under pytest the log has another handler."""
    code = (
        "import sys, urllib.request\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "urllib.request.urlopen = refuse\n"
        "from mistnn.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MIST_DATA"}
    environment |= {"PYTHONPATH": str(Path(mistnn.__file__).parents[1]), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "mist-mnist-3", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2 and done.stdout == ""
    only_line(done.stderr, "could not be downloaded", "no network", "--data-root")
    assert not (tmp_path / "run").exists()


def test_corrupt_mnist_names_the_option(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (root / name).write_bytes(b"\0\0\x08\1\0\0\0\1\7")
    assert main(["train", "mist-mnist-3", "--data-root", str(root), "--out", str(tmp_path / "run")]) == 2
    only_line(capsys.readouterr().err, "corrupt", "--data-root")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(tmp_path: Path, capsys: Captured) -> None:
    """Weights of 1e30 overflow in the next forward pass: the term is named, and the checkpoint before it stays."""
    out = tmp_path / "run"
    more = ["--step.task-rate", "1e30", "--train.save-every", "1", "--train.steps", "20"]
    assert train_tiny(out, *more) == 2
    line = only_line(capsys.readouterr().err, "loss term", "iteration", "last good checkpoint", str(out / CHECKPOINT))
    assert "learning rate" in line
    with safe_open(out / CHECKPOINT, framework="pt") as file:
        assert file.keys()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_checkpoint(share: float, copy: Path, capsys: Captured) -> None:
    path = copy / CHECKPOINT
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert main(["train", "--resume", str(copy), "--train.steps", "3"]) == 2
    only_line(capsys.readouterr().err, str(path), "cut or damaged")


def test_a_checkpoint_of_another_format(copy: Path, capsys: Captured) -> None:
    path = copy / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    save_file(tensors, path, {**metadata, "format": "3"})
    assert main(["train", "--resume", str(copy), "--train.steps", "3"]) == 2
    only_line(capsys.readouterr().err, str(path), "format 3", "upgrade")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--model.heatmap.channels", "5"], ["another configuration", "channels was 4 and is now 5"]),
        (["--train.batch-size", "4"], ["another configuration", "batch_size was 2 and is now 4"]),
        (["--train.steps", "1"], ["already holds iteration 2", "above 1"]),
    ],
)
def test_resume_with_other_settings(change: list[str], words: list[str], copy: Path, capsys: Captured) -> None:
    before = (copy / "config.json").read_bytes()
    assert main(["train", "--resume", str(copy), *change]) == 2
    only_line(capsys.readouterr().err, *words)
    assert (copy / "config.json").read_bytes() == before


def test_resume_of_a_config_with_an_unknown_key(copy: Path, capsys: Captured) -> None:
    config = read_config(copy)
    config["experiment"]["train"]["stepz"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(copy)]) == 2
    only_line(capsys.readouterr().err, str(copy), "'stepz'")


def test_a_stopped_run_names_the_folder_of_its_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that continues must be complete: a run doesn't store where files are."""
    from mistnn.cli.train import _report
    from mistnn.training import FitResult

    for root, ending in ((None, "run`"), ("my own", "run --data-root 'my own'`")):
        experiment = PRESETS["my-folder"].experiment.at(root)
        assert _report(FitResult(3, 1.0, interrupted=True), experiment, Path("run")) == 130
        assert f"`mist train --resume {ending} continues" in capsys.readouterr().out
