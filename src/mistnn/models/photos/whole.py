"""MIST on photographs as one module of tensors, for an export: preparation, features, maps, the count and the peaks."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.models.photos.network import PhotoMist
from mistnn.nn.backbones import with_fixed_padding
from mistnn.nn.finder import WholeDetector

LEAST = 64
"""The smallest side of an image that an export takes, in pixels of the network's input (our choice)."""


class WholePhotoMist(WholeDetector):
    """See ``WholeDetector``. Results are those of ``PhotoMist.detect``."""

    def __init__(self, model: PhotoMist) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.pyramid.body = with_fixed_padding(model.pyramid.body)
        self.least = math.ceil(LEAST / min(1.0, model.zoom)) + 1

    def forward(self, image: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``WholeDetector.forward``."""
        model, stride = self.model, self.model.config.stride
        images = model.prepare(image)
        height, width = images.shape[-2:]
        size = [(side + stride - 1) // stride for side in (height, width)]  # ONNX divides towards 0, not down
        inside = ((torch.arange(size[0]) + 0.5) * stride < height)[:, None] & (
            (torch.arange(size[1]) + 0.5) * stride < width
        )
        maps = model.maps(model.pyramid(images), size, inside[None])
        response, cells = model.response(maps)[0], size[0] * size[1]
        numbers = maps.density.sum((2, 3))[0]
        counted = numbers.sum().round().long().clamp(max=model.config.k)
        wanted = torch.where(k > 0, k, counted).clamp(max=cells)
        number: Any = wanted.clamp(min=1).item()  # a box at least, cut off at the end: there are no empty tensors
        torch._check(number >= 1)
        torch._check(number <= cells)
        places, scores = self.peaks(response, number, inside, numbers)
        order = scores.topk(scores.shape[0]).indices
        places, scores = places[order], scores[order]
        boxes = model.boxes(response, places, inside, None if maps.extent is None else maps.extent[0])
        kept = torch.ones_like(scores, dtype=torch.long).cumsum(0) <= wanted
        return (boxes / model.zoom)[kept], scores[kept], places[kept, 0]

    def peaks(self, response: Tensor, number: int, inside: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """``select_peaks`` for one number in all, with the bonus of the classes that are expected."""
        window, apart = self.model.config.window, self.model.config.apart * self.model.config.cells
        classes, rows, columns = response.shape
        highest = F.max_pool2d(response[None], window, 1, window // 2)[0]
        scores = torch.where((response >= highest) & inside, response, -torch.inf).flatten(1)
        wanted: Any = number if classes == 1 else torch.sym_min(rows * columns, 2 * number + 3)
        best = scores.topk(wanted, dim=1)
        gains = best.values
        if classes > 1:
            ranks = torch.ones_like(gains).cumsum(1) - 1  # a range of symbolic length can't be exported
            gains = gains + self.model.bonus(expected, ranks)
        order = gains.flatten().topk(classes * wanted).indices
        values = best.values.flatten()[order]
        sites = best.indices.flatten()[order]
        down = sites // columns
        places = torch.stack((order // wanted, down, sites - down * columns), 1)
        kept = values > -torch.inf
        if classes > 1:
            kept = kept & not_too_close(places[:, 1:], apart)
        places, values = places[kept], values[kept]
        return places[:number], values[:number]


def not_too_close(points: Tensor, apart: float) -> Tensor:
    """Marks the points, (n, 2), that are at least ``apart`` from each point before them that is marked."""
    distance = (points[:, None] - points[None]).square().sum(2)
    before = torch.ones_like(distance, dtype=torch.bool).tril(-1)
    close = (distance < apart**2) & before

    def changes(kept: Tensor, last: Tensor) -> Tensor:
        return (kept != last).any()

    def again(kept: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        return ~(close & kept[None]).any(1), kept.clone()

    start = torch.ones_like(points[:, 0], dtype=torch.bool)
    return torch.while_loop(changes, again, (start, ~start))[0]
