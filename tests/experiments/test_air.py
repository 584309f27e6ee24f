"""AIR, DAIR and ConnComp as experiments: trained, stored, measured, predicted with; settings; what doesn't fit."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mistnn.cli.main import main
from mistnn.data import GaborConfig, ScatterConfig, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate, evaluate_stored, restore, train
from mistnn.inference import Predictor
from mistnn.metrics import average_precision
from mistnn.metrics.meanings import MEANINGS
from mistnn.models.air import AirConfig, AirStepConfig
from mistnn.models.conncomp import ConnComp, ConnCompConfig, ConnCompStepConfig
from mistnn.presets import PRESETS
from mistnn.presets.scattered import DIGITS
from mistnn.training import TrainConfig
from mistnn.weights import load_model

DATA = ScatterConfig("embedded", canvas=24, counts=(0, 1, 2), side=10, overlap=30)
NETWORK = AirConfig(canvas=24, k=2, units=8, head=(8,), window=8, attributes=3, encoder=(8,), decoder=(8,))
TINY = Experiment(NETWORK, DATA, AirStepConfig(), TrainConfig(steps=2, batch_size=4, log_every=1), 6)
TOLD = dataclasses.replace(TINY, model=dataclasses.replace(NETWORK, given=True, sides=2))
DAIR = dataclasses.replace(TOLD, model=dataclasses.replace(TOLD.model, recurrence="feedforward", hidden=(8,)))
CONNCOMP = dataclasses.replace(TINY, model=ConnCompConfig(), step=ConnCompStepConfig(values=10))


@pytest.mark.parametrize("experiment", [TINY, TOLD, DAIR, CONNCOMP], ids=["air", "told", "dair", "conncomp"])
def test_trained_stored_measured_and_predicted_with(experiment: Experiment, tmp_path: Path) -> None:
    result = train(experiment, tmp_path / "run")
    assert result.steps == 2
    assert restore(tmp_path / "run") == experiment.resolved()
    measured = evaluate_stored(tmp_path / "run", 6, split="validation")
    assert measured == pytest.approx(result.metrics) and set(measured) <= set(MEANINGS)
    told = isinstance(experiment.model, AirConfig) and experiment.model.given
    assert ("count_accuracy" in measured) == (not told) and measured["images"] == 6
    assert ("rmse" in measured) == isinstance(experiment.model, AirConfig)
    predictor = Predictor.from_pretrained(tmp_path / "run")
    image = DATA.open("test", 1)[0].image
    found = predictor.predict(image, k=1)
    assert found.boxes.shape[1:] == (4,) and len(found.boxes) <= 1
    if told:
        assert len(found.boxes) == 1 and len(predictor.predict(image, k=2).boxes) == 2
    else:
        assert len(predictor.predict(image).boxes) <= 200
    if predictor.reconstructs:
        assert predictor.reconstruct(image[None], [found]).shape == (1, 1, 24, 24)


@pytest.mark.parametrize("experiment", [TINY, TOLD, CONNCOMP], ids=["air", "told", "conncomp"])
def test_what_predict_says_and_writes(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who must be told the number says so where it isn't; who counts says nothing of the kind."""
    train(experiment, tmp_path / "run")
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    samples = DATA.open("test", 3)
    for index in range(3):
        pixels = (samples[index].image[0].numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(folder), "--out", str(out), "--coco"]) == 0
    told = isinstance(experiment.model, AirConfig) and experiment.model.given
    said = capsys.readouterr().err
    assert ("needs the number of objects as input, so it finds K = 2 objects in every" in said) == told
    assert bool(said) == told
    counts = [int(row["count"]) for row in csv.DictReader((out / "counts.csv").read_text().splitlines())]
    boxes = [row["file"] for row in csv.DictReader((out / "detections.csv").read_text().splitlines())]
    assert len(counts) == 3 and sum(counts) == len(boxes)
    predictor = Predictor.from_pretrained(tmp_path / "run")
    itself = [len(predictor.predict(folder / f"{index}.png").boxes) for index in range(3)]
    assert counts == itself and (not told or counts == [2] * 3)
    assert {path.name for path in (out / "overlays").iterdir()} == {"0.png", "1.png", "2.png"}
    assert (out / "reconstructions").exists() == isinstance(experiment.model, AirConfig)
    content = json.loads((out / "detections.json").read_text())
    assert [content["images"][one["image_id"] - 1]["file_name"] for one in content["annotations"]] == boxes


def test_components_of_an_image_of_few_pixels() -> None:
    """No number is sought, so there need be no room for one."""
    predictor = Predictor(ConnComp(ConnCompConfig()))
    assert len(predictor.predict(torch.eye(5)[None]).boxes) == 5, "corners don't join"
    assert len(predictor.predict(torch.eye(5)[None], k=3).boxes) == 3
    with pytest.raises(MistError, match="room for 13 objects"):
        predictor.predict(torch.eye(5)[None], k=14)


def test_a_resumed_search_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """ConnComp keeps what earlier images have shown."""
    whole = dataclasses.replace(CONNCOMP, train=dataclasses.replace(CONNCOMP.train, steps=3))
    train(whole, tmp_path / "whole")
    train(CONNCOMP, tmp_path / "parts")
    train(whole, tmp_path / "parts", resume=True)
    first, second = load_model(tmp_path / "whole"), load_model(tmp_path / "parts")
    assert isinstance(first, ConnComp) and isinstance(second, ConnComp) and torch.equal(first.tau, second.tau)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    last = [[json.loads(line)["ap"] for line in log if "ap" in json.loads(line)][-1] for log in logs]
    assert last[0] == last[1]


def test_measures_by_hand() -> None:
    """Components of digits that don't touch: each number once more, by the definition."""
    data = dataclasses.replace(DATA, canvas=40, counts=(0, 1, 2, 3))
    model = ConnComp(ConnCompConfig())
    model.tau.fill_(0.05)
    measured = evaluate(model, data, "test", 40)
    samples = data.open("test", 40)
    found, boxes = [], []
    for index in range(40):
        sample = samples[index]
        assert sample.boxes is not None
        found += model.detect(sample.image[None])
        boxes.append(sample.boxes)
    off = np.array([len(one.boxes) - len(true) for one, true in zip(found, boxes, strict=True)])
    thresholds = [round(0.1 * tenth, 1) for tenth in range(1, 10)]
    each = average_precision(found, boxes, thresholds=thresholds, class_aware=False, points=11, strict=True)
    assert measured["ap"] == pytest.approx(np.mean(each)) and measured["ap50"] == pytest.approx(each[4])
    assert 0 < measured["ap"] < 1
    assert measured["count_error"] == pytest.approx(np.abs(off).mean()) and off.any()
    assert measured["count_accuracy"] == pytest.approx((off == 0).mean())
    assert measured["count_bias"] == pytest.approx(off.mean())
    assert measured["objects"] == sum(map(len, boxes)) and "rmse" not in measured


def test_the_settings_of_every_digit_count() -> None:
    """Against the values as the supplement's authors released them: logits of .05, .1, .2 and .4."""
    shares = {"air": (0.05, 0.1, 0.1, 0.2, 0.4), "dair": (0.05, 0.05, 0.1, 0.05, 0.4)}
    for system, values in shares.items():
        for count, share in zip(DIGITS, values, strict=True):
            experiment, ours = PRESETS[f"{system}-{count}-released"].experiment, PRESETS[f"{system}-{count}"].experiment
            assert isinstance(experiment.model, AirConfig) and isinstance(experiment.step, AirStepConfig)
            assert experiment.step.scale_prior[0] == pytest.approx(np.log(share / (1 - share)), abs=5e-3)
            assert experiment == dataclasses.replace(ours, step=experiment.step) and ours.step != experiment.step
            assert experiment.model.k == count and experiment.model.given and experiment.model.window == 14
            assert (experiment.model.recurrence, experiment.model.hidden) == (
                ("lstm", ()) if system == "air" else ("feedforward", (256,) * 4)
            )
    for name in ("esl16-mnist-easy", "esl16-mnist-hard"):
        experiment = PRESETS[name].experiment
        assert isinstance(experiment.data, ScenesConfig) and experiment.data.keep == tuple(range(10))
        assert isinstance(experiment.model, AirConfig) and experiment.model.k == 9 and experiment.model.given


def test_esl16_learns_from_any_number_and_is_tested_on_nine(tmp_path: Path) -> None:
    data = ScenesConfig("easy", "embedded", canvas=36, object_size=(10, 10), keep=tuple(range(10)))
    model = dataclasses.replace(TOLD.model, canvas=36, k=9)
    result = train(Experiment(model, data, AirStepConfig(), TINY.train, 4), tmp_path / "run")
    assert result.metrics["objects"] == 4 * 9 and "rmse" in result.metrics


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        (dataclasses.replace(TINY, data=dataclasses.replace(DATA, counts=(1, 3))), "3 objects.*model.k=2.*--k 3"),
        (dataclasses.replace(TINY, data=dataclasses.replace(DATA, canvas=30)), "model.canvas=24"),
        (dataclasses.replace(TINY, data=dataclasses.replace(DATA, crop=20)), "no data.crop"),
        (dataclasses.replace(TINY, model=dataclasses.replace(NETWORK, channels=3)), "grey"),
        (dataclasses.replace(TINY, data=GaborConfig(canvas=24, counts=(30,))), "30 objects"),
        (dataclasses.replace(TINY, step=ConnCompStepConfig()), "can't be trained by"),
        (dataclasses.replace(CONNCOMP, step=AirStepConfig()), "can't be trained by"),
    ],
)
def test_parts_that_do_not_fit(experiment: Experiment, said: str, tmp_path: Path) -> None:
    with pytest.raises(MistError, match=said):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_collapse_is_told(tmp_path: Path) -> None:
    """At prior odds of 1e-9 from the start nothing is drawn; one line says so."""
    notes: list[str] = []
    loop = TrainConfig(steps=60, batch_size=8, log_every=5)
    step = AirStepConfig(rate=1e-2, annealing=1e-6)

    def close(iteration: int, model: nn.Module) -> None:
        if iteration == 0:
            last: Tensor = model.get_parameter("head.2.bias")
            with torch.no_grad():
                last[-1] = -20.0

    experiment = Experiment(NETWORK, dataclasses.replace(DATA, counts=(1,)), step, loop, 0)
    train(experiment, tmp_path / "run", on_note=notes.append, observe=close)
    assert len(notes) == 1 and "no object is drawn" in notes[0] and "--step.annealing" in notes[0]
