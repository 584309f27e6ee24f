"""Intervals of counts by conformal calibration."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mistnn.inference import Prediction
from mistnn.inference.coco import NOTHING_YET
from mistnn.inference.counting import interval, interval_factor
from mistnn.inference.tables import open_tables
from mistnn.records import Detections


def test_the_interval_holds_the_promised_share() -> None:
    """Over many draws of calibration images, new images lie inside with at least 80 %, and not with much more."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(400):
        true = random.poisson(random.choice([3, 30, 200], 41))
        found = np.maximum(0, true + random.normal(0, 0.7 * np.sqrt(true + 1))).round().astype(int)
        factor = interval_factor(found[:40].tolist(), true[:40].tolist())
        assert factor is not None
        low, high = interval(int(found[40]), factor)
        held.append(low <= true[40] <= high)
    assert 0.76 < np.mean(held) < 0.92


@pytest.mark.plain
def test_by_hand() -> None:
    # Errors 0, 1, 1, 2, each over the square root of the count + 1; the rank is the fourth of four.
    factor = interval_factor([3, 3, 8, 8], [3, 4, 7, 10])
    assert factor == pytest.approx(2 / 3)
    assert interval(8, 2 / 3) == (6, 10) and interval(0, 2 / 3) == (0, 0)
    assert interval(3, 1 / 2) == (2, 4), "the error that set the factor is inside"
    assert interval_factor([3, 3, 8], [3, 4, 7]) is None


def test_a_prediction_tells_its_intervals() -> None:
    boxes, labels = torch.zeros(3, 4), torch.tensor([0, 1, 1])
    one = Prediction(boxes, torch.ones(3), labels, ("red", "white"), torch.zeros(3, 8, 8), intervals=(0.5, 1.0))
    assert one.count_intervals == {"red": (1, 1), "white": (1, 3)} and math.isclose(sum(one.counts.values()), 3)
    assert Prediction(boxes, torch.ones(3), labels, ("red", "white"), torch.zeros(3, 8, 8)).count_intervals == {}
    at_limit = dataclasses.replace(one, at_limit=True)
    assert at_limit.count_intervals == {}, "there may be any number more"


def test_a_table_has_no_interval_at_the_limit(tmp_path: Path) -> None:
    found = Detections(torch.zeros(2, 4), torch.ones(2), torch.zeros(2, dtype=torch.long))
    with open_tables(tmp_path, ["red"], False, {}, NOTHING_YET) as tables:
        for name, at_limit in (("a.png", False), ("b.png", True)):
            tables.add(name, (8, 8), found, ["red", "red"], at_limit, [0.5])
    lines = (tmp_path / "counts.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["a.png,red,2,0,2,2,", "b.png,red,2,1,,,"]
