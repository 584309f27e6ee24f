"""Prediction with a model that reconstructs images."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.inference import Predictor, predict_folder
from mistnn.models.mist import Mist
from tests.experiments.tiny import TINY
from tests.inference.fakes import FakeDetector

PARTS = dataclasses.replace(TINY.model, class_names=(), scales=(0.8, 1.2))


def _predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(Mist(PARTS))


def _noise(path: Path, size: tuple[int, int], colour: bool = False) -> Path:
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_the_folder_holds_what_the_model_makes_of_an_image(tmp_path: Path) -> None:
    predictor = _predictor()
    path = _noise(tmp_path / "a.png", (40, 30))
    predict_folder(predictor, [path], tmp_path / "out", k=3)
    with (tmp_path / "out" / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["label"] == "" for row in rows)
    sides = [float(row["w"]) for row in rows]
    assert [float(row["h"]) for row in rows] == sides and all(0.8 * 12 <= side <= 1.2 * 12 for side in sides)

    with Image.open(path) as opened:
        image = torch.from_numpy(np.asarray(opened).copy()).float()[None, None] / 255
    model = predictor.model
    assert isinstance(model, Mist)
    with torch.no_grad():
        rebuilt = model(image, 3).reconstruction
    assert rebuilt is not None
    for folder, expected in (("reconstructions", rebuilt), ("residuals", 0.5 + (image - rebuilt) / 2)):
        with Image.open(tmp_path / "out" / folder / "a.png") as written:
            assert written.size == (40, 30) and written.mode == "L"
            values = torch.from_numpy(np.asarray(written).copy()).float() / 255
        torch.testing.assert_close(values, expected[0, 0].clamp(0, 1), atol=1.01 / 255, rtol=0)


def test_names_and_what_stays_away(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    _noise(tmp_path / "in" / "deep" / "b.jpg", (30, 30))
    predict_folder(_predictor(), [tmp_path / "in"], tmp_path / "out")
    assert (tmp_path / "out" / "reconstructions" / "deep" / "b.jpg.png").is_file()
    predict_folder(_predictor(), [tmp_path / "in"], tmp_path / "plain", overlays=False)
    predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "fake")
    for name in ("plain", "fake"):
        assert not (tmp_path / name / "reconstructions").exists() and not (tmp_path / name / "residuals").exists()


def test_its_own_pictures_are_no_input_and_no_two_share_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "a.jpg.png"):
        _noise(folder / name, (24, 24))
    for force in (False, True):
        summary = predict_folder(_predictor(), [folder], folder, force=force)
        assert summary.images == 2
    for pictures in ("reconstructions", "residuals", "overlays"):
        assert len(list((folder / pictures).iterdir())) == 2


def test_force_removes_the_pictures_of_another_model(tmp_path: Path) -> None:
    path = _noise(tmp_path / "a.png", (30, 30))
    predict_folder(_predictor(), [path], tmp_path / "out")
    predict_folder(Predictor(FakeDetector()), [path], tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "reconstructions").exists() and not (tmp_path / "out" / "residuals").exists()


def test_a_model_without_decoder_says_so() -> None:
    predictor = Predictor(FakeDetector())
    assert not predictor.reconstructs
    with pytest.raises(ValueError, match="no decoder"):
        predictor.reconstruct(torch.rand(1, 1, 20, 20), [])
    assert not Predictor(Mist(dataclasses.replace(TINY.model, decoder=0))).reconstructs


def test_a_large_image_with_scales_goes_in_tiles_and_gives_the_same() -> None:
    """Each scale is resized whole and tiled on its own, so tiling changes nothing."""
    whole = _predictor()
    tiled = Predictor(whole.model, max_pixels=64 * 64)
    image = torch.rand(1, 150, 170, generator=torch.Generator().manual_seed(1))
    first, second = whole.predict(image, 5), tiled.predict(image, 5)
    torch.testing.assert_close(first.boxes, second.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(first.scores, second.scores, atol=1e-4, rtol=1e-3)
