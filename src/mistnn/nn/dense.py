"""Multi-layer perceptrons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def dense_network(
    inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with activations between them; initial weights are Glorot uniform, biases 0."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs, *hidden, outputs)):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])
