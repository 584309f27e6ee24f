"""The task network T_tau, which classifies and reconstructs patches, and its losses; shared by several systems."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.nn.blocks import gaussian_window
from mistnn.nn.encoders import EncoderConfig, build_decoder, build_encoder
from mistnn.ops.losses import class_proportion_loss, presence_loss, reconstruction_loss, with_background

PATCHES_ON_CPU, PATCHES_ON_GPU = 128, 2048
"""Patches that pass through a network at once: few enough for a processor's caches, and for memory at any K. Patches
are independent, so results are the same."""


class TaskOutput(NamedTuple):
    """The task network's result for patches.

    Attributes:
        logits: (batch, k, classes), or ``None`` without classes.
        decoded: (batch, k, channels, size, size), or ``None`` without a decoder.
    """

    logits: Tensor | None
    decoded: Tensor | None


class TaskNetwork(nn.Module):
    """T_tau, shared by all patches: an encoder, and a dense layer to the classes, a decoder, or both, on its code.

    Args:
        channels: of the patches.
        patch_size: their side in pixels.
        classes: number of classes; 0 for no classifier.
        encoder: its configuration.
        decoder: width of the decoder; 0 for none.
        patch_window: standard deviation of a Gaussian window on the patch, as a fraction of its side; 0 for none.

    Reference: MIST supplement, section C.1; both heads on one code are our addition.
    """

    window: Tensor

    def __init__(
        self,
        channels: int,
        patch_size: int,
        classes: int,
        encoder: EncoderConfig,
        decoder: int,
        patch_window: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(channels, patch_size, encoder)
        code = self.encoder.code_size
        self.head = nn.Linear(code, classes) if classes else None
        self.decoder = build_decoder(code, channels, patch_size, encoder.network, decoder) if decoder else None
        window = gaussian_window(patch_size, patch_window) if patch_window else torch.ones(1, 1)
        self.register_buffer("window", window, persistent=False)

    def forward(self, patches: Tensor, decode: bool = True) -> TaskOutput:
        """(batch, k, channels, size, size) to logits and, with ``decode``, decoded patches."""
        code = self._encode(patches)
        logits = None if self.head is None else self.head(code.relu()).unflatten(0, patches.shape[:2])
        decoded = None
        if self.decoder is not None and decode:
            decoded = _in_parts(self.decoder, code).unflatten(0, patches.shape[:2])
        return TaskOutput(logits, decoded)

    def classify(self, patches: Tensor) -> Tensor:
        """(batch, k, channels, size, size) to logits (batch, k, classes)."""
        if self.head is None:
            raise ValueError("this model has no classes")
        return self.head(self._encode(patches).relu()).unflatten(0, patches.shape[:2])

    def _encode(self, patches: Tensor) -> Tensor:
        return _in_parts(self.encoder, (patches * self.window).flatten(0, 1))


def _in_parts(network: nn.Module, values: Tensor) -> Tensor:
    """Applies a network to a limited number of rows at a time."""
    if values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    most = PATCHES_ON_CPU if values.device.type == "cpu" else PATCHES_ON_GPU
    if len(values) <= most:
        return network(values)
    return torch.cat([network(part) for part in values.split(most)])


def required(counts: Tensor | None) -> Tensor:
    """The class counts of a batch; ``MistError`` if there are none."""
    if counts is None:
        raise MistError("this model has classes: its training images need class counts, and these have none")
    return counts


def counted_loss(logits: Tensor, counts: Tensor | None, background: bool = False) -> Tensor:
    """Equation 9 of each image: (batch, k, classes) logits against (batch, classes) counts.

    With a background, the logits have one more class, the last. Images without counts raise ``MistError``.
    """
    counts = required(counts)
    if background:
        counts = with_background(counts, logits.shape[1])
    return class_proportion_loss(F.softmax(logits, -1), counts)


def count_or_presence_loss(
    logits: Tensor, counts: Tensor | None, presence: Tensor | None, background: bool = False
) -> Tensor:
    """``counted_loss`` of each image or, without counts, ``presence_loss`` of (batch, classes) presence."""
    if counts is None and presence is not None:
        return presence_loss(F.softmax(logits, -1), presence)
    return counted_loss(logits, counts, background)


def relative_reconstruction_loss(images: Tensor, rebuilt: Tensor) -> Tensor:
    """Equation 8 of each image divided by the image's energy, so that bright and dark images have equal weight."""
    energy = images.square().flatten(1).sum(1).clamp(min=1.0)
    return reconstruction_loss(images, rebuilt) / energy
