"""Nothing is lost after a kill, a full disk, a lost folder or a signal at any operation on a file.

Model, configuration and checkpoint agree; counts, added images and exported files are the old or the new ones in full.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mistnn
from mistnn.cli.main import main
from mistnn.training.checkpoint import read_checkpoint
from mistnn.weights import load_model, read_config
from tests import kills
from tests.cli.runs import TINY, only_line

TRAIN = ["train", "mist-mnist-3", "--out", "{out}", *TINY, "--train.save-every", "1"]
STATE = Path("checkpoint") / "state.safetensors"
WANTED = {"kill": kills.KILLED, "full": 2, "read-only": 2, "lost": 2, "interrupt": 130, "signals": 130}
"""Mode of ``kills`` -> the exit code of a command that doesn't come to its end."""
SMALL = "import mistnn.inference.stage as s, mistnn.inference.folder as f; s.RECORD_SECONDS, f.BATCH_SIZE = 0.0, 1"


def sweep(
    base: Path, command: list[str], resume: list[str], mode: str, start: str = "", code: str = "", every: int = 1
) -> list[dict[str, Any]]:
    """The outcomes of one plan, see ``kills.sweep``."""
    plan = {"command": command, "resume": resume, "base": str(base), "mode": mode, "start": start, "code": code}
    return sweeps([plan | {"every": every}])[0]


def sweeps(plans: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    for plan in plans:
        Path(plan["base"]).mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, kills.__file__, json.dumps(plans)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    for plan, outcomes in zip(plans, found, strict=True):
        wanted = WANTED[plan["mode"]]
        assert len(outcomes) > 1 and {one["status"] for one in outcomes[:-1]} <= {wanted, 0}, outcomes
        for outcome in outcomes:
            if outcome["status"] == 2:
                only_line(outcome["ended"])
            for status, said in outcome["repairs"]:
                if status:  # a prediction also names the images that it worked on
                    only_line("".join(line for line in said.splitlines(True) if "the last run died" not in line))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([part.replace("{out}", str(out)) for part in TRAIN]) == 0
    torch.set_num_threads(before)
    return out


def assert_same_run(whole: Path, run: Path, what: object) -> None:
    ours, wanted = load_file(run / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted), what
    load_model(run)
    record = read_config(run).training
    assert record is not None and record.steps == 2, what
    assert read_checkpoint(run / STATE)[0]["iteration"] == 2, what
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in whole.iterdir()), what


ALL = [pytest.param(mode, 1, marks=pytest.mark.slow) for mode in WANTED]
"""Each operation; the quick tests try only some."""


@pytest.mark.parametrize(("mode", "every"), [*ALL, ("kill", 13)])
def test_training(whole: Path, tmp_path: Path, mode: str, every: int) -> None:
    for outcome in sweep(tmp_path / "runs", TRAIN, ["train", "--resume", "{out}"], mode, every=every):
        assert outcome["repairs"][-1][0] == 0 or outcome["status"] == 0, outcome
        assert_same_run(whole, Path(outcome["out"]), outcome)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    for index in range(2):
        Image.radial_gradient("L").resize((30 + index, 30)).save(folder / f"{index}.png")
    return folder


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("mode", "every"), [*ALL, ("kill", 7)])
def test_prediction(whole: Path, pictures: Path, tmp_path: Path, mode: str, every: int) -> None:
    """Over earlier results, which have a file more."""
    before, wanted = tmp_path / "before", tmp_path / "wanted"
    assert main(["predict", str(whole), str(pictures), "--out", str(before), "--coco", "--k", "1"]) == 0
    command = ["predict", str(whole), str(pictures), "--force", "--out"]
    assert main([*command, str(wanted)]) == 0
    resume = [*command, "{out}", "--resume"]
    for outcome in sweep(tmp_path / "runs", [*command, "{out}"], resume, mode, str(before), SMALL, every):
        assert outcome["repairs"][-1][0] == 0, outcome
        assert contents(Path(outcome["out"])) == contents(wanted), outcome


def test_a_prediction_killed_while_its_results_move_up_is_named(
    whole: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    command = ["predict", str(whole), str(pictures), "--out"]
    assert main([*command, str(wanted)]) == 0
    real = os.replace

    def once(old: Path, new: Path) -> None:
        if Path(new).name == "overlays":
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(mistnn.inference.stage.os, "replace", once)
    assert main([*command, str(out)]) == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert main([*command, str(out)]) == 2
    only_line(capsys.readouterr().err, "killed while its results were moved", "--resume")
    assert main([*command, str(out), "--resume"]) == 0
    assert contents(out) == contents(wanted)


def test_no_image_is_counted_in_place_of_one_that_failed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for the second of three drawings, and has room again for the third."""
    for index in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.radial_gradient("L").resize((30 + index, 30)).save(tmp_path / "in" / f"{index}.png")
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    command = ["predict", str(whole), str(tmp_path / "in"), "--out"]
    assert main([*command, str(wanted)]) == 0
    monkeypatch.setattr(mistnn.inference.stage, "RECORD_SECONDS", 0.0)
    monkeypatch.setattr(mistnn.inference.folder, "BATCH_SIZE", 1)
    real, failed = mistnn.inference.folder.write_overlay, []

    def once(path: Path, *given: Any) -> None:
        if path.name.startswith("1") and not failed:
            failed.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, *given)

    monkeypatch.setattr(mistnn.inference.folder, "write_overlay", once)
    assert main([*command, str(out)]) == 2 and failed
    assert main([*command, str(out), "--resume"]) == 0
    assert contents(out) == contents(wanted)


SAVES = {
    "label": (
        "from pathlib import Path; from mistnn.web.labels import Labels\n"
        "labels = Labels(Path({out!r})); labels.set('0.png', [7])"
    ),
    "app": (
        "from pathlib import Path; from mistnn.web.workshop import Workshop\n"
        "shop = Workshop(Path({out!r}), Path({out!r} + '-results'))\n"
        "there = {{one.name for one in shop.images.root.iterdir()}}\n"
        "shop.images.add([one for one in sorted(Path({new!r}).iterdir()) if one.name not in there])\n"
        "shop.images.save_rows([['0.png', 7], ['2.png', 9]])"
    ),
    "export": (
        "from pathlib import Path; import mistnn.inference.export as export; from mistnn.inference import Predictor\n"
        "export._traced, export._as_onnx = lambda *given: None, lambda *given: b'new' * 9999\n"
        "export.export_model(Predictor.from_pretrained('mist-mnist-3'), Path({out!r}) / 'counts.csv')"
    ),
}
"""What saves into a folder with ``counts.csv`` -> Python code. Exporting itself is tested elsewhere."""


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_saves_of_other_commands(pictures: Path, tmp_path: Path, every: int) -> None:
    """The table and each image are the old ones or the new ones in full, and the same again comes to the new ones."""
    start, new = tmp_path / "start", tmp_path / "new"
    shutil.copytree(pictures, start)
    (start / "counts.csv").write_text("file,class,count\n0.png,object,1\n1.png,object,2\n")
    new.mkdir()
    for index in range(2, 4):
        Image.radial_gradient("L").resize((30 + index, 30)).save(new / f"{index}.png")
    before, after, plans = contents(start), dict[str, dict[str, bytes]](), []
    for kind, code in SAVES.items():
        wanted = tmp_path / kind
        shutil.copytree(start, wanted)
        with pytest.MonkeyPatch.context() as patch:  # the code replaces functions
            for name in ("_traced", "_as_onnx"):
                patch.setattr(f"mistnn.inference.export.{name}", None)
            exec(code.format(out=str(wanted), new=str(new)), {})
        after[kind] = contents(wanted)
        command = ["python", code.format(out="{out}", new=str(new))]
        for mode in WANTED if every == 1 else ("kill", "full"):
            base = str(tmp_path / f"{kind}-{mode}")
            plan = {"command": command, "resume": command, "base": base, "mode": mode, "start": str(start)}
            plans.append(plan | {"code": "", "every": every})
    for plan, outcomes in zip(plans, sweeps(plans), strict=True):
        kind = Path(plan["base"]).name.partition("-")[0]
        for outcome in outcomes:
            assert outcome["repairs"][-1][0] == 0, outcome
            assert contents(Path(outcome["out"])) == after[kind], outcome
            for name, content in outcome["left"].items():
                whole = [hashlib.sha256(one[name]).hexdigest() for one in (before, after[kind]) if name in one]
                assert content in whole or name.startswith(".") or name.endswith(".tmp"), (name, outcome)
