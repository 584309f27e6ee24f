"""An hourglass network: convolutions down to a coarse resolution and up again, with a skip at each resolution."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class Hourglass(nn.Module):
    """Halves the resolution once for each width after the first, then restores it, adding the skip at each level.

    Images may have any size. The border is replicated up to a multiple of ``2 ** (levels - 1)`` pixels, and the result
    is cropped.

    Args:
        inputs: channels of the input.
        outputs: channels of the output, from a 1x1 convolution without normalisation.
        widths: channels at each resolution, finest first.

    Reference: Newell et al. (2016); layout of the 80 x 80 networks of Zhang et al. (2018).
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.entry = _convolution(inputs, widths[0])
        self.down = nn.ModuleList(_convolution(fine, coarse, stride=2) for fine, coarse in itertools.pairwise(widths))
        self.skips = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.up = nn.ModuleList(_convolution(coarse, fine) for fine, coarse in itertools.pairwise(widths))
        self.exit = nn.Conv2d(widths[0], outputs, 1)
        self.unit = 2 ** (len(widths) - 1)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        height, width = features.shape[-2:]
        padding = (0, -width % self.unit, 0, -height % self.unit)
        hidden = self.entry(F.pad(features, padding, mode="replicate"))
        skipped = []
        for down, skip in zip(self.down, self.skips, strict=True):
            skipped.append(skip(hidden))
            hidden = down(hidden)
        for up, kept in zip(reversed(self.up), reversed(skipped), strict=True):
            hidden = up(F.interpolate(hidden, scale_factor=2.0, mode="nearest")) + kept
        out: Tensor = self.exit(hidden)
        return out[..., :height, :width]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
    )
