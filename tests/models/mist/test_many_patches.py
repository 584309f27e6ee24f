from __future__ import annotations

import dataclasses

import pytest
import torch

from mistnn.models.mist import Mist, network
from tests.experiments.tiny import TINY


def test_patches_are_classified_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """K may be thousands: all patches at once would take tens of GiB. The result is the same."""
    torch.manual_seed(0)
    model = Mist(dataclasses.replace(TINY.model, k=40)).eval()
    images = torch.rand(2, 1, 32, 32)
    whole = model.detect(images)
    read: list[int] = []
    classify = model.task_network.classify

    def counted(patches: torch.Tensor) -> torch.Tensor:
        read.append(patches.shape[0] * patches.shape[1])
        return classify(patches)

    monkeypatch.setattr(network, "PATCHES_AT_ONCE", 15)
    monkeypatch.setattr(model.task_network, "classify", counted)
    parts = model.detect(images)
    assert max(read) <= 15 and sum(read) == 80
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels) and torch.equal(one.boxes, other.boxes)
