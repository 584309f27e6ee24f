"""The systems that MIST is compared with predict folders too: without tiles, limited by their number of positions."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from mistnn.errors import MistError
from mistnn.inference import Predictor, predict_folder
from mistnn.models.rivals import (
    Channelwise,
    ChannelwiseConfig,
    Grid,
    GridConfig,
    Xie20,
    Xie20Config,
    Zha18,
    Zha18Config,
)
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig

SMALL = EncoderConfig(network="small", width=8, code=16)
NARROW = HeatmapConfig(channels=4, blocks=1)
MODELS = {
    "grid": lambda: Grid(GridConfig(cells=2, patch_size=8, encoder=SMALL, decoder=4)),
    "channelwise": lambda: Channelwise(
        ChannelwiseConfig(("a", "b"), 4, 1, 8.0, 8, HeatmapConfig(channels=4, blocks=1, start="random"), SMALL)
    ),
    "xie20": lambda: Xie20(Xie20Config(("a", "b"), 4, 1, 4, 0.1, 8.0, 8, NARROW, SMALL)),
    "zha18": lambda: Zha18(Zha18Config(4, 1, (4, 8), (4, 8), (4, 8), features=4)),
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, size in enumerate([(16, 16), (24, 16), (6, 5)]):
        Image.new("L", size, 40 * index).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_predicts_a_folder(name: str, images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    predictor = Predictor(MODELS[name]())
    summary = predict_folder(predictor, [images], tmp_path / "out")
    one_place = name == "xie20"  # 6 x 5 pixels have a single place of stride 4
    assert summary.images == (2 if one_place else 3) and summary.detections == 4 * summary.images
    assert [one.file for one in summary.skipped] == (["2.png"] if one_place else [])
    with (tmp_path / "out" / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= set(predictor.model.class_names or ("",))
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    redrawn = tmp_path / "out" / "reconstructions" / "1.png"
    assert redrawn.exists() == predictor.reconstructs
    if redrawn.exists():
        with Image.open(redrawn) as picture:
            assert picture.size == (24, 16)


def test_more_objects_than_places(images: Path, tmp_path: Path) -> None:
    with pytest.raises(MistError, match="--k 5 is too large, since this model finds at most 4 objects"):
        predict_folder(Predictor(MODELS["grid"]()), [images], tmp_path / "out", k=5)
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        MistError, match="room for 4 objects in this model, fewer than the 5 to find: give k = 4 or less"
    ):
        Predictor(MODELS["zha18"]()).predict(torch.zeros(1, 16, 16), k=5)


def test_too_large_for_one_piece(images: Path, tmp_path: Path) -> None:
    summary = predict_folder(Predictor(MODELS["zha18"](), max_pixels=300), [images], tmp_path / "out")
    assert summary.images == 2
    assert summary.skipped[0].reason == "has 384 pixels, and this model takes at most 300: crop or shrink it"


def test_refusals_name_the_fix() -> None:
    xie20, grid = Predictor(MODELS["xie20"]()), Predictor(MODELS["grid"]())
    assert xie20.refusal(3, 200, 2) == "has 200 x 3 pixels, which is smaller than one position of this model"
    assert grid.refusal(1, 1, 4) is None, "cells may be smaller than a pixel"
    assert "give k = 4 or less" in str(grid.refusal(1, 1, 10))
    assert "give k = 1 or more" in str(grid.refusal(5, 5, 0))
