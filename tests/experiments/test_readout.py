from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.experiments import evaluate, restore, train
from mistnn.experiments.readout import tune_readout
from mistnn.models.mist import Mist
from mistnn.weights import load_model, read_config
from tests.experiments.tiny import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("readout") / "run"
    train(TINY, out)
    return out


def test_the_best_is_written_and_the_weights_stay(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    best = tune_readout(run, tmp_path / "out", 6, (10.0, 0.5), (3, 7), say=said.append)
    assert len(said) == 4
    before, after = restore(run), restore(tmp_path / "out")
    assert (after.model.softmax_strength, after.model.nms_window) in [(10.0, 3), (10.0, 7), (0.5, 3), (0.5, 7)]
    assert after.data == before.data and after.step == before.step
    assert read_config(tmp_path / "out").training == read_config(run).training is not None
    model = load_model(tmp_path / "out")
    assert isinstance(model, Mist)
    assert evaluate(model, after.data, "validation", 6) == best
    assert max(float(line.rsplit(" ", 1)[1]) for line in said) == pytest.approx(best["classified"], abs=1e-4)
    for (name, old), new in zip(load_model(run).state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(old, new), name


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MistError, match="nothing to choose"):
        tune_readout(run, tmp_path / "a", 2, ())
    with pytest.raises(MistError, match="already holds a run"):
        tune_readout(run, run, 2)
    assert main(["tune", str(run), "--out", str(tmp_path / "b"), "--images", "0"]) == 2


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(run), "--out", str(tmp_path / "out"), "--images", "2"]) == 0
    assert capsys.readouterr().out.count("strength") == 12
    assert (tmp_path / "out" / "model.safetensors").is_file()
    few = ["--strengths", "5", "3", "--windows", "3"]
    assert main(["tune", str(run), "--out", str(tmp_path / "few"), "--images", "2", *few]) == 0
    said = capsys.readouterr().out
    assert said.count("strength") == 2 and "strength 3, window 3" in said
    assert main(["tune", str(run), "--out", str(tmp_path / "c"), "--windows", "4"]) == 2
    assert "nms_window=4" in capsys.readouterr().err and not (tmp_path / "c" / "config.json").exists()
