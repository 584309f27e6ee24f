"""What a network that finds objects owes prediction and evaluation: one class, with defaults."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.nn.tiles import tiled_score_map
from mistnn.records import Detections, Explanation


def shared_k(k: int | Tensor | None) -> int | None:
    """K of a model that finds the same number of objects in each image; a tensor of several raises ``ValueError``."""
    if isinstance(k, Tensor):
        raise ValueError("this model finds the same number of objects in each image of a batch: give k as an int")
    return k


def check_class_names(class_names: tuple[str, ...], least: int = 0) -> None:
    """Checks that a configuration has ``least`` class names or more, all distinct and not empty."""
    if len(class_names) < least or not all(class_names) or len(set(class_names)) < len(class_names):
        some = ", at least one" if least else ""
        raise MistError(f"model.class_names={class_names} must be distinct names, none of them empty{some}")


class Finder(nn.Module, abc.ABC):
    """A network that finds objects in images. A subclass implements ``explain`` and overrides what differs.

    Attributes:
        config: the network's configuration, with ``channels`` (1 or 3), ``k`` (how many objects to find by default)
            and ``class_names`` (empty for a model without classes).
        in_tiles: whether images of any size can be processed in tiles, see ``TiledFinder``.
    """

    config: Any
    in_tiles: ClassVar[bool] = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class; empty for a model without classes."""
        return self.config.class_names

    @property
    def counts_itself(self) -> bool:
        """Whether the model decides how many objects an image holds."""
        return False

    @property
    def needs_counts(self) -> bool:
        """Whether the model must be given the number of objects of each image, in prediction too."""
        return False

    @property
    def reconstructs(self) -> bool:
        """Whether ``explain`` and ``reconstruct`` return images."""
        return False

    @property
    def finds_sizes(self) -> bool:
        """Whether detections differ in size; else all boxes have one size, or sizes are not measured."""
        return False

    @property
    def threshold(self) -> float:
        """Detections with lower scores are dropped where the user gives no K; 0 keeps all."""
        return 0.0

    @property
    def intervals(self) -> tuple[float, ...]:
        """For each class the half width of the interval of a count n, in units of sqrt(n + 1); empty if unknown."""
        return ()

    @property
    def zoom(self) -> float:
        """The factor by which ``prepare`` resizes: boxes are that much larger than in the user's image."""
        return 1.0

    @property
    def prepares(self) -> bool:
        """Whether ``prepare`` changes anything."""
        return False

    def prepare(self, images: Tensor) -> Tensor:
        """The user's images, (batch, channels, height, width) in [0, 1], as the network's input."""
        return images

    def most(self, height: int, width: int) -> int:
        """The largest number of objects that can be found in an image of this size, in pixels of the user's image."""
        return max(1, round(height * self.zoom)) * max(1, round(width * self.zoom))

    def limit(self, height: int, width: int) -> int:
        """The most objects that the model reports in an image of this size where the user gives no K."""
        return min(self.config.k, self.most(height, width))

    def refusal(self, height: int, width: int) -> str | None:
        """Why the network can't take an image of this size, as the end of a sentence about the image; else ``None``."""
        return None

    def counts_for(self, images: Tensor, k: int | Tensor | None) -> list[int]:
        """How many objects to find in each image; see ``explain`` for ``k``, whose ``None`` here is the configured K.

        Raises:
            ValueError: if ``k`` holds anything but one whole number of 0 or more for each image.
        """
        if k is None or isinstance(k, int):
            return [self.config.k if k is None else k] * len(images)
        counts = k.tolist()
        if k.shape != (len(images),) or k.is_floating_point() or min(counts, default=0) < 0:
            raise ValueError(f"k must be one whole number of 0 or more for each of {len(images)} images, got {counts}")
        return counts

    @abc.abstractmethod
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """Finds objects and, where the model reconstructs, draws the images from them.

        Args:
            images: (batch, channels, height, width) in [0, 1], after ``prepare``.
            k: how many objects in every image, or (batch,), how many in each; never above ``most``. ``None``: as many
                as the model counts itself, else the K of its configuration.

        Returns:
            For each image the detections, best first; and the reconstructions.
        """

    def detect(self, images: Tensor, k: int | Tensor | None = None, max_pixels: int | None = None) -> list[Detections]:
        """As ``explain``, without reconstruction; images above ``max_pixels`` in tiles where ``in_tiles``."""
        return self.explain(images, k).detections

    def shown_heatmap(self, images: Tensor) -> Tensor | None:
        """One heat map for each image, (batch, rows, columns), to show people; ``None`` if the model has none."""
        return None

    def for_export(self) -> WholeDetector | None:
        """The whole detector as a module of tensors, for an export; ``None`` if this kind can't be exported."""
        return None

    def reconstruct_from(self, images: Tensor, found: Sequence[Detections]) -> Tensor:
        """The images as the model explains them, (batch, channels, height, width), given what it found in them."""
        rebuilt = self.explain(images, None if self.counts_itself else len(found[0].boxes)).reconstruction
        if rebuilt is None:
            raise ValueError("this model can't reconstruct images")
        return rebuilt


class WholeDetector(nn.Module, abc.ABC):
    """A finder with its preparation and its count, as one module that ``torch.export`` takes.

    Attributes:
        least: the smallest side in pixels of an image.
    """

    least: int

    @abc.abstractmethod
    def forward(self, image: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the objects of an image, best first.

        Args:
            image: (1, channels, height, width) in [0, 1], the user's image, without preparation.
            k: a whole number, int64, without dimensions: how many objects. 0: as many as the model counts, or its own K
                if it can't count; never more than ``Finder.limit``.

        Returns:
            Boxes (found, 4): centre x, centre y, width, height in pixels of the image; scores (found,); and labels
            (found,), all 0 for a model without classes.
        """


class TiledFinder(Finder, abc.ABC):
    """A finder whose score map can be computed in overlapping tiles, so that images may have any size."""

    in_tiles: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def margin(self) -> int:
        """The distance in pixels up to which the score of a pixel depends on its surroundings."""

    @property
    def tiles_are_exact(self) -> bool:
        """Whether tiles that overlap by the margin give exactly the scores of the whole image."""
        return not any(isinstance(module, nn.GroupNorm) for module in self.modules())

    @abc.abstractmethod
    def score_map(self, images: Tensor) -> Tensor:
        """The raw score of each pixel, (batch, height, width)."""

    @abc.abstractmethod
    def heatmaps(self, images: Tensor, score_map: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The heat maps of whole images, (batch, scales, height, width); ``score_map`` replaces ``self.score_map``."""

    @abc.abstractmethod
    def detect_from_heatmaps(self, images: Tensor, heatmaps: Tensor, k: int | None = None) -> list[Detections]:
        """As ``detect``, with heat maps that were computed before."""

    def shown_heatmap(self, images: Tensor) -> Tensor | None:
        """The sum over the scales."""
        return self.heatmaps(images).sum(1)

    @torch.no_grad()
    def detect(self, images: Tensor, k: int | Tensor | None = None, max_pixels: int | None = None) -> list[Detections]:
        """As ``Finder.detect``; a tensor ``k`` raises ``ValueError``."""
        k, score_map = shared_k(k), None
        if max_pixels is not None and images.shape[-2] * images.shape[-1] > max_pixels:
            score_map = functools.partial(tiled_score_map, self.score_map, margin=self.margin, max_pixels=max_pixels)
        return self.detect_from_heatmaps(images, self.heatmaps(images, score_map), k)
