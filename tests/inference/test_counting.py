from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mistnn.inference.counting import above, choose_threshold
from mistnn.records import Detections

SCORES = st.lists(st.floats(0, 1, width=32, allow_subnormal=False), max_size=8)


def test_separates_objects_from_ground() -> None:
    scores = [torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([0.7, 0.2]), torch.tensor([0.25])]
    assert choose_threshold(scores, [2, 1, 0]) == pytest.approx(0.5)
    assert choose_threshold(scores, [4, 2, 1]) < 0.1, "all of them"
    assert choose_threshold(scores, [0, 0, 0]) > 0.9, "none of them"


@given(st.lists(st.tuples(SCORES, st.integers(0, 9)), min_size=1, max_size=6))
def test_no_other_threshold_counts_better(images: list[tuple[list[float], int]]) -> None:
    scores = [torch.tensor(one) for one, _ in images]
    counts = [count for _, count in images]
    if not sum(map(len, scores)):
        with pytest.raises(ValueError, match="needs detections"):
            choose_threshold(scores, counts)
        return

    def error(threshold: float) -> int:
        kept = [int((one.double() >= threshold).sum()) for one in scores]
        return sum(abs(number - count) for number, count in zip(kept, counts, strict=True))

    chosen = choose_threshold(scores, counts)
    tried = torch.cat(scores).double()
    assert error(chosen) <= min(error(value) for value in [0.0, 2.0, *tried.tolist(), *(tried + 1e-6).tolist()])


def test_above() -> None:
    found = Detections(torch.rand(3, 4), torch.tensor([0.9, 0.5, 0.1]), torch.tensor([1, 2, 3]))
    kept = above(found, 0.5)
    assert kept.labels is not None and kept.labels.tolist() == [1, 2] and len(kept.boxes) == 2
    assert above(found._replace(labels=None), 2.0).labels is None


def test_a_count_for_each_image() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        choose_threshold([torch.rand(3)], [1, 2])
