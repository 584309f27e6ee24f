"""Counting without a given K: detections whose score reaches a threshold learnt from known counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mistnn.records import Detections


def choose_threshold(scores: Sequence[Tensor], counts: Sequence[int]) -> float:
    """Chooses the score from which detections are counted: the one with the least mean absolute count error.

    It needs the number of objects of each image but no position: choose it on training or validation images.
    Candidates lie halfway between neighbouring scores; of several equally good ones the middle one is taken.

    Args:
        scores: for each image the scores of its detections, (n,), 0 to 1; more detections than objects.

    Raises:
        ValueError: if there is no image or no detection, or the numbers of images differ.
    """
    if len(scores) != len(counts) or not sum(len(one) for one in scores):
        raise ValueError(f"a threshold needs detections, and a count for each image: {len(scores)} and {len(counts)}")
    every = torch.cat([one.double() for one in scores]).unique()
    candidates = torch.cat((every[:1] / 2, (every[1:] + every[:-1]) / 2, every[-1:] + 1e-3))
    error = torch.zeros_like(candidates)
    for one, count in zip(scores, counts, strict=True):
        error += (len(one) - torch.searchsorted(one.double().sort().values, candidates) - count).abs()
    best = candidates[error == error.min()]
    return float(best[len(best) // 2])


def above(found: Detections, threshold: float) -> Detections:
    """The detections whose score reaches a threshold."""
    return found.where(found.scores.double() >= threshold)
