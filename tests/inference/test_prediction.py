"""What ``Predictor.predict`` returns, and the ways to use it."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mistnn.inference import Prediction, Predictor
from tests.inference.fakes import CountingDetector, FakeDetector

IMAGE = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0))
FOUND = Prediction(
    torch.tensor([[10.0, 8, 4, 6], [3.0, 2, 2, 2], [20.0, 9, 4, 4]]),
    torch.tensor([0.9, 0.5, 0.25]),
    torch.tensor([1, 1, 2]),
    ("a", "b", "c"),
    IMAGE,
)
WITHOUT_CLASSES = Prediction(FOUND.boxes, FOUND.scores, None, (), IMAGE)
NOTHING = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), ("a", "b"), IMAGE)


def test_names_and_counts() -> None:
    assert FOUND.names == ["b", "b", "c"] and FOUND.counts == {"a": 0, "b": 2, "c": 1} and len(FOUND) == 3
    assert WITHOUT_CLASSES.names == [""] * 3 and WITHOUT_CLASSES.counts == {"object": 3}
    assert NOTHING.names == [] and NOTHING.counts == {"a": 0, "b": 0} and len(NOTHING) == 0


def test_detections() -> None:
    found = FOUND.detections
    assert found.boxes is FOUND.boxes and found.scores is FOUND.scores and found.labels is FOUND.labels
    assert WITHOUT_CLASSES.detections.labels is None


def test_of_a_predictor() -> None:
    values = np.zeros((20, 30), dtype=np.uint8)
    values[5, 17] = 255
    found = Predictor(FakeDetector()).predict(values, k=1)
    assert isinstance(found, Prediction) and found.counts == {"even": 0, "odd": 1}
    assert found.class_names == ("even", "odd")
    assert found.image.shape == (1, 20, 30) and found.image[0, 5, 17] == 1


def test_a_prediction_says_that_there_may_be_more() -> None:
    predictor = Predictor(CountingDetector(k=3))
    even, spot = np.full((20, 30), 90, dtype=np.uint8), np.zeros((20, 30), dtype=np.uint8)
    spot[5, 17] = 255
    assert predictor.predict(even).at_limit and not predictor.predict(spot).at_limit
    assert not predictor.predict(even, k=3).at_limit, "as many as were asked for"


def test_the_official_coco_reader_understands_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    path = tmp_path / "found.json"
    path.write_text(json.dumps(FOUND.to_coco("scene.png")))
    read = COCO(path)
    assert read.loadImgs(1) == [{"id": 1, "file_name": "scene.png", "width": 30, "height": 20}]
    first, *_ = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [8, 5, 4, 6] and first["area"] == 24 and first["score"] == pytest.approx(0.9)
    assert [read.loadCats(one["category_id"])[0]["name"] for one in read.loadAnns(read.getAnnIds())] == ["b", "b", "c"]


def test_coco_without_classes_or_objects() -> None:
    content = WITHOUT_CLASSES.to_coco()
    assert content["categories"] == [{"id": 1, "name": "object"}]
    assert {one["category_id"] for one in content["annotations"]} == {1}
    assert content["images"][0]["file_name"] == "image"
    assert NOTHING.to_coco()["annotations"] == []


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_dataframe() -> None:
    table = FOUND.to_dataframe()
    assert list(table.columns) == ["x", "y", "w", "h", "label", "score"]
    assert table.loc[0].tolist() == [10, 8, 4, 6, "b", pytest.approx(0.9)]
    assert len(table) == 3 and len(NOTHING.to_dataframe()) == 0
    assert WITHOUT_CLASSES.to_dataframe()["label"].tolist() == [""] * 3


def test_dataframe_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        FOUND.to_dataframe()


@pytest.mark.parametrize("found", [FOUND, WITHOUT_CLASSES, NOTHING], ids=["classes", "without classes", "nothing"])
def test_plot(found: Prediction) -> None:
    axes = found.plot().axes[0]
    assert axes.get_images()[0].get_array().shape[:2] == (20, 30)
    boxes = [patch for patch in axes.patches if patch.get_width() > 0]
    assert len(boxes) >= len(found)
