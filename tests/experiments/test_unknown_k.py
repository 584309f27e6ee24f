"""K that is not told: the threshold learns from counts alone, and a perfect detector is perfect without K."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mistnn.experiments import evaluate_unknown_k
from mistnn.models.rivals import Grid, GridConfig
from mistnn.records import Detections, Explanation
from tests.experiments.tiny import TINY

VARYING = dataclasses.replace(TINY.data, canvas=48, counts=(1, 2, 3))


class Oracle(Grid):
    """Knows every scene: true boxes at scores of .6 and more, then boxes of the wrong place at .4 and less."""

    class_names = tuple(str(digit) for digit in range(10))

    def __init__(self) -> None:
        super().__init__(GridConfig(cells=1, patch_size=16, encoder=TINY.model.encoder, decoder=4))
        self.asked: list[int] = []
        self.known = {}
        for split in ("train", "test"):
            for sample in (VARYING.open(split, 30)[index] for index in range(30)):
                self.known[sample.image.numpy().tobytes()] = sample

    def explain(self, images: Tensor, k: int) -> Explanation:
        self.asked.append(k)
        found = []
        for image in images:
            sample = self.known[image.numpy().tobytes()]
            assert sample.boxes is not None and sample.labels is not None
            extra = torch.tensor([[1.0, 1.0, 1.0, 1.0]]).expand(6, 4)
            scores = torch.cat((torch.linspace(0.9, 0.6, len(sample.boxes)), torch.linspace(0.4, 0.1, 6)))
            labels = torch.cat((sample.labels, torch.zeros(6, dtype=torch.int64)))
            found.append(Detections(torch.cat((sample.boxes, extra))[:k], scores[:k], labels[:k]))
        return Explanation(found, None)


def test_a_detector_that_separates_needs_no_k() -> None:
    oracle = Oracle()
    result = evaluate_unknown_k(oracle, VARYING, "test", 30)
    assert 0.4 < result["threshold"] < 0.6
    assert result["count_error_free_k"] == 0 and result["ap50_free_k"] == 1
    assert 0.3 < result["ap50_fixed_k"] < 0.8, "one of up to three objects"
    assert set(oracle.asked) == {1, 6}, "the K of the training, and twice the most objects"


def test_tiny_model() -> None:
    from mistnn.experiments import build

    model: Any = build(TINY).model
    before = model.config
    result = evaluate_unknown_k(model, TINY.data, "test", 5)
    names = {"threshold", "ap50_fixed_k", "ap50_free_k", "count_error_free_k", "strength_free_k", "window_free_k"}
    assert result.keys() == names and model.config is before
    assert all(0 <= result[name] <= 4 for name in names - {"strength_free_k", "window_free_k"})


class Sharp(Oracle):
    """Separates objects from empty places at strength 1 alone; all scores are alike at others."""

    def explain(self, images: Tensor, k: int) -> Explanation:
        found = super().explain(images, k).detections
        if self.config.decoder == 1:
            return Explanation(found, None)
        return Explanation([one._replace(scores=torch.full_like(one.scores, 0.5)) for one in found], None)


def test_the_reading_is_the_one_that_counts_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_reading(config: GridConfig, strength: float, window: int | None) -> GridConfig:
        assert window is None
        return dataclasses.replace(config, decoder=int(strength))  # a grid has no strength: this field stands for it

    monkeypatch.setattr(GridConfig, "reading_strengths", (5.0, 1.0, 2.0))
    monkeypatch.setattr(GridConfig, "with_reading", with_reading)
    sharp = Sharp()
    result = evaluate_unknown_k(sharp, VARYING, "test", 30)
    assert result["strength_free_k"] == 1 and "window_free_k" not in result
    assert result["count_error_free_k"] == 0 and result["ap50_free_k"] == 1 and sharp.config.decoder == 4
