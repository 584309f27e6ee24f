"""Counting without a given K: detections whose score reaches a threshold learnt from known counts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mistnn.data import FolderConfig
from mistnn.nn.finder import Finder
from mistnn.records import Detections
from mistnn.weights import read_config


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


LEVEL = 0.8
"""The share of images whose true count lies in its interval."""


def interval_factor(found: Sequence[int], true: Sequence[int]) -> float | None:
    """Half the width of the interval of a count n, in units of sqrt(n + 1), such that it holds ``LEVEL`` of the images.

    The errors of a count grow about with its square root. If new images are like these, which the model has not been
    trained on, the interval holds the true count of a new image with at least that probability.

    Args:
        found: the counts of the model.
        true: the true ones.

    Returns:
        ``None`` for fewer than four images, too few for such an interval.

    Reference: split conformal prediction; Lei et al., Distribution-free predictive inference for regression, 2018.
    """
    errors = sorted(abs(one - other) / math.sqrt(one + 1) for one, other in zip(found, true, strict=True))
    rank = math.ceil(LEVEL * (len(errors) + 1))
    return errors[rank - 1] if rank <= len(errors) else None


def interval(count: int, factor: float) -> tuple[int, int]:
    """The smallest and the largest number of objects that a count stands for, see ``interval_factor``."""
    half = factor * math.sqrt(count + 1) + 1e-9  # rounding must not leave out the error that set the factor
    return max(0, math.ceil(count - half)), math.floor(count + half)


def missing_threshold(name_or_folder: str | Path, model: Finder) -> str | None:
    """Why a stored model of an image folder can't count yet, with the fix: its run stopped too early; else ``None``.

    A run chooses the threshold after its last step. Until then the model would find K objects in every image.
    """
    stored = read_config(name_or_folder)
    of_folder = stored.experiment.get("data", {}).get("kind") == FolderConfig.kind
    if not of_folder or not model.class_names or model.counts_itself or model.threshold:
        return None
    steps = 1 if stored.training is None else stored.training.steps
    command = f"mist train --resume {shlex.quote(str(name_or_folder))} --data-root DIR --train.steps {steps}"
    return (
        f"{name_or_folder} was stopped before its threshold was chosen, so it can't count yet: `{command}` chooses it "
        f"without further training (DIR: the folder of its images; after mistnn.fit: the same call with resume=True, "
        f"steps={steps}); --k N finds N objects in every image"
    )
