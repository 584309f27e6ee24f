"""The MIST network: heat map, top-K, patches, task network (MIST, CVPR 2021, figure 1).

Convention: a keypoint x_k is (x, y, s): its position in pixels and its scale. The side of its box is s x ``box_size``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.mist.config import MistConfig
from mistnn.nn.finder import TiledFinder, WholeDetector, shared_k
from mistnn.nn.heatmap import build_heatmap_network
from mistnn.nn.preparation import prepare, whole
from mistnn.nn.task import TaskNetwork
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.heatmap import local_spatial_softmax, pool_scales, scale_moment
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.ops.topk import top_k
from mistnn.records import Batch, Detections, Explanation

PATCHES_AT_ONCE = 4096
"""The most patches classified at once in prediction: about 1 GiB for the small encoder."""


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
        keypoints: see ``Found``.
        responses: see ``Found``.
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


class Mist(TiledFinder):
    """Finds K objects in an image and classifies them, or reconstructs the image as their sum.

    Attributes:
        first_class: the entry at which classes begin in the weights where it is not the first one: nowhere.

    Reference: MIST (CVPR 2021), section 3 and figure 1.
    """

    first_class: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: MistConfig) -> None:
        super().__init__()
        self.config = config
        self.heatmap_network = build_heatmap_network(config.channels, config.heatmap)
        classes = len(config.class_names) + config.background
        self.task_network = TaskNetwork(
            config.channels, config.patch_size, classes, config.encoder, config.decoder, config.patch_window
        )

    @property
    def reconstructs(self) -> bool:
        """Whether the model has a decoder."""
        return self.config.decoder > 0

    @property
    def finds_sizes(self) -> bool:
        """Whether keypoints have one of several scales."""
        return len(self.config.scales) > 1

    @property
    def margin(self) -> int:
        """The distance in pixels up to which the score of a pixel depends on its surroundings."""
        return self.heatmap_network.margin

    @property
    def tiles_are_exact(self) -> bool:
        """Whether tiles that overlap by the margin give exactly the scores of the whole image."""
        return not any(isinstance(module, nn.GroupNorm) for module in self.heatmap_network.modules())

    @property
    def zoom(self) -> float:
        """The factor by which ``prepare`` resizes images."""
        return self.config.preparation.zoom

    @property
    def threshold(self) -> float:
        """Detections with lower scores are dropped where the user gives no K; 0 keeps all K."""
        return self.config.threshold

    @property
    def prepares(self) -> bool:
        """Whether ``prepare`` changes anything."""
        return self.config.preparation.changes

    def prepare(self, images: Tensor) -> Tensor:
        """The user's images, (batch, channels, height, width) in [0, 1], as the input of all other methods."""
        return prepare(images, self.config.preparation)

    def forward(self, images: Tensor, k: int | None = None) -> MistOutput:
        """Heat map, top-K, patches, task; no gradient passes from the task to the heat map (equation 1).

        Args:
            images: (batch, channels, height, width) in [0, 1], of any size.
            k: by default the K of the configuration.
        """
        heatmaps = self.heatmaps(images)
        found = self.keypoints(heatmaps, k)
        patches = self.cut(images, found.keypoints)
        task = self.task_network(patches)
        reconstruction = None if task.decoded is None else self.rebuild(task.decoded, found.keypoints, images)
        return MistOutput(heatmaps, *found, patches, task.logits, task.decoded, reconstruction)

    def score_map(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to raw scores (batch, height, width)."""
        return self.heatmap_network(images)

    def heatmaps(self, images: Tensor, score_map: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """h = H_eta(I): images to the h'_s, (batch, scales, height, width), in [0, 1]; see ``TiledFinder.heatmaps``.

        For each scale, the shared network scores the image resized by 1 / s. The scores are resized back, sharpened by
        the local spatial softmax, and pooled over the scales if there are several.

        Reference: MIST supplement, section A.
        """
        score_map = self.score_map if score_map is None else score_map
        config = self.config
        height, width = images.shape[-2:]
        sharpened = []
        for scale in config.scales:
            seen = (
                images if scale == 1 else _resize(images, *(whole(side, 1.0, scale) for side in (height, width)))
            )  # I_s
            scores = score_map(seen)
            scores = scores if scale == 1 else _resize(scores.unsqueeze(1), height, width).squeeze(1)
            sharpened.append(local_spatial_softmax(scores, config.softmax_window, config.softmax_strength))
        heatmaps = torch.stack(sharpened, dim=1)
        return heatmaps if len(config.scales) == 1 else pool_scales(heatmaps)

    def heatmap(self, images: Tensor) -> Tensor:
        """The pooled heat map, (batch, height, width): the sum of the h'_s, whose maxima are the keypoints."""
        return self.heatmaps(images).sum(1)

    def keypoints(self, heatmaps: Tensor, k: int | None = None, inside: Tensor | None = None) -> Found:
        """E_K(h): the K best local maxima of the pooled heat map, each with its scale.

        Args:
            heatmaps: (batch, scales, height, width).
            k: by default the K of the configuration.
            inside: (batch, height, width), the pixels that may be selected; by default all.
        """
        best = top_k(heatmaps.sum(1), self.config.k if k is None else k, self.config.nms_window, inside)
        scales = scale_moment(heatmaps.detach(), best.points, self.config.scales)
        return Found(torch.cat((best.points, scales.unsqueeze(-1)), dim=-1), best.responses)

    def cut(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """S(I, x): the patches around the keypoints, (batch, k, channels, size, size)."""
        return extract_patches(images, self._squares(keypoints, self.config.patch_extent), self.config.patch_size)

    def limits(self, keypoints: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The lowest and the highest keypoint (x, y, s): inside the images, between the smallest and the largest scale.

        Where images are padded, the highest is that of each image, (batch, 1, 3).
        """
        height, width = batch.images.shape[-2:]
        scales = self.config.scales
        low = keypoints.new_tensor((0.0, 0.0, scales[0]))
        high = keypoints.new_tensor((width, height, scales[-1]))
        if batch.sizes is not None:
            ends = batch.sizes.flip(1).to(keypoints)
            high = torch.cat((ends, high[2].expand(len(ends), 1)), dim=1).unsqueeze(1)
        return low, high

    @torch.no_grad()
    def presence(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """1 - p(background) of each keypoint, (batch, k); ``ValueError`` if the model has no background class."""
        if not self.config.background:
            raise ValueError("this model has no background class: model.background=False")
        return 1 - self.task_network.classify(self.cut(images, keypoints)).softmax(-1)[..., -1]

    def rebuild(self, decoded: Tensor, keypoints: Tensor, images: Tensor) -> Tensor:
        """The sum over patches of S^-1(P, x), in the shape of the images (equation 8)."""
        largest = self.config.patch_extent * self.config.scales[-1]
        window = int(largest * (1 + 1 / self.config.patch_size)) + 2
        boxes = self._squares(keypoints, self.config.patch_extent)
        return place_patches(decoded, boxes, images.shape[-2], images.shape[-1], window)

    def reconstruct(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """The images as a sum of parts: over the keypoints, S^-1 of the auto-encoded patch (equation 8).

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

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """The K best objects of each image and, with a decoder, the reconstructions; ``k`` is one for all images."""
        heatmaps, k = self.heatmaps(images), shared_k(k)
        rebuilt = self.reconstruct(images, self.keypoints(heatmaps, k).keypoints) if self.reconstructs else None
        return Explanation(self.detect_from_heatmaps(images, heatmaps, k), rebuilt)

    def reconstruct_from(self, images: Tensor, found: Sequence[Detections]) -> Tensor:
        """The images as a sum of parts, given the same number of detections in each; see ``reconstruct``."""
        boxes = torch.stack([one.boxes for one in found]).to(images.device)
        return self.reconstruct(images, self.keypoints_of(boxes))

    @torch.no_grad()
    def detect_from_heatmaps(self, images: Tensor, heatmaps: Tensor, k: int | None = None) -> list[Detections]:
        """As ``detect``, with heat maps that were computed before. Scores are response x class probability."""
        found = self.keypoints(heatmaps, k)
        boxes = self.boxes(found.keypoints)
        scores, labels = found.responses.clamp(0, 1), None
        if self.class_names:
            logits = self._classify(images, found.keypoints)
            confidence, labels = logits.softmax(-1)[..., : len(self.class_names)].max(-1)
            scores = scores * confidence
        result = []
        for index in range(len(images)):
            order = scores[index].argsort(descending=True, stable=True)
            label = None if labels is None else labels[index, order]
            result.append(Detections(boxes[index, order], scores[index, order], label))
        return result

    def for_export(self) -> WholeDetector:
        """See ``Finder.for_export``."""
        from mistnn.models.mist.whole import WholeMist  # it imports this module

        return WholeMist(self)

    def _classify(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """The logits of the patches around keypoints, a limited number at a time: K may be thousands."""
        some = max(1, PATCHES_AT_ONCE // len(images))
        return torch.cat([self.task_network.classify(self.cut(images, part)) for part in keypoints.split(some, 1)], 1)

    def _squares(self, keypoints: Tensor, side: float) -> Tensor:
        return boxes_at(keypoints[..., :2], side * keypoints[..., 2])


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Resizes (batch, channels, rows, columns) to height x width; antialiased where it shrinks."""
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=True)
