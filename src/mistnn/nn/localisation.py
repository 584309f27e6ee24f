"""The localisation networks of the spatial transformers' supplement, which choose the transform of each image."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mistnn.errors import MistError


class FullyConnectedLocalisation(nn.Module):
    """The localisation network of ST-FCN: dense layers with ReLU, then the parameters.

    Args:
        inputs: size of a feature map, channels x rows x columns.
        outputs: number of parameters.
        units: of each hidden layer (32: supplement, section 1.3).
        layers: number of hidden layers (3: same section).
    """

    def __init__(self, inputs: int, outputs: int, units: int = 32, layers: int = 3) -> None:
        super().__init__()
        if min(inputs, outputs, units) < 1 or layers < 0:
            raise MistError(
                f"inputs={inputs}, outputs={outputs} and units={units} must be 1 or more, and layers={layers} 0 or more"
            )
        self.inputs, sizes = inputs, [inputs, *[units] * layers]
        hidden: list[nn.Module] = []
        for before, after in pairwise(sizes):
            hidden += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, outputs); another size raises ``MistError``."""
        if (count := features.shape[1:].numel()) != self.inputs:
            shape = tuple(features.shape[1:])
            raise MistError(f"this localisation network takes {self.inputs} inputs, got {shape}: give inputs={count}")
        return self.layers(features)


class ConvolutionalLocalisation(nn.Module):
    """The localisation network of ST-CNN: two convolutions on the input at half size, pooling between, a dense layer.

    The width of 20 filters and 20 units, filters of 5 x 5 without padding and 2 x 2 pooling are the paper's. It does
    not state how the input is halved; here by averages, as the paper's output for RTS and TC.

    Args:
        channels: of the feature map.
        size: its rows and columns, 28 or more.
        outputs: number of parameters.
        width: filters of each convolution, and units of the dense layer.

    Reference: supplement, section 1.3.
    """

    kernel = 5

    def __init__(self, channels: int, size: tuple[int, int], outputs: int, width: int = 20) -> None:
        super().__init__()
        cut = self.kernel - 1
        rows, columns = ((side // 2 - cut) // 2 - cut for side in size)
        if min(rows, columns) < 1:
            raise MistError(
                f"a map of {size[0]} x {size[1]} is too small for the convolutional localisation network: give 28 x 28 "
                "or more, or use FullyConnectedLocalisation"
            )
        self.reads = (channels, *size)
        self.layers = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, width, self.kernel),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, self.kernel),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(width * rows * columns, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, outputs); another size raises ``MistError``."""
        if features.shape[1:] != self.reads:
            shape = tuple(features.shape[1:])
            raise MistError(f"this localisation network takes maps of {self.reads}, got {shape}: crop the images")
        return self.layers(features)
