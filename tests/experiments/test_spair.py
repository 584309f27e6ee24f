"""SPAIR from its presets: trained, stored, measured, used on files, drawn; what is refused; the warning."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import ScatterConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, evaluate_stored, restore, train
from mistnn.experiments.watch import LINES, Watch
from mistnn.inference import Predictor, predict_folder
from mistnn.models.spair import Spair, SpairConfig, SpairStepConfig, collapse_note
from mistnn.reproduce.figures import draw_figure
from mistnn.reproduce.figures.source import Request
from mistnn.training import TrainConfig
from mistnn.weights import load_model

TINY = Experiment(
    model=SpairConfig(width=8, hidden=(16,), encoder=(16,), decoder=(16,), features=8, attributes=4),
    data=ScatterConfig(source="embedded", counts=(0, 1, 2)),
    step=SpairStepConfig(rate=1e-3, wheels=0),
    train=TrainConfig(steps=2, batch_size=4, seed=1, log_every=1, save_every=0, threads=1, device="cpu"),
    evaluation_images=0,
)
"""None, one or two embedded digits; an image without any is nothing special."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spair") / "run"
    assert train(TINY, out).steps == 2
    return out


def test_a_run_is_stored_whole(run: Path) -> None:
    assert restore(run) == dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, root=None))
    network = load_model(run)
    assert isinstance(network, Spair) and network.config == TINY.model


def test_what_images_share_is_learnt_before_training(tmp_path: Path) -> None:
    ramp = np.linspace(40, 160, 48).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp, (48, 48)).copy()).save(tmp_path / "ground.png")
    data = dataclasses.replace(TINY.data, picture=str(tmp_path / "ground.png"))
    assert isinstance(TINY.model, SpairConfig)
    model = dataclasses.replace(TINY.model, background="shared", background_side=48)
    changed = dataclasses.replace(TINY, model=model, data=data)
    assert train(changed, tmp_path / "run").steps == 2
    network = load_model(tmp_path / "run")
    assert isinstance(network, Spair)
    assert np.abs(network.shared[0].numpy() * 255 - ramp).max() < 1.5
    assert train(
        dataclasses.replace(changed, train=dataclasses.replace(TINY.train, steps=3)), tmp_path / "run", resume=True
    )
    for wrong, given in (
        (24, {}),
        (48, {"canvas": 84}),
        (84, {"canvas": 84, "crop": 48}),
        (48, {"canvas": 84, "crop": 48}),
    ):
        asked = dataclasses.replace(
            TINY, model=dataclasses.replace(model, background_side=wrong), data=dataclasses.replace(TINY.data, **given)
        )
        with pytest.raises(MistError, match=f"model.background_side={wrong}, but training uses"):
            check(asked)


def test_it_is_measured_without_being_told_how_many_there_are(run: Path) -> None:
    metrics = evaluate_stored(run, 20)
    assert {"ap", "ap50", "count_error", "count_accuracy", "rmse", "r2"} <= set(metrics)
    assert metrics["images"] == 20


def test_files_are_predicted_by_its_own_count(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a.png", (48, 60)), ("b.png", (24, 24)), ("c.png", (50, 48))):
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    assert main(["predict", str(run), str(folder), "--out", str(tmp_path / "said")]) == 1
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == [
        "skipped c.png",
        "1 image skipped",
    ]
    predictor = Predictor.from_pretrained(run)
    summary = predict_folder(predictor, [folder], tmp_path / "out")
    assert summary.images == 2 and [one.file for one in summary.skipped] == ["c.png"]
    assert "not made of cells of 12 x 12" in summary.skipped[0].reason
    with (tmp_path / "out" / "counts.csv").open() as table:
        counts = {row["file"]: int(row["count"]) for row in csv.DictReader(table)}
    for name in ("a.png", "b.png"):
        pixels = torch.from_numpy(np.asarray(Image.open(folder / name)) / 255.0).float()
        with torch.no_grad():
            logits = load_model(run).infer(pixels[None, None]).presence_logits
        assert counts[name] == int((logits > 0).sum()) == len(predictor.predict(folder / name).boxes)
        assert len(predictor.predict(folder / name, k=2).boxes) == 2
    assert (tmp_path / "out" / "reconstructions" / "a.png").exists()
    with pytest.raises(MistError, match="48 x 50 pixels and is not made of cells"):
        predictor.predict(folder / "c.png")


def test_figure(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png, pdf = draw_figure("spair-objects", Request(run), tmp_path)
    assert png.stat().st_size > 5000 and pdf.exists()
    assert main(["figure", "spair-objects", "--out", str(tmp_path)]) == 2
    assert "train spair-5" in capsys.readouterr().err
    with pytest.raises(MistError, match="another system"):
        draw_figure("spair-objects", Request("mist-mnist-3"), tmp_path)


def test_crops_train_a_network_for_whole_images(tmp_path: Path) -> None:
    data = ScatterConfig(source="embedded", canvas=84, crop=48, counts=(5, 6))
    train(dataclasses.replace(TINY, data=data), tmp_path / "run")
    assert evaluate_stored(tmp_path / "run", 4)["images"] == 4
    assert load_model(tmp_path / "run").most(84, 84) == 49


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            ScatterConfig(source="embedded", canvas=50),
            "data.canvas=50.* made of cells of 12 x 12.*not a multiple of 12",
        ),
        (ScatterConfig(source="embedded", canvas=84, crop=40), "data.crop=40.* made of cells of 12"),
        (
            ScatterConfig(source="embedded", canvas=24, side=4, counts=(5,)),
            "5 objects.* one per cell, 4 in the 24 x 24 .*larger data.canvas",
        ),
        (
            ScatterConfig(source="embedded", canvas=84, crop=24, side=4, counts=(5,)),
            "5 objects.* one per cell, 4 in the 24 x 24 .*larger data.crop",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_before_the_training(data: ScatterConfig, message: str) -> None:
    with pytest.raises(MistError, match=message):
        check(dataclasses.replace(TINY, data=data))


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MistError, match="train in one process"):
        check(TINY)


def test_a_mistaken_s_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "spair-5", "--step.s", "1.5", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "step.s=1.5 must be below 1" in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("preset", ["spair-5", "conncomp-5"])
def test_no_number_is_trained_with_where_none_is_told(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", preset, "--k", "3", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"{preset} has no --k" in error and len(error.strip().splitlines()) == 1


def test_images_without_objects_train_and_are_measured(tmp_path: Path) -> None:
    result = train(
        dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, counts=(0,)), evaluation_images=3),
        tmp_path / "run",
    )
    assert result.metrics["objects"] == 0 and "ap" not in result.metrics
    assert result.metrics["count_error"] == result.metrics["count_bias"] >= 0


def test_a_collapse_is_said_once() -> None:
    heard: list[str] = []
    watch = Watch(collapse_note, "kl_presence", heard.append)
    line = {"kl_presence": 1.0, "objects": 0.0, "on": 0.0, "presence": 0.0, "s": 0.9, "kl_what": 0.0}
    for iteration in range(1, LINES + 3):
        watch.line(iteration, line)
        watch.line(iteration, {"evaluate/ap": 0.0})
    watch.end()
    assert len(heard) == 1 and heard[0].startswith(f"after {LINES} steps no object is drawn any more")
