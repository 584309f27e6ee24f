"""What to expect of counting, before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mistnn.data.folder.content import FolderImage
from mistnn.experiments.photo_estimate import CountEstimate, count_estimate, left_out_errors
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig


def test_errors_equal_those_of_leaving_each_image_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference fits without each image in turn; inputs keep their normalisation over all images."""
    monkeypatch.setattr("mistnn.experiments.photo_estimate.PENALTIES", (0.3,))
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 5, generator=random, dtype=torch.float64)
    outputs = torch.randn(12, generator=random, dtype=torch.float64)
    normal = (inputs - inputs.mean(0)) / inputs.std(0)
    expected = []
    for left in range(12):
        kept = [index for index in range(12) if index != left]
        # minimises the squared error plus penalty x channels x |weights|^2, with a free intercept
        columns = torch.cat((normal[kept], torch.ones(11, 1, dtype=torch.float64)), 1)
        ridge = torch.diag(torch.tensor([0.3 * 5] * 5 + [0.0], dtype=torch.float64))
        weights = torch.linalg.solve(columns.T @ columns + ridge, columns.T @ outputs[kept])
        expected.append(outputs[left] - normal[left] @ weights[:5] - weights[5])
    torch.testing.assert_close(left_out_errors(inputs, outputs), torch.stack(expected))


def test_what_decides_the_count_is_learned_and_noise_is_not() -> None:
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(60, 20, generator=random, dtype=torch.float64)
    outputs = 3 * inputs[:, 0] + 0.1 * torch.randn(60, generator=random, dtype=torch.float64)
    assert float(left_out_errors(inputs, outputs).abs().mean()) < 0.5
    noise = torch.randn(60, generator=random, dtype=torch.float64)
    assert float(left_out_errors(inputs, noise).abs().mean()) > 0.6


def test_reasons() -> None:
    assert "check the counts" not in CountEstimate(0.4, 1.0, 30).reason
    assert "0.95 objects" in CountEstimate(0.95, 1.0, 30).reason
    assert "check the counts" in CountEstimate(0.95, 1.0, 30).reason


def test_no_estimate_without_differences() -> None:
    images = [FolderImage(f"{i}", Path(f"{i}"), 64, 64, (3,), (True,), None, None, "train") for i in range(9)]
    assert count_estimate(images, PreparationConfig(), PyramidConfig()) is None
    assert count_estimate(images[:3], PreparationConfig(), PyramidConfig()) is None
