"""Were the impulses of a texture found: precision and recall by distance, without classes and without overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.metrics.detection import share
from mistnn.metrics.scenes import pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match
from mistnn.records import Detections


class ImpulseScores(NamedTuple):
    """Scores over several images; each NaN where its denominator is 0.

    Attributes:
        precision: share of the detections that have an impulse of their own, 0-1.
        recall: share of the impulses that have a detection of their own, 0-1.
        distance: mean distance of these pairs, in pixels.
    """

    precision: float
    recall: float
    distance: float


def impulse_scores(
    detections: Sequence[Detections], boxes: Sequence[Tensor], radius: float | None = None
) -> ImpulseScores:
    """Matches detections with impulses one-to-one by the distance of their centres, nearest first.

    Convention: Euclidean distance in pixels; a pair counts at a distance of ``radius`` or less. Precision and recall
    are of all images together (micro), not means over images. Labels and sizes of detections are not looked at.

    Where impulses are dense, half a kernel reaches several of them, and places drawn at random score high too: give
    what chance reaches beside the result, or a radius of at most half the least distance between impulses, within
    which no place fits two.

    Args:
        detections: one an image.
        boxes: the boxes around the true impulses of each image.
        radius: in pixels; half the width of the impulse's own box if not given.

    Raises:
        ValueError: if the radius is not a number of 0 or more; see also ``pad_scenes``.

    Reference:
        MIST (CVPR 2021), figure 4 marks correct and erroneous places; its rule is not stated. Half a kernel is ours.
    """
    if radius is not None and not 0 <= radius < math.inf:
        raise ValueError(f"radius must be a finite distance of 0 pixels or more, got {radius}")
    scenes = pad_scenes(detections, boxes)
    squared = (scenes.found[..., None, :2] - scenes.true[..., None, :, :2]).square().sum(-1)
    reach = scenes.true[..., 2] / 2 if radius is None else torch.full_like(scenes.true[..., 2], radius)
    real = scenes.is_found.unsqueeze(-1) & scenes.is_true.unsqueeze(-2)
    match = greedy_match(-squared, -torch.inf, real & (squared <= reach.square().unsqueeze(-2)))
    image, row = (match != UNMATCHED).nonzero(as_tuple=True)
    distances = squared[image, row, match[image, row]].sqrt()
    return ImpulseScores(
        precision=share(len(distances), int(scenes.is_found.sum())),
        recall=share(len(distances), scenes.objects),
        distance=share(float(distances.sum()), len(distances)),
    )
