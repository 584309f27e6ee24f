"""Dense networks: a few layers, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def dense_network(
    inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with an activation between two of them; Glorot's uniform weights, biases 0.

    Args:
        inputs: numbers in.
        hidden: width of each hidden layer; none for a single linear layer.
        outputs: numbers out, without an activation.
        activation: module between two layers.
    """
    widths = (inputs, *hidden, outputs)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])
