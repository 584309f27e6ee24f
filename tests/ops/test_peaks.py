"""Selection of peaks under given numbers, and the Gaussians at them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.losses import peak_loss
from mistnn.ops.peaks import count_bonus, gaussian_blur, gaussian_peaks, select_peaks


def slow_peaks(response: torch.Tensor, quotas: list[int], window: int, apart: float) -> list[tuple[int, int, int]]:
    """The same by loops, for maps without equal values."""
    classes, rows, columns = response.shape
    half, peaks = window // 2, []
    for label in range(classes):
        for row in range(rows):
            for column in range(columns):
                near = response[label, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
                if response[label, row, column] == near.max():
                    peaks.append((-float(response[label, row, column]), label, row, column))
    # Each class offers only its best few.
    offered, taken = {label: 2 * quota + 3 if classes > 1 else quota for label, quota in enumerate(quotas)}, []
    left = list(quotas)
    for _, label, row, column in sorted(peaks):
        if quotas[label] == 0 or offered[label] == 0:
            continue
        offered[label] -= 1
        far = all(math.dist((row, column), one[1:]) >= apart for one in taken) or classes == 1
        if left[label] and far:
            taken.append((label, row, column))
            left[label] -= 1
    return taken


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.sampled_from([3, 5]))
def test_select_peaks_reference(classes: int, rows: int, columns: int, seed: int, window: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    response = torch.rand(classes, rows, columns, generator=generator)
    quotas = torch.randint(0, 4, (classes,), generator=generator).tolist()
    places, scores = select_peaks(response, quotas, window, 2.5)
    assert [tuple(one) for one in places.tolist()] == slow_peaks(response, quotas, window, 2.5)
    assert torch.equal(scores, response[places[:, 0], places[:, 1], places[:, 2]])


def test_a_number_for_all_classes_and_padding() -> None:
    response = torch.zeros(2, 8, 8)
    response[0, 1, 1], response[1, 5, 5], response[1, 1, 6] = 0.9, 0.8, 0.7
    assert select_peaks(response, 2, 3, 2.0)[0].tolist() == [[0, 1, 1], [1, 5, 5]]
    inside = torch.ones(8, 8, dtype=torch.bool)
    inside[1, 1] = False
    places, _ = select_peaks(response, 2, 3, 2.0, inside)
    assert places.tolist() == [[1, 5, 5], [1, 1, 6]]
    assert len(select_peaks(response, [0, 0], 3, 2.0)[0]) == 0


def test_a_plateau_is_one_peak() -> None:
    """Whatever its shape; and equal maxima that don't touch stay two peaks."""
    response = torch.zeros(1, 12, 12) - torch.rand(1, 12, 12) / 10
    shapes = {
        (1, 1): [(1, 1), (1, 2), (2, 1), (2, 2)],
        (1, 8): [(1, 8), (2, 8), (3, 8), (3, 9), (3, 10), (2, 10), (1, 10)],  # a "U", wider than the window
        (7, 3): [(7, 3), (8, 2), (9, 3)],  # cells that touch by a corner
        (9, 8): [(9, 8)],
        (9, 10): [(9, 10)],
    }
    for first, cells in shapes.items():
        for row, column in cells:
            response[0, row, column] = 1.0 if first[0] < 9 else 0.5
    places, scores = select_peaks(response, [5], 3, 2.0)
    assert [tuple(one[1:]) for one in places.tolist()] == list(shapes)
    assert scores.tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]
    inside = torch.ones(12, 12, dtype=torch.bool)
    inside[1, :3] = False
    assert select_peaks(response, [5], 3, 2.0, inside)[0].tolist()[:3] == [[0, 1, 8], [0, 2, 1], [0, 7, 3]]
    assert len(select_peaks(torch.zeros(2, 6, 7), 40, 3, 2.0)[0]) == 1  # the same everywhere


def test_objects_of_two_classes_are_apart() -> None:
    response = torch.zeros(2, 9, 9)
    response[0, 4, 4], response[1, 4, 5], response[1, 0, 0] = 0.9, 0.8, 0.1
    assert select_peaks(response, [1, 1], 3, 2.0)[0].tolist() == [[0, 4, 4], [1, 0, 0]]
    assert select_peaks(response, [1, 1], 3, 1.0)[0].tolist() == [[0, 4, 4], [1, 4, 5]]


def test_count_bonus_is_the_error_that_a_peak_removes() -> None:
    expected = torch.tensor([0.0, 1.25, 3.0])
    found = count_bonus(expected, 5)
    for label, number in enumerate(expected.tolist()):
        for rank in range(5):
            removed = abs(rank - number) - abs(rank + 1 - number)
            assert float(found[label, rank]) == pytest.approx(removed, abs=1e-6)


def test_a_bonus_decides_between_classes() -> None:
    """Three peaks in all: the second class is expected twice, so its second peak goes before that of the first."""
    response = torch.zeros(2, 5, 13)
    response[0, 2, 0], response[0, 2, 4], response[1, 2, 8], response[1, 2, 12] = 0.9, 0.6, 0.8, 0.5
    plain, scores = select_peaks(response, 3, 3, 1.0)
    assert plain[:, 0].tolist() == [0, 1, 0]
    bonus = 0.1 * count_bonus(torch.tensor([1.0, 2.0]), 2)
    preferred, scores = select_peaks(response, 3, 3, 1.0, bonus=bonus)
    assert preferred[:, 0].tolist() == [0, 1, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5]), "responses, without bonus"
    assert select_peaks(response, 3, 3, 1.0, bonus=0.01 * count_bonus(torch.tensor([1.0, 2.0]), 2))[0].equal(plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000), st.floats(0.4, 2.5))
def test_gaussian_peaks_reference(rows: int, columns: int, seed: int, spread: float) -> None:
    points = torch.rand(1, 2, rows, columns, generator=torch.Generator().manual_seed(seed)) > 0.8
    found, reach = gaussian_peaks(points, spread), max(1, math.ceil(3 * spread))
    for label in range(2):
        for row in range(rows):
            for column in range(columns):
                near = [
                    math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * spread**2))
                    for y, x in points[0, label].nonzero().tolist()
                    if max(abs(row - y), abs(column - x)) <= reach
                ]
                assert float(found[0, label, row, column]) == pytest.approx(max(near, default=0.0), abs=1e-6)


def test_gaussian_blur_reference() -> None:
    maps = torch.zeros(2, 3, 21, 17)
    maps[1, 2, 10, 8] = 2.0
    blurred = gaussian_blur(maps, 1.5)
    assert float(blurred.sum()) == pytest.approx(2.0) and float(blurred[1, 2].sum()) == pytest.approx(2.0)
    assert float(blurred[1, 2, 12, 9] / blurred[1, 2, 10, 8]) == pytest.approx(math.exp(-(2**2 + 1) / (2 * 1.5**2)))


def test_peak_loss_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64)
    points = torch.rand(2, 2, 4, 5, generator=generator) > 0.8
    targets = gaussian_peaks(points, 1.0).double()
    inside = torch.ones(2, 4, 5, dtype=torch.bool)
    inside[1, :, 3:] = False
    expected = []
    for image in range(2):
        total, peaks = 0.0, 0
        for label in range(2):
            for row in range(4):
                for column in range(5):
                    p, t = float(logits[image, label, row, column].sigmoid()), float(targets[image, label, row, column])
                    peaks += t == 1
                    if inside[image, row, column]:
                        total -= (1 - p) ** 2 * math.log(p) if t == 1 else (1 - t) ** 4 * p**2 * math.log(1 - p)
        expected.append(total / max(1, peaks))
    torch.testing.assert_close(peak_loss(logits, targets, inside), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: peak_loss(x, targets, inside), logits.requires_grad_())


@pytest.mark.plain
def test_peak_loss_shapes() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        peak_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4), torch.ones(1, 3, 3, dtype=torch.bool))
