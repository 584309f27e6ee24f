"""How many objects there are, where nobody says: those whose score reaches a threshold learnt from known numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mistnn.records import Detections


def choose_threshold(scores: Sequence[Tensor], counts: Sequence[int]) -> float:
    """The score above which detections are counted, so that the numbers come nearest to the true ones.

    It needs how many objects each image holds and no place: choose it on training or validation images. Of all scores
    between two neighbouring ones, the mean absolute error of the number is least there; of several as good ones the
    middle one is taken.

    Args:
        scores: of each image's detections, more of them than there are objects; each (n,), 0 to 1.
        counts: how many objects each image holds.

    Raises:
        ValueError: without an image or a detection, or with another number of counts.
    """
    if len(scores) != len(counts) or not sum(len(one) for one in scores):
        raise ValueError(f"a threshold needs detections, and a count for each image: {len(scores)} and {len(counts)}")
    every = torch.cat([one.double() for one in scores]).unique()
    between = (every[1:] + every[:-1]) / 2
    candidates = torch.cat((every[:1] / 2, between, every[-1:] + 1e-3))
    error = torch.zeros_like(candidates)
    for one, count in zip(scores, counts, strict=True):
        ordered = one.double().sort().values
        error += (len(one) - torch.searchsorted(ordered, candidates) - count).abs()
    best = candidates[error == error.min()]
    return float(best[len(best) // 2])


def above(found: Detections, threshold: float) -> Detections:
    """The detections whose score reaches a threshold."""
    kept = found.scores.double() >= threshold
    return Detections(found.boxes[kept], found.scores[kept], None if found.labels is None else found.labels[kept])
