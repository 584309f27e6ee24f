"""Inference in a cell: z_where, z_what, z_depth and z_pres, in this order, given the image and the cells before."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.spair.config import KERNEL, LARGEST_DEVIATION, SpairConfig
from mistnn.models.spair.waves import neighbours_of, waves_of
from mistnn.nn.dense import dense_network
from mistnn.nn.latents import Normal, joined, normal
from mistnn.nn.mixed_precision import Precision, computed_dtype
from mistnn.ops.priors import sample_concrete

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
        seen = self.seen = config.features + len(neighbours_of(config.look_back)) * self.element
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

    def forward(
        self, images: Tensor, features: Tensor, held: bool = False, precision: Precision = "float32"
    ) -> Latents:
        """The latents of all cells, wave by wave.

        Args:
            images: (batch, channels, height, width).
            features: (batch, cells, features), of the backbone.
            held: boxes, depths and presences get no gradient.
            precision: precision of the object encoder.
        """
        grid = self.config.grid(images.shape[-2], images.shape[-1])
        waves = waves_of(*grid, self.config.look_back)
        edge = torch.cat((self.edge[:WHERE].sigmoid(), self.edge[WHERE:-1], self.edge[-1:].sigmoid()))
        edge = edge.expand(len(images), 1, -1)
        elements: list[Tensor] = []
        parts: list[Latents] = []
        order = torch.tensor([cell for wave in waves.waves for cell in wave.cells], device=images.device)
        sizes = [len(wave.cells) for wave in waves.waves]
        firsts = _Firsts(self, features.shape[2])
        encoder = _Encoder(self.object_encoder, computed_dtype(precision, images.device))
        begun = firsts.own(features).index_select(1, order).split(sizes, dim=1)
        places = _Places(self.config, images, grid[1])
        corners = places.corners(order).split(sizes)
        for wave, own, corner in zip(waves.waves, begun, corners, strict=True):
            known = torch.cat((edge, *elements[len(elements) - min(len(elements), waves.reach) :]), dim=1)
            near = torch.tensor(wave.context, dtype=torch.long, device=images.device)
            width = len(near) // len(wave.cells) * known.shape[2]
            context = known.index_select(1, near).reshape(len(images), len(wave.cells), width)
            latents, element = self.infer(firsts, encoder, places, own, context, corner, held)
            parts.append(latents)
            elements.append(element)
        reading = torch.tensor(waves.reading, device=images.device)
        return joined(parts, lambda tensor: tensor.index_select(1, reading))

    def infer(
        self,
        firsts: _Firsts,
        encoder: _Encoder,
        places: _Places,
        own: Tensor,
        context: Tensor,
        corner: Tensor,
        held: bool = False,
    ) -> tuple[Latents, Tensor]:
        """The latents of some cells, and the element that each cell passes to those after it.

        Args:
            firsts: the first layers of the networks.
            encoder: the object encoder.
            places: the geometry of the cells, with the images.
            own: (batch, m, ...), of these cells, see ``_Firsts.own``.
            context: (batch, m, neighbours x element), the elements of the cells before them.
            corner: (m, 4), see ``_Places.corners``.
            held: see ``forward``.
        """
        extra = self.config.features
        of_box, of_depth, of_presence = firsts.begin(own, context)

        box, passed = _rest(self.box_network, of_box).split((2 * WHERE, extra), dim=-1)
        where = self.normal(box, held)
        shown_box, boxes = places.boxes(where.sample, corner)
        what = self.normal(encoder(places.glimpses(boxes)))

        own_depth = firsts.add_depth(of_depth, torch.cat((shown_box, what.sample, passed), dim=-1))
        depth, passed = _rest(self.depth_network, own_depth).split((2, extra), dim=-1)
        depth = self.normal(depth, held)

        seen = torch.cat((shown_box, what.sample, passed, depth.sample), dim=-1)
        logits = _rest(self.presence_network, firsts.add_presence(of_presence, seen)).squeeze(-1)
        logits = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        logits = logits.detach() if held else logits
        if self.training:
            presence = sample_concrete(logits, self.config.temperature).sigmoid()
        else:
            presence = (logits > 0).to(logits.dtype)
        element = torch.cat((shown_box, what.sample, depth.sample, presence.unsqueeze(-1)), dim=-1)
        return Latents(where, what, depth, presence, logits, boxes), element

    def normal(self, parameters: Tensor, held: bool = False) -> Normal:
        """Mean and logit to normal variables of deviation 2 sigmoid(logit); in eval mode the sample is the mean."""
        parameters = parameters.detach() if held else parameters
        mean, logit = parameters.chunk(2, dim=-1)
        return normal(mean, LARGEST_DEVIATION * logit.sigmoid(), self.training)


class _Firsts:
    """The first layers of the networks for box, depth and presence, taken apart by what they see.

    All three see the cell's features, which are known for all cells at once, and the elements of the cells before it.
    Only the rest must wait for the wave.
    """

    def __init__(self, cells: Cells, features: int) -> None:
        layers = [_first(net) for net in (cells.box_network, cells.depth_network, cells.presence_network)]
        seen = cells.seen
        self._widths = [layer.out_features for layer in layers]
        self._own = torch.cat([layer.weight[:, :features] for layer in layers])
        self._bias = torch.cat([layer.bias for layer in layers])
        self._near = torch.cat([layer.weight[:, features:seen] for layer in layers])
        self._depth, self._presence = layers[1].weight[:, seen:], layers[2].weight[:, seen:]

    def own(self, features: Tensor) -> Tensor:
        """What the three layers make of the features of all cells, (batch, cells, ...)."""
        return F.linear(features, self._own, self._bias)

    def begin(self, own: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """The sums of the three layers so far, for some cells: that of the box is complete."""
        return (own + F.linear(context, self._near) if context.shape[-1] else own).split(self._widths, dim=-1)

    def add_depth(self, begun: Tensor, more: Tensor) -> Tensor:
        """Adds what else the network for depth sees."""
        return begun + F.linear(more, self._depth)

    def add_presence(self, begun: Tensor, more: Tensor) -> Tensor:
        """Adds what else the network for presence sees."""
        return begun + F.linear(more, self._presence)


class _Encoder:
    """The object encoder in a dtype; its weights are converted once for all waves. Results are in float32."""

    def __init__(self, network: nn.Sequential, dtype: torch.dtype) -> None:
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._layers = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in layers]
        self._dtype = dtype

    def __call__(self, glimpses: Tensor) -> Tensor:
        """(batch, m, pixels) to (batch, m, 2 A)."""
        (weight, bias), *others = self._layers
        values = F.linear(glimpses.to(self._dtype), weight, bias)
        for weight, bias in others:
            values = F.linear(values.relu(), weight, bias)
        return values.float()


def _first(network: nn.Sequential) -> nn.Linear:
    first = network[0]
    assert isinstance(first, nn.Linear)
    return first


def _rest(network: nn.Sequential, values: Tensor) -> Tensor:
    """The network after its first layer."""
    for layer in list(network)[1:]:
        values = layer(values)
    return values


class _Places:
    """From z_where to boxes and glimpses: linear maps, each in one operation.

    The glimpses are those of ``ops.sampling.extract_patches``; the border of the images is added only once.
    """

    def __init__(self, config: SpairConfig, images: Tensor, columns: int) -> None:
        low, high = config.bounds
        self._columns, self._size = columns, config.object_size
        self._scale = images.new_tensor((high - low, high - low, 1, 1))
        self._shift = images.new_tensor((low, low, 0, 0))
        self._unit = images.new_tensor((config.cell, config.cell, config.base_box, config.base_box))
        self._padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        size, (height, width) = config.object_size, self._padded.shape[-2:]
        fraction = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size - 0.5
        rows = torch.zeros(4, size, size, 2, device=images.device, dtype=images.dtype)
        rows[0, ..., 0], rows[1, ..., 1] = 2 / width, 2 / height
        rows[2, ..., 0], rows[3, ..., 1] = fraction * (2 / width), fraction[:, None] * (2 / height)
        self._to_grid = rows.flatten(1)
        start = torch.empty(size, size, 2, device=images.device, dtype=images.dtype)
        start[..., 0], start[..., 1] = 2 / width - 1, 2 / height - 1
        self._start = start.flatten()

    def corners(self, cells: Tensor) -> Tensor:
        """(m,) cells in reading order to (m, 4): x and y of the upper left corner in pixels, 0, 0."""
        none = torch.zeros_like(cells)
        return torch.stack((cells % self._columns, cells // self._columns, none, none), dim=1) * self._unit

    def boxes(self, where: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
        """z_where to boxes as other cells see them, in shares of the cell and of the base box; and to pixels."""
        shown = torch.addcmul(self._shift, where.sigmoid(), self._scale)
        return shown, torch.addcmul(corner, shown, self._unit)

    def glimpses(self, boxes: Tensor) -> Tensor:
        """(batch, m, 4) boxes to (batch, m, channels x size x size)."""
        batch, count = boxes.shape[:2]
        grid = torch.addmm(self._start, boxes.flatten(0, 1), self._to_grid)
        grid = grid.view(batch, count * self._size, self._size, 2)
        seen = F.grid_sample(self._padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return seen.unflatten(2, (count, self._size)).transpose(1, 2).flatten(2)


def last_bias(network: nn.Sequential) -> Tensor:
    """The bias of the last layer of a dense network."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    return last.bias
