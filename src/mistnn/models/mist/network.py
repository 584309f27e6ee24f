"""The MIST network: heat map, top-K, patches, task network (MIST, CVPR 2021, figure 1).

A keypoint x_k is (x, y, s): its position in pixels and its scale, on which its box is s times ``box_size`` wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig, build_heatmap_network
from mistnn.nn.preparation import PreparationConfig, prepare
from mistnn.nn.task import TaskNetwork
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.heatmap import local_spatial_softmax, pool_scales, scale_moment
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.ops.topk import top_k
from mistnn.records import Detections, Explanation

PATCHES_AT_ONCE = 4096
"""Patches that are read at once in prediction: about 1 GiB for the small encoder."""


@dataclass(frozen=True)
class MistConfig:
    """Everything that shapes a MIST network.

    Attributes:
        class_names: one name a class; empty for a model that only reconstructs.
        background: whether there is one class more, not named, for patches that hold no object. K is an upper bound
            then (MIST, section 5.2, "background"); no detection has that class.
        threshold: in prediction where no K is told, boxes that score less are left out; 0 keeps all K.
        k: K, how many patches to extract; can be changed at prediction.
        channels: of the images, 1 or 3.
        scales: values of the S discrete scales, rising (neither S nor the values are stated in the paper; the released
            code has the one scale 1). Scale s looks at the image resized by 1 / s.
        box_size: side in pixels, at scale 1, of the box that is reported around a keypoint (20 in the released MNIST
            setting).
        patch_extent: side in pixels, at scale 1, of the square that is cut out for the task network. The paper has one
            size for both; a little context helps the small networks.
        patch_size: side of the resampled patch in patch pixels (paper: 32).
        patch_window: standard deviation of a Gaussian window on the patch, as a fraction of its side; 0 for none
            (paper). A window darkens what lies off the centre.
        heatmap: the heat-map network.
        encoder: the patch encoder.
        decoder: width of the decoder, which a model that reconstructs needs and the joint objective; 0 for none. It is
            the "paper" auto-encoder's (first level's channels) beside its encoder, the small one beside the others.
        softmax_window: side of the local spatial softmax in pixels (paper: 15).
        softmax_strength: its strength (not stated in the paper; value of the released code).
        nms_window: side of the non-maximum suppression in pixels (not stated; value of the released code).
        preparation: what is done to images before the network sees them; all sizes above are after it.
    """

    class_names: tuple[str, ...] = tuple(str(digit) for digit in range(10))
    background: bool = False
    threshold: float = 0.0
    k: int = 9
    channels: int = 1
    scales: tuple[float, ...] = (1.0,)
    box_size: float = 20.0
    patch_extent: float = 20.0
    patch_size: int = 32
    patch_window: float = 0.0
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: int = 0
    softmax_window: int = 15
    softmax_strength: float = 10.0
    nms_window: int = 5
    preparation: PreparationConfig = field(default_factory=PreparationConfig)

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if not all(self.class_names) or len(set(self.class_names)) < len(self.class_names):
            raise MistError(f"model.class_names={self.class_names} must be distinct names, none of them empty")
        if self.background and not self.class_names:
            raise MistError("model.background needs classes beside it: name them, or leave it off")
        if not 0 <= self.threshold < math.inf:
            raise MistError(f"model.threshold={self.threshold} must be a score, from 0 (keep all) to 1")
        if self.k < 1:
            raise MistError(f"model.k={self.k} finds nothing: give 1 or more")
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        for name in ("box_size", "patch_extent", "softmax_strength"):
            if not 0 < getattr(self, name) < math.inf:
                raise MistError(f"model.{name}={getattr(self, name)} must be a finite number above 0")
        rising = all(low < high for low, high in pairwise(self.scales))
        if not self.scales or not rising or not 0 < self.scales[0] or not self.scales[-1] < math.inf:
            raise MistError(f"model.scales={self.scales} must be finite numbers above 0 that rise, e.g. 1 1.4 2")
        for name in ("softmax_window", "nms_window"):
            if not 1 <= getattr(self, name) <= 255 or getattr(self, name) % 2 == 0:
                raise MistError(f"model.{name}={getattr(self, name)} must be odd, to have a centre: 1, 3, 5, ... 255")
        if not 0 <= self.patch_window < math.inf:
            raise MistError(f"model.patch_window={self.patch_window} must be a fraction of the patch, or 0 for none")
        if self.decoder < 0:
            raise MistError(f"model.decoder={self.decoder} must be a width of 1 or more, or 0 for no decoder")
        unit = self.encoder.patch_unit
        if self.patch_size < 1 or self.patch_size % unit:
            nearest = max(1, round(self.patch_size / unit)) * unit
            raise MistError(
                f"model.patch_size={self.patch_size} must be a multiple of {unit}, since the {self.encoder.network} "
                f"encoder halves patches: give e.g. {nearest}"
            )


class Found(NamedTuple):
    """What E_K returns, the highest response first.

    Attributes:
        keypoints: (batch, k, 3), x and y in pixels at pixel centres, and the scale.
        responses: (batch, k), the pooled heat map there.
    """

    keypoints: Tensor
    responses: Tensor


class MistOutput(NamedTuple):
    """Everything between an image and its objects.

    Attributes:
        heatmaps: (batch, scales, height, width), the h'_s of H_eta(I); their sum over scales is the heat map.
        keypoints: (batch, k, 3), E_K(h), x and y in pixels and the scale.
        responses: (batch, k), the heat map at the keypoints.
        patches: (batch, k, channels, size, size), S(I, x).
        logits: (batch, k, classes) or ``None``.
        decoded: (batch, k, channels, size, size) or ``None``.
        reconstruction: (batch, channels, height, width) or ``None``, the sum of S^-1 over the decoded patches.
    """

    heatmaps: Tensor
    keypoints: Tensor
    responses: Tensor
    patches: Tensor
    logits: Tensor | None
    decoded: Tensor | None
    reconstruction: Tensor | None


class Mist(nn.Module):
    """Finds K objects in an image and reads them, or explains the image as their sum.

    Reference: MIST (CVPR 2021), section 3 and figure 1.
    """

    def __init__(self, config: MistConfig) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = build_heatmap_network(config.channels, config.heatmap)
        self.task_network = TaskNetwork(
            config.channels,
            config.patch_size,
            len(config.class_names) + config.background,
            config.encoder,
            config.decoder,
            config.patch_window,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class; empty for a model without classes."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Whether it can draw an image again from its parts."""
        return self.config.decoder > 0

    @property
    def margin(self) -> int:
        """How many pixels around it the score of a pixel depends on."""
        return self.heatmap_network.margin

    @property
    def tileable(self) -> bool:
        """Whether tiles, overlapping by the margin, give exactly the scores of the whole image."""
        return not any(isinstance(module, nn.GroupNorm) for module in self.heatmap_network.modules())

    @property
    def zoom(self) -> float:
        """The factor by which ``prepare`` resizes images."""
        return self.config.preparation.zoom

    @property
    def threshold(self) -> float:
        """Where no K is told, boxes that score less are left out; 0 keeps all K."""
        return self.config.threshold

    @property
    def prepares(self) -> bool:
        """Whether ``prepare`` changes anything."""
        return self.config.preparation.changes

    def prepare(self, images: Tensor) -> Tensor:
        """Images as they come, (batch, channels, height, width) in [0, 1], to what all other methods take."""
        return prepare(images, self.config.preparation)

    def forward(self, images: Tensor, k: int | None = None) -> MistOutput:
        """Heat map, top-K, patches, task: no gradient passes from the task to the heat map (equation 1).

        Args:
            images: (batch, channels, height, width) in [0, 1]; any size.
            k: how many to extract; the K of the configuration if not given.
        """
        heatmaps = self.heatmaps(images)
        found = self.keypoints(heatmaps, k)
        patches = self.cut(images, found.keypoints)
        task = self.task_network(patches)
        reconstruction = None if task.decoded is None else self.rebuild(task.decoded, found.keypoints, images)
        return MistOutput(heatmaps, *found, patches, task.logits, task.decoded, reconstruction)

    def score_map(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to raw scores (batch, height, width), each from its neighbourhood only."""
        return self.heatmap_network(images)

    def heatmaps(self, images: Tensor, score_map: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """h = H_eta(I): (batch, channels, height, width) to the h'_s, (batch, scales, height, width), in [0, 1].

        Each scale sees the image resized by 1 / s with the same weights; its scores are resized back, sharpened by the
        local spatial softmax, and pooled over scales. With one scale there is nothing to pool.

        Args:
            images: in [0, 1].
            score_map: computes scores in place of ``self.score_map``, e.g. in tiles.

        Reference: MIST supplement, section A.
        """
        score_map = self.score_map if score_map is None else score_map
        config = self.config
        height, width = images.shape[-2:]
        sharpened = []
        for scale in config.scales:
            seen = _resize(images, max(1, round(height / scale)), max(1, round(width / scale)))  # I_s
            scores = _resize(score_map(seen).unsqueeze(1), height, width).squeeze(1)
            sharpened.append(local_spatial_softmax(scores, config.softmax_window, config.softmax_strength))
        heatmaps = torch.stack(sharpened, dim=1)
        return heatmaps if len(config.scales) == 1 else pool_scales(heatmaps)

    def heatmap(self, images: Tensor) -> Tensor:
        """The pooled heat map, (batch, height, width): the sum of the h'_s, in which keypoints are sought."""
        return self.heatmaps(images).sum(1)

    def keypoints(self, heatmaps: Tensor, k: int | None = None, inside: Tensor | None = None) -> Found:
        """E_K(h): the K best local maxima of the pooled heat map, each with its scale.

        Args:
            heatmaps: (batch, scales, height, width).
            k: how many; the K of the configuration if not given.
            inside: (batch, height, width), the pixels that may be chosen; all if not given.
        """
        best = top_k(heatmaps.sum(1), self.config.k if k is None else k, self.config.nms_window, inside)
        scales = scale_moment(heatmaps.detach(), best.points, self.config.scales)
        return Found(torch.cat((best.points, scales.unsqueeze(-1)), dim=-1), best.responses)

    def cut(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """S(I, x): the patches around the keypoints, (batch, k, channels, size, size)."""
        return extract_patches(images, self._squares(keypoints, self.config.patch_extent), self.config.patch_size)

    @torch.no_grad()
    def presence(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """How far each keypoint is an object for the task network: 1 - p(background), (batch, k).

        Raises:
            ValueError: if the model has no background class.
        """
        if not self.config.background:
            raise ValueError("this model has no background class: model.background=False")
        return 1 - self.task_network.classify(self.cut(images, keypoints)).softmax(-1)[..., -1]

    def rebuild(self, decoded: Tensor, keypoints: Tensor, images: Tensor) -> Tensor:
        """The sum over patches of S^-1(P, x), of the shape of the images (equation 8)."""
        largest = self.config.patch_extent * self.config.scales[-1]
        window = int(largest * (1 + 1 / self.config.patch_size)) + 2
        boxes = self._squares(keypoints, self.config.patch_extent)
        return place_patches(decoded, boxes, images.shape[-2], images.shape[-1], window)

    def reconstruct(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """The images explained by their parts: the sum over keypoints of S^-1 of the auto-encoded patch (equation 8).

        Raises:
            ValueError: if the model has no decoder.
        """
        decoded = self.task_network(self.cut(images, keypoints)).decoded
        if decoded is None:
            raise ValueError("this model has no decoder: model.decoder=0")
        return self.rebuild(decoded, keypoints, images)

    def boxes(self, keypoints: Tensor) -> Tensor:
        """(batch, k, 3) to the boxes around the keypoints, (batch, k, 4) in pixels."""
        return self._squares(keypoints, self.config.box_size)

    def keypoints_of(self, boxes: Tensor) -> Tensor:
        """(batch, k, 4) boxes back to their keypoints, (batch, k, 3)."""
        return torch.cat((boxes[..., :2], boxes[..., 2:3] / self.config.box_size), dim=-1)

    def _read(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """The logits of the patches around keypoints, a limited number of patches at once: K may be thousands."""
        some = max(1, PATCHES_AT_ONCE // len(images))
        return torch.cat([self.task_network.classify(self.cut(images, part)) for part in keypoints.split(some, 1)], 1)

    def _squares(self, keypoints: Tensor, side: float) -> Tensor:
        return boxes_at(keypoints[..., :2], side * keypoints[..., 2])

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """The K objects of each image and, with a decoder, the images redrawn from them."""
        heatmaps = self.heatmaps(images)
        rebuilt = self.reconstruct(images, self.keypoints(heatmaps, k).keypoints) if self.reconstructs else None
        return Explanation(self.detect_from_heatmaps(images, heatmaps, k), rebuilt)

    @torch.no_grad()
    def detect(self, images: Tensor, k: int | None = None) -> list[Detections]:
        """The K objects of each image, the best first.

        Args:
            images: (batch, channels, height, width) in [0, 1].
            k: how many; the K of the configuration if not given.
        """
        return self.detect_from_heatmaps(images, self.heatmaps(images), k)

    @torch.no_grad()
    def detect_from_heatmaps(self, images: Tensor, heatmaps: Tensor, k: int | None = None) -> list[Detections]:
        """As ``detect``, with the heat maps computed before; the score is response x probability of the class."""
        found = self.keypoints(heatmaps, k)
        boxes = self.boxes(found.keypoints)
        scores, labels = found.responses.clamp(0, 1), None
        if self.class_names:
            logits = self._read(images, found.keypoints)
            confidence, labels = logits.softmax(-1)[..., : len(self.class_names)].max(-1)
            scores = scores * confidence
        result = []
        for index in range(len(images)):
            order = scores[index].argsort(descending=True, stable=True)
            label = None if labels is None else labels[index, order]
            result.append(Detections(boxes[index, order], scores[index, order], label))
        return result


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Resizes (batch, channels, rows, columns) to height x width; antialiased where it shrinks."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=True)
