"""Lifting on photographs: lines 3 and 4 of Algorithm 1 of MIST (CVPR 2021), with a task network on features.

Convention: keypoints are (x, y) in cells of the heat map; cell (row i, column j) is centred at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.models.photos.config import PhotoStepConfig
from mistnn.nn.lift import lift
from mistnn.ops.coordinates import boxes_at, centre_of, pixel_of
from mistnn.ops.losses import class_proportion_loss, with_background
from mistnn.ops.peaks import select_peaks
from mistnn.ops.sampling import extract_patches


class Anchors(NamedTuple):
    """K keypoints of each image: those of its objects, then others.

    Attributes:
        points: (batch, k, 2).
        labels: (batch, k), the class of the heat map in which it was found; -1 beyond the number of objects.
        real: (batch, k), false if the image has fewer maxima.
    """

    points: Tensor
    labels: Tensor
    real: Tensor


def anchors_of(
    selected: list[Tensor], response: Tensor, inside: Tensor, most: int, window: int, apart: float
) -> Anchors:
    """E_K of each image: the selected keypoints of its objects, filled up to K with the best of the other maxima.

    Args:
        selected: for each image (found, 3): class, row and column.
        response: (batch, classes, rows, columns).
        inside: (batch, rows, columns), the cells that may be selected.
        most: K.
        window: see ``select_peaks``.
        apart: see ``select_peaks``.
    """
    size = (len(response), most)
    points, labels = response.new_zeros(*size, 2), torch.full(size, -1)
    real = torch.zeros(size, dtype=torch.bool)
    for index, own in enumerate(selected):
        own = own[:most]
        others, _ = select_peaks(response[index], most + len(own), window, apart, inside[index])
        taken = set(map(tuple, own[:, 1:].tolist()))
        free = [one for one in others.tolist() if tuple(one[1:]) not in taken][: most - len(own)]
        places = torch.cat((own, torch.tensor(free, dtype=own.dtype).reshape(-1, 3)))
        points[index, : len(places)] = centre_of(places[:, [2, 1]]).to(points)
        labels[index, : len(own)] = own[:, 0]
        real[index, : len(places)] = True
    return Anchors(points, labels, real.to(points.device))


def task_loss(classes: Tensor, points: Tensor, real: Tensor, counts: Tensor) -> Tensor:
    """Equation 9 of each image, (batch,): keypoints beyond its number of objects belong to the background.

    Args:
        classes: (batch, classes + 1, rows, columns), logits of the task network for the patch around each cell.
        points: (batch, k, 2); patches between cells are interpolated.
        real: (batch, k); others count as background.
        counts: (batch, classes).
    """
    probabilities = extract_patches(classes.softmax(1), boxes_at(points, 1.0), 1).flatten(2)
    background = torch.zeros_like(probabilities)
    background[..., -1] = 1
    probabilities = torch.where(real[..., None], probabilities, background)
    return class_proportion_loss(probabilities, with_background(counts, points.shape[1]))


def lift_keypoints(config: PhotoStepConfig, classes: Tensor, anchors: Anchors, counts: Tensor, sizes: Tensor) -> Tensor:
    """Line 4: the keypoints after gradient steps on the task loss (equation 6); ``sizes`` are (batch, 2), in cells."""
    high = sizes.flip(1)[:, None].to(anchors.points)
    return lift(
        anchors.points,
        lambda points: task_loss(classes.detach(), points, anchors.real, counts),
        steps=config.lift_steps,
        rate=config.lift_rate,
        reach=config.lift_reach,
        penalty=0.0,
        low=torch.zeros_like(high),
        high=high,
    )


def mark_keypoints(points: Tensor, labels: Tensor, like: Tensor) -> Tensor:
    """Marks the cells with keypoints of objects, (batch, classes, rows, columns), boolean."""
    marks = torch.zeros_like(like, dtype=torch.bool)
    pixels = pixel_of(points, *like.shape[-2:])
    batch, index = (labels >= 0).nonzero(as_tuple=True)
    columns, rows = pixels[batch, index].unbind(1)
    marks[batch, labels[batch, index], rows, columns] = True
    return marks
