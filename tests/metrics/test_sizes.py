from __future__ import annotations

import math

import pytest
import torch

from mistnn.metrics import size_scores
from mistnn.records import Detections


def found(*rows: tuple[float, float, float]) -> Detections:
    boxes = torch.tensor([[x, y, side, side] for x, y, side in rows]).reshape(-1, 4)
    return Detections(boxes, torch.ones(len(boxes)))


def test_hand_made_case() -> None:
    """Pairs by the nearest centre within half the object; a far detection, and a second on one object, don't count."""
    truth = [torch.tensor([[10.0, 10.0, 8.0, 8.0], [30.0, 10.0, 12.0, 12.0]]), torch.tensor([[5.0, 5.0, 20.0, 20.0]])]
    detections = [
        found((31.0, 10.0, 10.0), (10.0, 11.0, 9.0), (12.0, 10.0, 50.0)),
        found((6.0, 5.0, 14.0), (90, 90, 1)),
    ]
    scores = size_scores(detections, truth)
    predicted, true = torch.tensor([10.0, 9.0, 14.0]), torch.tensor([12.0, 8.0, 20.0])
    assert scores.error == pytest.approx((2 + 1 + 6) / 3)
    assert scores.constant_error == pytest.approx((0 + 4 + 8) / 3)
    assert scores.correlation == pytest.approx(torch.corrcoef(torch.stack((predicted, true)))[0, 1].item(), rel=1e-5)


def test_too_few_or_constant() -> None:
    truth = [torch.tensor([[10.0, 10.0, 8.0, 8.0], [30.0, 10.0, 12.0, 12.0]])]
    assert all(map(math.isnan, size_scores([found((10.0, 10.0, 8.0))], truth)))
    constant = size_scores([found((10.0, 10.0, 9.0), (30.0, 10.0, 9.0))], truth)
    assert math.isnan(constant.correlation) and constant.error == pytest.approx(2.0)
