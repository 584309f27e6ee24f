"""MIST on photographs: density, heat map, top-K and classes from the features of a pretrained network.

Convention: cell (row i, column j) is centred at (stride (j + 0.5), stride (i + 0.5)) in pixels of the prepared image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.photos.config import PhotoConfig
from mistnn.models.photos.extents import filled, measured_boxes
from mistnn.nn.convolution import Convolution
from mistnn.nn.finder import Finder, WholeDetector
from mistnn.nn.preparation import prepare
from mistnn.nn.pyramid import COARSEST, Pyramid, resample
from mistnn.ops.peaks import count_bonus, refined_peaks, select_peaks
from mistnn.records import Detections, Explanation

QUIET = 3.0
"""Is subtracted before the softplus of the density, so that an untrained network finds few objects (our choice)."""
COUNTED = 0.3
"""Weight of the number of objects of each class beside the response, where the best of all classes are taken (ours)."""
BESIDE = 0.8
"""The share of the response that cells beside objects lose, where sizes are measured (our choice)."""
RARE = -3.0
"""The heat map of an untrained network before the logistic function, for the same reason (our choice)."""


class PhotoMaps(NamedTuple):
    """What the network says about each cell.

    Attributes:
        density: (batch, classes, rows, columns), objects per cell: its sum over a region is their number there.
        heatmap: (batch, classes, rows, columns), H_eta(I) before the logistic function.
        linear: its linear part.
        inside: (batch, rows, columns), the cells whose centres lie in the image, not in padding.
        means: (batch, channels), the means of the normalised features; ``None`` in training, where they have no use.
        extent: (batch, rows, columns), where objects are, see ``extents.py``; ``None`` if sizes are not measured.
        classes: (batch, classes + 1, rows, columns), what the task network says about the patch around each cell, with
            the background last; ``None`` without a task network, and in prediction.
    """

    density: Tensor
    heatmap: Tensor
    linear: Tensor
    inside: Tensor
    means: Tensor | None
    extent: Tensor | None = None
    classes: Tensor | None = None


class TaskNetwork(nn.Sequential):
    """Classifies the square patch of features around each cell; the background is the last class.

    (batch, width, rows, columns) to logits (batch, classes + 1, rows, columns). It is the same for all patches, as the
    task network of MIST (CVPR 2021), and fully convolutional.

    Args:
        width: channels.
        classes: number of classes without the background.
        side: of a patch in cells, odd.
    """

    def __init__(self, width: int, classes: int, side: int) -> None:
        super().__init__(
            nn.GELU(),
            Convolution(width, width, 3, padding=1),
            nn.GELU(),
            nn.AvgPool2d(side, 1, side // 2, count_include_pad=False),
            nn.Conv2d(width, classes + 1, 1),
        )


class PhotoMist(Finder):
    """Counts the objects of a photograph, finds as many, and classifies them.

    The density of a class is the product of a density of objects and the probability of the class there: what all
    classes have in common is learned from all of them, and each object has one class. Its sum over the image is the
    count. The heat map has a maximum at each object, as in MIST. It is the sum of a linear map, which is set before
    training (``find_templates``) and trained slowly, and of what the head adds to it.

    Attributes:
        first_class: the entry at which classes begin in the weights where it is not the first one.

    Reference: the two heads on frozen features are ours; E_K and the heat map are those of MIST (CVPR 2021).
    """

    first_class: ClassVar[Mapping[str, int]] = {"density_head.weight": 1, "density_head.bias": 1}  # the first is all
    center: Tensor
    scale: Tensor
    spread: Tensor
    deviations: Tensor
    extent: Tensor
    extent_bias: Tensor

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config.pyramid, config.stride)
        classes, width = len(config.class_names), config.width
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.pyramid.channels)
        self.dropout = nn.Dropout2d(0.0)  # the training step sets the share
        self.mix = Convolution(width, width, 3, padding=1)
        self.density_head = nn.Conv2d(width, 1 + classes, 1)
        self.heatmap_head = nn.Sequential(
            Convolution(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, classes, 1)
        )
        assert self.density_head.bias is not None
        nn.init.zeros_(self.density_head.bias)
        last = self.heatmap_head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.task_reduce, self.task_network = None, None
        if config.task:
            self.task_reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.pyramid.channels)
            self.task_network = TaskNetwork(width, classes, config.patch)
        channels = sum(self.pyramid.channels)
        self.template = nn.Parameter(torch.zeros(classes, channels))
        self.template_bias = nn.Parameter(torch.full((classes,), RARE))
        self.register_buffer("extent", torch.zeros(channels))  # a linear map of normalised features
        self.register_buffer("extent_bias", torch.zeros(()))
        self.register_buffer("center", torch.zeros(channels))  # of the features of the training images
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("spread", torch.ones(channels))  # deviations of the means of normalised features
        self.register_buffer("deviations", torch.ones(classes + 1))  # of the counts of each class, and of the total

    @property
    def counts_itself(self) -> bool:
        """The sum of the density is the number of objects."""
        return True

    @property
    def intervals(self) -> tuple[float, ...]:
        """See ``PhotoConfig``."""
        return self.config.intervals

    @property
    def finds_sizes(self) -> bool:
        """Where features show where objects end."""
        return self.config.measured

    @property
    def zoom(self) -> float:
        """The factor by which images are resized."""
        return self.config.preparation.zoom

    @property
    def prepares(self) -> bool:
        """Whether ``prepare`` changes anything."""
        return self.config.preparation.changes

    def prepare(self, images: Tensor) -> Tensor:
        """The images as the network takes them."""
        return prepare(images, self.config.preparation)

    def most(self, height: int, width: int) -> int:
        """The largest number of objects that can be found: one per cell."""
        rows, columns = (max(1, round(side * self.zoom / self.config.stride)) for side in (height, width))
        return rows * columns

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> PhotoMaps:
        """Maps of prepared images.

        Args:
            images: (batch, 3, height, width) in [0, 1], or their packed features, see ``Pyramid``.
            sizes: (batch, 2), height and width of the visible part of each; by default all of it.
        """
        if images.shape[1] == self.config.channels:
            sizes = torch.tensor([images.shape[-2:]] * len(images)) if sizes is None else sizes
            images = self.pyramid(images)
        elif sizes is None:
            sizes = torch.tensor([[side * COARSEST for side in images.shape[-2:]]] * len(images))
        size = [-(-int(side) // self.config.stride) for side in sizes.amax(0)]
        return self.maps(images, size, self.cells_inside(sizes, size))

    def maps(self, packed: Tensor, size: list[int], inside: Tensor) -> PhotoMaps:
        """Maps of packed features, with so many rows and columns; ``inside`` as in ``PhotoMaps``."""
        normal = self.normal(packed)
        mixed, linear, *patches = self.projected(normal, size)
        shared = F.gelu(self.mix(self.dropout(F.gelu(mixed))))
        inside = inside.to(shared.device)
        raw = self.density_head(shared)
        objects = F.softplus(raw[:, :1] - QUIET) / max(1.0, self.config.cells**2)
        density = objects * raw[:, 1:].softmax(1) * inside[:, None]
        linear, extents = linear.tensor_split([len(self.template)], 1)
        extent = extents[:, 0] + self.extent_bias if extents.shape[1] else None
        linear = F.avg_pool2d(linear, 3, 1, 1, count_include_pad=False) + self.template_bias[:, None, None]
        means = None if self.training else self.means(normal)
        classes = self.task_network(*patches) if patches and self.task_network is not None else None
        return PhotoMaps(density, linear + self.heatmap_head(shared), linear, inside, means, extent, classes)

    def projected(self, normal: list[Tensor], size: list[int]) -> tuple[Tensor, ...]:
        """The input of the heads, the linear maps, and in training the input of the task network, if there is one.

        The linear maps are those of the templates, and in prediction where objects are, if sizes are measured. Each of
        these is a linear map of all features. One pass over the features computes them together.
        """
        stride, width = self.config.stride, self.config.width
        tasks = self.task_reduce if self.task_reduce is not None and self.training else [None] * len(normal)
        measured = self.config.measured and not self.training
        linear = torch.cat((self.template, self.extent[None])) if measured else self.template
        templates = linear[:, :, None, None].split(self.pyramid.channels, 1)
        total: Tensor | float = 0.0
        parts = zip(normal, self.pyramid.strides, self.pyramid.firsts, self.reduce, templates, tasks, strict=True)
        for features, step, first, reduce, template, task in parts:
            assert isinstance(reduce, nn.Conv2d) and reduce.bias is not None
            weight, bias = [reduce.weight, template], [reduce.bias, template.new_zeros(len(template))]
            if isinstance(task, nn.Conv2d):
                assert task.bias is not None
                weight, bias = [*weight, task.weight], [*bias, task.bias]
            mapped = resample(F.conv2d(features, torch.cat(weight)), step, first, stride, size)
            total = total + mapped + torch.cat(bias)[:, None, None]
        assert isinstance(total, Tensor)
        return total.tensor_split([width, width + len(linear)], 1)[: 2 + (tasks is self.task_reduce)]

    def normal(self, packed: Tensor) -> list[Tensor]:
        """The feature maps of packed features, normalised by mean and deviation of the training images."""
        centers, scales = (one.split(self.pyramid.channels) for one in (self.center, self.scale))
        parts = zip(self.pyramid.unpack(packed), centers, scales, strict=True)
        return [(one.to(center.dtype) - center[:, None, None]) / scale[:, None, None] for one, center, scale in parts]

    @staticmethod
    def means(normal: list[Tensor]) -> Tensor:
        """The mean of each channel, (batch, channels)."""
        return torch.cat([one.mean((2, 3)) for one in normal], 1)

    def distances(self, means: Tensor) -> Tensor:
        """How far images are from the training images, (batch,): the root mean square of all channels.

        Args:
            means: of their features, see ``PhotoMaps``; their unit is the deviation over the training images.
        """
        return (means / self.spread).square().mean(1).sqrt()

    @torch.no_grad()
    def gridded(self, packed: Tensor, size: Tensor) -> Tensor:
        """All normalised features of one image at the stride of the maps: (channels, rows, columns).

        Args:
            packed: (packed channels, rows, columns).
            size: height and width of the image in pixels.
        """
        stride = self.config.stride
        cells = [-(-int(side) // stride) for side in size]
        maps = zip(self.normal(packed[None]), self.pyramid.strides, self.pyramid.firsts, strict=True)
        return torch.cat([resample(one, step, first, stride, cells) for one, step, first in maps], 1)[0]

    def cells_inside(self, sizes: Tensor, size: list[int]) -> Tensor:
        """(batch, rows, columns): whether the centres of cells lie in images of (batch, 2) heights and widths."""
        stride = self.config.stride
        down, across = (
            (torch.arange(length) + 0.5) * stride < sizes[:, axis : axis + 1].cpu() for axis, length in enumerate(size)
        )
        return down[:, :, None] & across[:, None, :]

    def evidence(self, maps: PhotoMaps) -> Tensor:
        """The density summed over a window of the size of the non-maximum suppression: (batch, classes, rows, columns).

        The density of an object may be spread over several cells, or lie at its rim. Its local sum has one maximum.
        """
        side = self.config.window
        return F.avg_pool2d(maps.density, side, 1, side // 2) * side**2

    def response(self, maps: PhotoMaps) -> Tensor:
        """By which objects are found, in [0, 1]: the mean of heat map and evidence, (batch, classes, rows, columns).

        Where sizes are measured, it is reduced at cells beside objects.
        """
        response = (maps.heatmap.sigmoid() + self.evidence(maps).clamp(max=1)) / 2
        return response if maps.extent is None else response * (1 - BESIDE + BESIDE * filled(maps.extent)[:, None])

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """The objects of each image, best first; no reconstruction.

        Without ``k``, an image has as many as the sum of its density, rounded, and at most the K of the configuration.
        The best of all classes are returned; classes of which the density counts more are preferred, see
        ``count_bonus``.
        """
        maps = self(images)
        wanted = None if k is None else self.counts_for(images, k)
        response, numbers = self.response(maps), maps.density.sum((2, 3))
        sums = numbers.sum(1).tolist()
        unlike: list[float | None] = [None] * len(sums)
        if self.config.usual and maps.means is not None:
            unlike = (self.distances(maps.means) / self.config.usual).tolist()
        found = []
        for index in range(len(images)):
            total = min(round(sums[index]), self.config.k, response[0, 0].numel()) if wanted is None else wanted[index]
            extent = None if maps.extent is None else maps.extent[index]
            objects = self.detections(response[index], total, maps.inside[index], numbers[index], extent)
            found.append(objects._replace(unlike=unlike[index]))
        return Explanation(found, None)

    def shown_heatmap(self, images: Tensor) -> Tensor:
        """The largest response of all classes in each cell."""
        return self.response(self(images)).amax(1)

    def detections(
        self,
        response: Tensor,
        numbers: list[int] | int,
        inside: Tensor,
        expected: Tensor | None = None,
        extent: Tensor | None = None,
    ) -> Detections:
        """The best maxima of one image's heat map (classes, rows, columns), with boxes in pixels.

        Args:
            response: of one image.
            numbers: see ``select_peaks``.
            inside: (rows, columns).
            expected: the number of objects of each class, (classes,), if it is to be considered.
            extent: where objects are, (rows, columns), if sizes are measured.
        """
        config = self.config
        bonus = None if expected is None else self.bonus(expected, response[0].numel())
        places, scores = select_peaks(response, numbers, config.window, config.apart * config.cells, inside, bonus)
        labels = places[:, 0]
        boxes = self.boxes(response.cpu(), places, inside.cpu(), None if extent is None else extent.cpu())
        order = scores.argsort(descending=True, stable=True)
        device = response.device
        return Detections(boxes[order].to(device), scores[order].to(device), labels[order].to(device))

    def boxes(self, response: Tensor, places: Tensor, inside: Tensor, extent: Tensor | None) -> Tensor:
        """The boxes of peaks (found, 3), class, row and column: (found, 4), centre x and y, width, height in pixels."""
        centres, side = refined_peaks(response, places), self.config.cells
        if extent is None:
            boxes = torch.cat((centres, torch.full_like(centres, side)), 1)
        else:
            boxes = measured_boxes(centres, extent.masked_fill(~inside, -torch.inf), side)
        return boxes * self.config.stride

    @staticmethod
    def bonus(expected: Tensor, ranks: int | Tensor) -> Tensor:
        """See ``select_peaks``: (classes, ranks), for the number of objects that the density counts of each class."""
        return COUNTED * count_bonus(expected, ranks)

    def for_export(self) -> WholeDetector:
        """See ``Finder.for_export``."""
        from mistnn.models.photos.whole import WholePhotoMist  # it imports this module

        return WholePhotoMist(self)
