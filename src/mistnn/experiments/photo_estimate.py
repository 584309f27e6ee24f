"""Estimates how well the objects in photographs can be counted, before anything is trained.

A ridge regression predicts the number of objects from the means of pretrained features over the image. Its error on
images that it was not fitted to is a first estimate of what training reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.data.folder.images import FolderImage, evenly, load_image
from mistnn.nn.preparation import PreparationConfig, prepare
from mistnn.nn.pyramid import Pyramid, PyramidConfig

IMAGES = 96
"""Images that are used, evenly spaced (our choice)."""
FEWEST = 8
"""With fewer images there is no estimate (our choice)."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the ridge regression; the one with the smallest squared error is chosen (our choice)."""
LITTLE = 0.9
"""If the error is a larger share of that of guessing the mean, the counts are named as hard to learn (our choice)."""


class CountEstimate(NamedTuple):
    """What to expect of counting.

    Attributes:
        error: mean absolute error of the number of objects in an image that was left out.
        guess: that of always guessing the mean of the other images.
        images: from which both were estimated.
    """

    error: float
    guess: float
    images: int

    @property
    def reason(self) -> str:
        """As a line of a plan."""
        said = (
            f"expect an error of about {self.error:.2g} objects in an image; guessing the mean errs by "
            f"{self.guess:.2g} (cross-validation of a simple model on {self.images} training images)"
        )
        if self.error < LITTLE * self.guess:
            return said
        return f"{said}. The images say little about these counts: check the counts, or give more images"


def count_estimate(
    images: Sequence[FolderImage], preparation: PreparationConfig, network: PyramidConfig
) -> CountEstimate | None:
    """Leave-one-out error of counting by ridge regression; ``None`` for too few images or equal counts."""
    known = evenly([image for image in images if image.counts is not None], IMAGES)
    counts = torch.tensor([float(sum(image.counts or ())) for image in known], dtype=torch.float64)
    if len(known) < FEWEST or float(counts.std()) == 0:
        return None
    pyramid = Pyramid(network)
    pyramid.load_pretrained()
    means = []
    for image in known:
        maps = pyramid.unpack(pyramid(prepare(load_image(image, 3)[None], preparation)))
        means.append(torch.cat([one.mean((0, 2, 3)) for one in maps]))
    errors = left_out_errors(torch.stack(means).double(), counts)
    number = len(counts)
    guess = (counts - counts.mean()).abs().mean() * number / (number - 1)
    return CountEstimate(float(errors.abs().mean()), float(guess), number)


def left_out_errors(
    inputs: Float[Tensor, "images channels"], outputs: Float[Tensor, " images"]
) -> Float[Tensor, " images"]:
    """The error of each image by ridge regression on the others, for the penalty with the least squared error.

    The error of leaving out image i is that of the fit to all images divided by 1 - h_i, where h_i is its leverage:
    element i of the diagonal of the matrix that maps outputs to fitted values. The intercept is not penalised.
    """
    number = len(outputs)
    normal = (inputs - inputs.mean(0)) / inputs.std(0).clamp(min=1e-6)
    kernel = normal @ normal.T / normal.shape[1]
    best: Tensor | None = None
    for penalty in PENALTIES:
        fitted = kernel @ torch.linalg.inv(kernel + penalty * torch.eye(number, dtype=kernel.dtype))
        errors = (outputs - outputs.mean() - fitted @ (outputs - outputs.mean())) / (1 - 1 / number - fitted.diagonal())
        if best is None or float(errors.square().sum()) < float(best.square().sum()):
            best = errors
    assert best is not None
    return best
