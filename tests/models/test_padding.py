"""Training images of different sizes are padded to one: keypoints neither start in the padding nor move into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mistnn.models.mist import LiftedStep, Mist, NaturalStep, NaturalStepConfig
from mistnn.models.mist.natural import NaturalMaps
from mistnn.records import Batch
from tests.experiments.tiny import TINY
from tests.models.natural import EDGE, MIST, XIE20, build, photographs

SIZES = torch.tensor([[EDGE, 80], [40, 70], [EDGE, 33]])


def outwards(rows: int, columns: int) -> Tensor:
    """A map that rises to the right and downwards, with ripples that make peaks."""
    x, y = torch.arange(columns), torch.arange(rows)
    return (x + 2 * y[:, None]) / 100 + 0.05 * torch.cos(torch.pi * x) * torch.cos(torch.pi * y[:, None])


def keeping(train: Callable[..., Any], kept: list[Tensor]) -> Callable[..., Any]:
    """Line 5 of the algorithm, which also records its keypoints."""

    def train_heatmap(maps: Any, keypoints: Tensor, *more: Any) -> Any:
        kept.append(keypoints)
        return train(maps, keypoints, *more)

    return train_heatmap


@pytest.mark.parametrize("order", ["keypoints-first", "task-first"])
def test_photographs_in_every_step(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dataclasses.replace(MIST, k=4))
    step = NaturalStep(model, NaturalStepConfig(order=order, cell_step=1e4, cell_reach=2.0, confidence=0.0))
    seen: list[Tensor] = []
    maps = model.maps
    monkeypatch.setattr(step, "train_heatmap", keeping(step.train_heatmap, seen))
    monkeypatch.setattr(
        model, "maps", lambda features: maps(features)._replace(response=0 * maps(features).response + outwards(4, 5))
    )
    batch = photographs()
    for sizes in (None, SIZES):
        step(batch._replace(sizes=sizes), 0)
    free, kept = (model.backbone.to_pixels(points) for points in seen)
    assert (free[1:] > SIZES[1:].flip(1)[:, None]).any(), "otherwise the test could not fail"
    assert (kept <= SIZES.flip(1)[:, None] + 1e-3).all()


def test_offsets_lead_to_the_border_at_most() -> None:
    model = build(MIST)
    step = NaturalStep(model, NaturalStepConfig())
    maps = NaturalMaps(outwards(4, 5).expand(3, -1, -1), torch.full((3, 2, 4, 5), 0.5))
    points = model.backbone.to_pixels(step.anchors(photographs()._replace(sizes=SIZES), maps))
    assert (points <= SIZES.flip(1)[:, None] + 1e-3).all()
    assert points[2, :, 0].max() == pytest.approx(33.0), "the cell extends beyond the border, its keypoint doesn't"


def test_digits_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY.model, k=3)
    step = LiftedStep(Mist(config), dataclasses.replace(TINY.step, keypoint_step=1e4, keypoint_reach=9.0))
    sizes = torch.tensor([[32, 32], [20, 32], [32, 17]])
    batch = Batch(torch.rand(3, 1, 32, 32), torch.ones(3, len(config.class_names), dtype=torch.int64))
    seen: list[Tensor] = []
    heatmaps = step.model.heatmaps
    monkeypatch.setattr(step, "train_heatmap", keeping(step.train_heatmap, seen))
    monkeypatch.setattr(step.model, "heatmaps", lambda images: 0 * heatmaps(images) + outwards(32, 32))
    for some in (None, sizes):
        step(batch._replace(sizes=some), 0)
    free, kept = (points[..., :2] for points in seen)
    assert (free[1:] > sizes[1:].flip(1)[:, None]).any(), "otherwise the test could not fail"
    assert (kept <= sizes.flip(1)[:, None]).all() and (kept >= 0).all()


def test_xie20_masks_the_cells_of_the_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(XIE20)
    batch = photographs()
    features = model.backbone(batch.images)
    whole = model.losses(batch._replace(sizes=torch.tensor([[EDGE, 80]]).expand(3, 2)))
    for name, value in model.losses(batch).items():
        assert torch.allclose(whole[name], value, atol=1e-5)
    peaks = []
    for change in (0.0, 5.0):
        changed = features.clone()
        for index, (rows, columns) in enumerate(((4, 5), (3, 5), (4, 3))):  # middles at 0.5, 16.5, 32.5, 48.5, 64.5
            changed[index, :, rows:] += change
            changed[index, :, :, columns:] += change
        monkeypatch.setattr(model.backbone, "forward", lambda images, changed=changed: changed)
        peaks.append(model.losses(batch._replace(sizes=SIZES)))
    for name, value in peaks[0].items():
        assert torch.equal(value, peaks[1][name])
    assert not torch.allclose(model.losses(batch)["mask_peak"], peaks[0]["mask_peak"])
