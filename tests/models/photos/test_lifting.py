"""Lines 3 and 4 of Algorithm 1 on photographs."""

from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.photos import PhotoConfig, PhotoStepConfig
from mistnn.models.photos.lifting import Anchors, anchors_of, lift_keypoints, mark_keypoints, task_loss
from mistnn.nn.pyramid import PyramidConfig


def hill(row: int, column: int, size: int = 12) -> torch.Tensor:
    """Logits (1, 2, size, size): an object at a cell, background around it."""
    axis = torch.arange(size) + 0.5
    squared = (axis[:, None] - row - 0.5) ** 2 + (axis - column - 0.5) ** 2
    return torch.stack((4 - squared, torch.zeros(size, size)))[None]


def test_a_keypoint_climbs_to_the_object_of_its_class() -> None:
    anchors = Anchors(torch.tensor([[[4.5, 5.5], [10.5, 1.5]]]), torch.tensor([[0, -1]]), torch.ones(1, 2).bool())
    counts, sizes = torch.tensor([[1]]), torch.tensor([[12, 12]])
    config = PhotoStepConfig(lift_steps=4, lift_reach=0.5)
    before = task_loss(hill(5, 6), anchors.points, anchors.real, counts)
    points = lift_keypoints(config, hill(5, 6), anchors, counts, sizes)
    assert float(task_loss(hill(5, 6), points, anchors.real, counts)) < float(before) / 2
    assert (points[0, 0] - torch.tensor([6.5, 5.5])).norm() < 0.8
    marks = mark_keypoints(points, anchors.labels, torch.zeros(1, 1, 12, 12))
    assert marks.sum() == 1  # spare keypoints are background, and no target of the heat map
    assert torch.equal(lift_keypoints(PhotoStepConfig(), hill(5, 6), anchors, counts, sizes), anchors.points)


def test_keypoints_stay_in_their_image() -> None:
    anchors = Anchors(torch.tensor([[[3.5, 2.5]]]), torch.tensor([[0]]), torch.ones(1, 1).bool())
    config = PhotoStepConfig(lift_steps=20, lift_rate=1e4)
    points = lift_keypoints(config, hill(3, 6), anchors, torch.tensor([[1]]), torch.tensor([[4, 5]]))
    assert float(points[0, 0, 0]) == 5.0 and float(points[0, 0, 1]) <= 4.0  # 4 rows and 5 columns


def test_anchors_are_filled_with_other_maxima() -> None:
    response = torch.zeros(2, 2, 9, 9)
    for row, column, value in ((1, 1, 0.9), (1, 7, 0.8), (7, 1, 0.7), (7, 7, 0.6)):
        response[0, 0, row, column] = value
    inside = torch.ones(2, 9, 9).bool()
    selected = [torch.tensor([[0, 1, 7]]), torch.zeros(0, 3, dtype=torch.int64)]
    found = anchors_of(selected, response, inside, 3, window=3, apart=1.0)
    assert found.points[0].tolist() == [[7.5, 1.5], [1.5, 1.5], [1.5, 7.5]]
    assert found.labels.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert found.real[0].all()


def test_missing_keypoints_are_background() -> None:
    points, real = torch.tensor([[[6.5, 5.5], [0.0, 0.0]]]), torch.tensor([[True, False]])
    loss = task_loss(hill(5, 6), points, real, torch.tensor([[1]]))
    assert float(loss) == pytest.approx(0, abs=1e-3)


def test_lifting_needs_a_task_network() -> None:
    with pytest.raises(MistError, match="--model.task true"):
        PhotoStepConfig(lift_steps=1).check_model(PhotoConfig(pyramid=PyramidConfig(weights=None)))
    PhotoStepConfig(lift_steps=1).check_model(PhotoConfig(task=True, pyramid=PyramidConfig(weights=None)))
