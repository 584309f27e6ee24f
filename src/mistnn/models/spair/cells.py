"""Inference in a cell: z_where, z_what, z_depth and z_pres, in this order, given the image and the cells before."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mistnn.models.spair.config import KERNEL, LARGEST_DEVIATION, SpairConfig
from mistnn.models.spair.waves import neighbours_of, waves_of
from mistnn.nn.dense import dense_network
from mistnn.nn.latents import Normal, joined, normal
from mistnn.ops.priors import sample_concrete
from mistnn.ops.sampling import extract_patches

WHERE = 4
"""Length of z_where: x, y, width, height."""

LARGEST_LOGIT = 10.0
"""The logit of z_pres is clamped to plus and minus this. Not stated in the paper; value of the released code."""


class Latents(NamedTuple):
    """z of every cell, in reading order.

    Attributes:
        where: z_where before squashing: x, y, width, height.
        what: z_what.
        depth: z_depth, (batch, cells, 1); larger is further away.
        presence: z_pres, (batch, cells), in [0, 1].
        presence_logits: logit of beta_pres, (batch, cells).
        boxes: (batch, cells, 4), in pixels.
    """

    where: Normal
    what: Normal
    depth: Normal
    presence: Tensor
    presence_logits: Tensor
    boxes: Tensor


class Backbone(nn.Module):
    """Convolutions to one feature vector per cell, padded at the right and at the bottom only.

    Convention: a convolution of stride s and kernel 4 is padded by 4 - s, so the features of the cell that begins at
    pixel c depend on the pixels c to c + 21 in both directions, for any image size.

    Reference: SPAIR, supplement, D.2.
    """

    def __init__(self, config: SpairConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = config.channels
        for stride in config.strides:
            layers += [
                nn.ZeroPad2d((0, KERNEL - stride, 0, KERNEL - stride)),
                nn.Conv2d(inputs, config.width, KERNEL, stride),
                nn.ReLU(),
            ]
            inputs = config.width
        for outputs in (config.width, config.width, config.features):
            layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers[:-1])
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, cells, features), in reading order."""
        # A grey image has both memory formats at once, so the first layer doesn't choose the faster one by itself.
        first = self.layers[:2](images).contiguous(memory_format=torch.channels_last)
        return self.layers[2:](first).flatten(2).transpose(1, 2)


class Cells(nn.Module):
    """The networks of a cell, shared by all cells."""

    def __init__(self, config: SpairConfig) -> None:
        super().__init__()
        self.config = config
        what, extra = config.attributes, config.features
        self.element = WHERE + what + 2
        seen = config.features + len(neighbours_of(config.look_back)) * self.element
        glimpse = config.channels * config.object_size**2
        self.edge = nn.Parameter(torch.randn(self.element) * 0.1)
        self.box_network = dense_network(seen, config.hidden, 2 * WHERE + extra)
        nn.init.constant_(last_bias(self.box_network)[2:WHERE], config.first_side)
        self.object_encoder = dense_network(glimpse, config.encoder, 2 * what)
        share = config.first_deviation / LARGEST_DEVIATION
        nn.init.constant_(last_bias(self.object_encoder)[what:], math.log(share / (1 - share)))
        self.depth_network = dense_network(seen + extra + WHERE + what, config.hidden, 2 + extra)
        self.presence_network = dense_network(seen + extra + WHERE + what + 1, config.hidden, 1)
        nn.init.constant_(last_bias(self.presence_network), config.first_presence)

    def forward(self, images: Tensor, features: Tensor, held: bool = False) -> Latents:
        """The latents of all cells, wave by wave. ``held``: boxes, depths and presences get no gradient."""
        grid = self.config.grid(images.shape[-2], images.shape[-1])
        waves = waves_of(*grid, self.config.look_back)
        edge = torch.cat((self.edge[:WHERE].sigmoid(), self.edge[WHERE:-1], self.edge[-1:].sigmoid()))
        edge = edge.expand(len(images), 1, -1)
        elements: list[Tensor] = []
        parts: list[Latents] = []
        order = torch.tensor([cell for wave in waves.waves for cell in wave.cells], device=images.device)
        sizes = [len(wave.cells) for wave in waves.waves]
        sorted_features = features.index_select(1, order).split(sizes, dim=1)
        for wave, cells, own in zip(waves.waves, order.split(sizes), sorted_features, strict=True):
            known = torch.cat((edge, *elements[len(elements) - min(len(elements), waves.reach) :]), dim=1)
            near = torch.tensor(wave.context, dtype=torch.long, device=images.device)
            width = len(near) // len(cells) * known.shape[2]
            context = known.index_select(1, near).reshape(len(images), len(cells), width)
            latents, element = self.infer(images, own, context, cells, grid[1], held)
            parts.append(latents)
            elements.append(element)
        reading = torch.tensor(waves.reading, device=images.device)
        return joined(parts, lambda tensor: tensor.index_select(1, reading))

    def infer(
        self, images: Tensor, features: Tensor, context: Tensor, cells: Tensor, columns: int, held: bool = False
    ) -> tuple[Latents, Tensor]:
        """The latents of some cells, and the element that each cell passes to those after it.

        Args:
            features: (batch, m, features) of these cells.
            context: (batch, m, neighbours x element), the elements of the cells before them.
            cells: (m,), their indices in reading order.
            columns: number of columns of the grid.
            held: see ``forward``.
        """
        config, extra = self.config, self.config.features
        seen = torch.cat((features, context), dim=-1)

        box, passed = self.box_network(seen).split((2 * WHERE, extra), dim=-1)
        where = self.normal(box, held)
        squashed = where.sample.sigmoid()
        low, high = config.bounds
        places, sides = low + (high - low) * squashed[..., :2], squashed[..., 2:]
        corner = torch.stack((cells % columns, cells // columns), dim=-1).to(places.dtype)
        boxes = torch.cat(((places + corner) * config.cell, sides * config.base_box), dim=-1)
        shown_box = torch.cat((places, sides), dim=-1)

        glimpses = extract_patches(images, boxes, config.object_size).flatten(2)
        what = self.normal(self.object_encoder(glimpses))

        seen = torch.cat((seen, shown_box, what.sample), dim=-1)
        depth, passed = self.depth_network(torch.cat((seen, passed), dim=-1)).split((2, extra), dim=-1)
        depth = self.normal(depth, held)

        logits = self.presence_network(torch.cat((seen, passed, depth.sample), dim=-1)).squeeze(-1)
        logits = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        logits = logits.detach() if held else logits
        if self.training:
            presence = sample_concrete(logits, config.temperature).sigmoid()
        else:
            presence = (logits > 0).to(logits.dtype)
        element = torch.cat((shown_box, what.sample, depth.sample, presence.unsqueeze(-1)), dim=-1)
        return Latents(where, what, depth, presence, logits, boxes), element

    def normal(self, parameters: Tensor, held: bool = False) -> Normal:
        """Mean and logit to normal variables of deviation 2 sigmoid(logit); in eval mode the sample is the mean."""
        parameters = parameters.detach() if held else parameters
        mean, logit = parameters.chunk(2, dim=-1)
        return normal(mean, LARGEST_DEVIATION * logit.sigmoid(), self.training)


def last_bias(network: nn.Sequential) -> Tensor:
    """The bias of the last layer of a dense network."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    return last.bias
