"""The classifiers of digits: FCN and CNN, with or without spatial transformers in front."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mistnn.models.stn.classifier import Classified, Classifier, initialise
from mistnn.models.stn.config import FIRST_KERNEL, POOL, SECOND_KERNEL, StnConfig
from mistnn.models.stn.fourier_convolution import FourierConvolution
from mistnn.nn.blocks import PooledConvolution, halve
from mistnn.nn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation
from mistnn.nn.spatial_transformer import ParallelTransformers, SpatialTransformer, Warp


class StnClassifier(Classifier):
    """FCN, CNN, ST-FCN or ST-CNN (S003, sections 1.1 and 1.3); also the encoder of co-localisation."""

    def __init__(self, config: StnConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.side, config.width
        self.transformers = None
        if config.transformers:
            localisations = [_localisation(config) for _ in range(config.transformers)]
            self.transformers = ParallelTransformers(
                [SpatialTransformer(network, config.transform, (side, side)) for network in localisations]
            )
        channels = config.channels * max(1, config.transformers)
        if config.network == "fcn":
            seen = channels * config.seen_side**2
            self.first: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(seen, width), nn.ReLU())
            self.second: nn.Module = nn.Sequential(nn.Linear(width, width), nn.ReLU())
            self.last: nn.Module = nn.Linear(width, config.classes)
        else:
            # ReLU and max-pooling commute; pooling first leaves a quarter of the values for the ReLU.
            self.first = nn.Sequential(PooledConvolution(channels, width, FIRST_KERNEL), nn.ReLU())
            self.second = nn.Sequential(FourierConvolution(width, width, SECOND_KERNEL), nn.MaxPool2d(POOL), nn.ReLU())
            self.last = nn.Sequential(nn.Flatten(), nn.Linear(width * config.map_side**2, config.classes))
        for part in (self.first, self.second, self.last):
            initialise(part)

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last for a CNN."""
        return torch.channels_last if self.config.network == "cnn" else torch.contiguous_format

    def forward(self, images: Tensor) -> Classified:
        """See ``Classifier.forward``."""
        self.check_images(images, self.config.channels)
        warps, seen = self.look(images)
        first = self.first(seen)
        second = self.second(first)
        return Classified(self.last(second), warps, (first, second))

    def look(self, images: Tensor) -> tuple[tuple[Warp, ...], Tensor]:
        """The result of each transformer, and the classifier's input."""
        if self.transformers is None:
            return (), images
        warps = self.transformers.warps(images)
        seen = torch.cat([warp.features for warp in warps], dim=1)
        return warps, halve(seen) if self.config.halve else seen


def _localisation(config: StnConfig) -> nn.Module:
    outputs = config.transform.parameters
    if config.network == "fcn":
        return initialise(FullyConnectedLocalisation(config.channels * config.side**2, outputs))
    return initialise(ConvolutionalLocalisation(config.channels, (config.side, config.side), outputs))
