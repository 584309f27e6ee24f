"""Finds out whether photographs have an upper side, before anything is trained.

Photographs of the world look alike in a mirror, but not upside down. Photographs through a microscope, or of a table,
look alike either way. The lens and the camera may leave traces by which a photograph can be told from its mirror image
too. So the two are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.data.folder.images import FolderImage, evenly, load_image
from mistnn.nn.preparation import PreparationConfig, prepare
from mistnn.nn.pyramid import COARSEST, Pyramid, PyramidConfig

IMAGES = 64
"""Images that are compared, evenly spaced (our choice)."""
FEWEST = 16
"""Fewer images don't suffice for a comparison (our choice)."""
FOLDS, PENALTY = 8, 1.0
"""Of the cross-validated ridge regression (our choice)."""
MARGIN = 3.0
"""The difference of the two shares in their standard errors above which images have an upper side (our choice)."""


def are_upright(images: Sequence[FolderImage], preparation: PreparationConfig, network: PyramidConfig) -> bool:
    """Whether images have an upper side; ``False`` if there are too few to tell."""
    known = evenly(images, IMAGES)
    if len(known) < FEWEST:
        return False
    pyramid = Pyramid(network)
    pyramid.load_pretrained()
    prepared = [_middle(prepare(load_image(image, 3)[None], preparation)) for image in known]
    plain = _means(pyramid, prepared)
    upside_down = told_apart(plain, _means(pyramid, [image.flip(-2) for image in prepared]))
    mirrored = told_apart(plain, _means(pyramid, [image.flip(-1) for image in prepared]))
    return upside_down - mirrored > MARGIN * 0.5 / math.sqrt(len(known))


def told_apart(one: Float[Tensor, "images channels"], other: Float[Tensor, "images channels"]) -> float:
    """How often a linear model tells the features of an image from those of its changed version: 0.5 by chance.

    The model has seen neither of the two: both versions of an image are left out together.
    """
    features = torch.cat((one, other))
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    signs = torch.cat((features.new_ones(len(one)), -features.new_ones(len(other))))
    fold = (torch.arange(len(one)) % FOLDS).repeat(2)
    kernel = features @ features.T / features.shape[1]
    right = 0
    for number in range(FOLDS):
        seen, left = fold != number, fold == number
        inner = kernel[seen][:, seen]
        weights = torch.linalg.solve(inner + PENALTY * torch.eye(len(inner), dtype=inner.dtype), signs[seen])
        right += int((kernel[left][:, seen] @ weights * signs[left] > 0).sum())
    return right / len(signs)


def _middle(image: Tensor) -> Tensor:
    """The square in the middle, of whole cells, so that no padding tells one version from the other."""
    height, width = image.shape[-2:]
    side = max(1, min(height, width) // COARSEST) * COARSEST
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return image[..., top : top + side, left : left + side]


def _means(pyramid: Pyramid, images: Sequence[Tensor]) -> Tensor:
    """The mean features of each image, (images, channels)."""
    means = []
    for image in images:
        maps = pyramid.unpack(pyramid(image))
        means.append(torch.cat([one.mean((0, 2, 3)) for one in maps]))
    return torch.stack(means).double()
