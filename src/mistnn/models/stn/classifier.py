"""The interface of all classifiers of the paper: of distorted digits, house numbers and birds."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.nn.spatial_transformer import Warp
from mistnn.records import Batch


class Classified(NamedTuple):
    """The output of a classifier.

    Attributes:
        logits: (batch, classes); of a reader of numbers (batch, places, classes).
        warps: the result of each spatial transformer.
        hidden: the activations of the two hidden layers of an FCN or CNN, after pooling; empty for other networks.
    """

    logits: Tensor
    warps: tuple[Warp, ...]
    hidden: tuple[Tensor, ...] = ()


class Classifier(nn.Module, abc.ABC):
    """A network that classifies whole images, perhaps through spatial transformers."""

    config: Any

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Classified:
        """Classifies images, (batch, channels, side, side); another size raises ``MistError``."""

    def check_images(self, images: Tensor, channels: int) -> None:
        """Checks that images are (batch, channels, side, side)."""
        side = self.config.side
        if images.dim() != 4 or images.shape[1:] != (channels, side, side):
            raise MistError(
                f"this network takes images of (batch, {channels}, {side}, {side}), got {tuple(images.shape)}: crop or "
                "pad them"
            )

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights in which training is fastest."""
        return torch.channels_last

    def target(self, batch: Batch) -> Tensor:
        """The true class of each image, (batch,): its digit, the sum of its digits, or its bird.

        Convention: the class of a digit is its value, so the sum of counts times class indices covers all three.
        """
        assert batch.counts is not None
        # Not a matrix product, which CUDA doesn't have for integers.
        return (batch.counts * torch.arange(batch.counts.shape[1], device=batch.counts.device)).sum(1)

    def measure(self, batch: Batch, views: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compares predictions with the true classes.

        With ``views``, (batch, views, channels, side, side), the class probabilities of several crops of each image are
        averaged (S003, section 1.5); they replace ``batch.images``.

        Returns:
            (batch,), whether an image is misclassified; and (batch, transformers), the share of samples that each
            transformer takes outside the image.
        """
        done = self(batch.images if views is None else views.flatten(0, 1))
        shares = [warp.outside for warp in done.warps]
        outside = torch.stack(shares, 1) if shares else done.logits.new_zeros(len(done.logits), 0)
        scores = done.logits
        if views is not None:
            scores = scores.float().softmax(-1).unflatten(0, views.shape[:2]).mean(1)
            outside = outside.unflatten(0, views.shape[:2]).mean(1)
        return wrong(scores, self.target(batch)), outside


def wrong(scores: Tensor, target: Tensor) -> Tensor:
    """Whether an image is misclassified, (batch,): for a number, whether any of its places is.

    Convention: scores are (batch, classes) or (batch, places, classes); targets lack the last dimension.
    """
    return (scores.argmax(-1) != target).reshape(len(target), -1).any(1)


def initialise(network: nn.Module) -> nn.Module:
    """Sets weights that preserve the scale of activations (He et al., 2015); the paper says "randomly"."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(part.numel() for part in network.parameters() if part.requires_grad)
