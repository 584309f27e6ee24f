from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate, restore, train
from mistnn.experiments.readout import readings_of, tune_readout
from mistnn.models.mist import Mist, SupervisedStepConfig
from mistnn.models.rivals import ChannelwiseConfig, RivalStepConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets import PRESETS
from mistnn.weights import load_model, read_config
from tests.experiments.tiny import TINY
from tests.web.squares import draw


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
    assert evaluate(model, after.data, "validation", 6) == best.metrics and best.tried == 4
    assert best.reading == (after.model.softmax_strength, after.model.nms_window)
    assert max(float(line.rsplit(" ", 1)[1]) for line in said) == pytest.approx(best.metrics["classified"], abs=1e-4)
    for (name, old), new in zip(load_model(run).state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(old, new), name


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MistError, match="nothing to choose"):
        tune_readout(run, tmp_path / "a", 2, ())
    with pytest.raises(MistError, match="is the model itself"):
        tune_readout(run, run, 2)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{}")
    with pytest.raises(MistError, match="holds a model: give a new folder with --out, or --force"):
        tune_readout(run, tmp_path / "c", 2)
    assert main(["tune", str(run), "--out", str(tmp_path / "b"), "--images", "0"]) == 2


def test_an_image_folder_is_refused(tmp_path: Path) -> None:
    """Its threshold was chosen for the present reading."""
    for index in range(8):
        draw(tmp_path / "mine" / f"{index}.png", 1 + index % 3, index)
    rows = [f"{index}.png,{1 + index % 3}" for index in range(8)]
    (tmp_path / "mine" / "counts.csv").write_text("\n".join(["file,square", *rows, ""]))
    given = ["--data-root", str(tmp_path / "mine"), "--out", str(tmp_path / "own"), "--train.batch-size", "2"]
    assert main(["train", "my-shapes", *given, "--train.steps", "2"]) == 0
    with pytest.raises(MistError, match="was trained on an image folder"):
        tune_readout(tmp_path / "own", tmp_path / "tuned", 2, (10.0,), (5,), root=str(tmp_path / "mine"))


SUPERVISED = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, decoder=0), step=SupervisedStepConfig())
CHANNELS = dataclasses.replace(
    TINY,
    model=ChannelwiseConfig(
        TINY.model.class_names, 2, 1, 10.0, 16, HeatmapConfig(channels=4, blocks=1, start="random"), TINY.model.encoder
    ),
    step=RivalStepConfig(),
)


@pytest.mark.parametrize(("experiment", "tried"), [(SUPERVISED, 12), (CHANNELS, 6)], ids=["supervised", "channelwise"])
def test_every_system_with_a_strength_is_read_by_the_same_search(
    experiment: Experiment, tried: int, tmp_path: Path
) -> None:
    train(experiment, tmp_path / "run")
    said: list[str] = []
    best = tune_readout(tmp_path / "run", tmp_path / "out", 2, say=said.append)
    assert len(said) == best.tried == tried and all(line.count("classified") == 1 for line in said)
    after = restore(tmp_path / "out")
    assert after.step == experiment.step and after.model == after.model.with_reading(*best.reading)
    strengths = [reading.strength for reading in readings_of(experiment.model)]
    trained = experiment.model.with_reading(strengths[0], None)
    assert trained.with_reading(strengths[0], None) == experiment.model, "the first is that of the training"
    assert {strength / strengths[0] for strength in strengths} == {1, 0.3, 0.1, 0.05, 0.02, 0.01}


def test_a_system_without_a_strength_is_named(tmp_path: Path) -> None:
    for name in ("grid-mnist-hard", "xie20-mnist-hard", "zha18-mnist-hard", "esl16-mnist-hard"):
        with pytest.raises(MistError, match="no heat map with a strength"):
            readings_of(PRESETS[name].experiment.model)
    for name in ("mist-mnist-hard", "supervised-mnist-hard", "mist-discover-mnist-easy"):
        assert len(readings_of(PRESETS[name].experiment.model)) == 12


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
