"""The differentiable renderer of SPAIR: objects with transparency and relative depth over a background.

Convention: see ``mistnn.ops.coordinates``. Row i, column j of an object's P x Q map is at the fraction
((j + 0.5) / Q, (i + 0.5) / P) of its box. A larger z_depth is farther away.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.ops.coordinates import corners_of
from mistnn.records import Boxes, Images

Importance = Literal["paper", "released"]
Edge = Literal["box", "fade"]

DEPTH_GAIN = 4.0
"""Factor on the depth weight in the released code."""

IMPORTANCE_FLOOR = 0.01
"""Smallest importance in the released code, also of absent or transparent objects."""

LEAST_SHARE = 1e8
"""A sum of importances below this multiple of the smallest normal number counts as 0: its gradients could overflow."""

GROWTH = 1.5
"""Objects are sampled in groups of similar size: about the largest ratio of window sides within a group."""


def importance_maps(
    alpha: Float[Tensor, "batch k 1 rows columns"],
    presence: Float[Tensor, "batch k"],
    depth: Float[Tensor, "batch k"],
    rule: Importance = "paper",
) -> Float[Tensor, "batch k 1 rows columns"]:
    """gamma: the weight of each pixel of an object among overlapping objects.

    Convention: "paper" is alpha z_pres sigmoid(-z_depth); "released" is max(4 alpha z_pres sigmoid(-z_depth), 0.01).
    The released code has +z_depth, so its depth increases towards the viewer; here, depth increases away from the
    viewer under both rules. alpha is the transparency, 1 for opaque, and z_pres the presence, both in [0, 1].

    Reference: SPAIR, supplement, C.
    """
    weight = (presence * torch.sigmoid(-depth))[..., None, None, None]
    if rule == "paper":
        return alpha * weight
    if rule == "released":
        return (DEPTH_GAIN * alpha * weight).clamp(min=IMPORTANCE_FLOOR)
    raise ValueError(f"the importance is 'paper' or 'released', got {rule!r}")


def render_objects(
    appearance: Float[Tensor, "batch k channels rows columns"],
    alpha: Float[Tensor, "batch k 1 rows columns"],
    boxes: Boxes,
    presence: Float[Tensor, "batch k"],
    depth: Float[Tensor, "batch k"],
    background: Images,
    importance: Importance = "paper",
    edge: Edge = "box",
) -> Images:
    """Algorithm 1: the objects of each image, mixed by importance over its background.

    Each object whose box contains a pixel contributes o' = alpha' o + (1 - alpha') x_bg, and the pixel is their mean,
    weighted by gamma'. It is computed in the equivalent form x_bg + sum gamma' alpha' (o - x_bg) / sum gamma'.

    Convention:
        * A box contains a pixel if the pixel's centre (x, y) has left <= x < right and top <= y < bottom.
        * A pixel without objects is background. A pixel with one object is its o' for any gamma', without division. A
          pixel with several objects whose gamma' are all 0 (0 / 0 in the paper) is background.
        * ``edge`` defines pixels within half a map pixel of the box's border, where bilinear interpolation lacks
          neighbours (not stated in the paper). "box" pads the map with its border values and ends at the box. "fade",
          as in the released code, extends an object half a map pixel beyond its box; missing neighbours have
          alpha = gamma = 0 and the colour of the background.
        * A box without area or outside the image contributes nothing. A box that is not finite gives NaN, which the
          loss then shows.

    Only pixels within reach of boxes are computed, for groups of objects of similar size, instead of a full canvas for
    each object. To know the sizes, this waits for the device.

    Args:
        appearance: colour maps o.
        alpha: transparency maps.
        boxes: in pixels of the background.
        presence: z_pres in [0, 1].
        depth: z_depth.
        background: x_bg, of the size of the result.
        importance: see ``importance_maps``.
        edge: see above.

    Returns:
        Like ``background``; differentiable in all tensors. Half precision is computed in float32 and returned in the
        input's dtype.

    Raises:
        ValueError: on shapes that don't fit, or an unknown ``importance`` or ``edge``.

    Reference: SPAIR, supplement, C, Algorithm 1.
    """
    _check(appearance, alpha, boxes, presence, depth, background)
    if edge not in ("box", "fade"):
        raise ValueError(f"the edge is 'box' or 'fade', got {edge!r}")
    kept, (channels, height, width) = background.dtype, background.shape[1:]
    work = torch.promote_types(kept, torch.float32)
    alpha, boxes, presence, depth = (part.to(work) for part in (alpha, boxes, presence, depth))
    gamma = importance_maps(alpha, presence, depth, importance)
    maps = torch.cat((appearance.to(work), alpha * presence[..., None, None, None], gamma), dim=2)
    if edge == "fade":
        maps = torch.cat((maps, torch.ones_like(alpha)), dim=2)
    maps, boxes = maps.flatten(0, 1), boxes.flatten(0, 1)
    image = torch.arange(len(background), device=boxes.device).repeat_interleave(presence.shape[1])
    parts = [
        _sample(maps[group], boxes[group], image[group], window, (height, width), edge)
        for group, window in _groups(boxes, maps.shape[-2:], (height, width), edge)
    ]
    values, inside, site = (torch.cat(part) for part in zip(*parts, strict=True))
    canvas = background.to(work)
    mixed, weight = _mix(values, inside, site, channels, canvas)
    return (canvas + mixed / torch.where(weight > LEAST_SHARE * torch.finfo(work).tiny, weight, 1)).to(kept)


def _footprints(boxes: Tensor, size: tuple[int, int] | torch.Size, edge: Edge) -> Tensor:
    """(objects, 4): left, top, right, bottom of each object's reach; a point for a box that is not finite."""
    grown = boxes
    if edge == "fade":
        grow = boxes.new_tensor((1 + 1 / size[1], 1 + 1 / size[0]))
        grown = torch.cat((boxes[:, :2], boxes[:, 2:] * grow), dim=1)
    finite = boxes.isfinite().all(1, keepdim=True)
    return corners_of(torch.where(finite, grown, 0.0))


def _groups(
    boxes: Tensor, size: tuple[int, int] | torch.Size, canvas: tuple[int, int], edge: Edge
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Visible objects, grouped by the size of their window: (their indices, the window's rows and columns)."""
    height, width = canvas
    reach = _footprints(boxes.detach(), size, edge)
    limit = reach.new_tensor((width, height))
    # Columns floor(left) .. floor(right), and rows likewise, within the image.
    first, last = reach[:, :2].floor().clamp(min=0), torch.minimum(reach[:, 2:].floor(), limit - 1)
    need = (last - first + 1).clamp(min=0)
    seen = (boxes[:, 2:] > 0).all(1) & (need > 0).all(1) | ~boxes.isfinite().all(1)
    columns, rows = need.clamp(min=1).long().cpu().unbind(1)
    index = seen.cpu().nonzero().squeeze(1)
    if not len(index):
        return [(index.to(boxes.device), (1, 1))]  # nothing visible: gradients are zero, not missing
    side = torch.maximum(rows, columns)
    groups = []
    while len(index):
        near = side[index] <= max(GROWTH * int(side[index].min()), 6.0)
        chosen, index = index[near], index[~near]
        groups.append((chosen.to(boxes.device), (int(rows[chosen].max()), int(columns[chosen].max()))))
    return groups


def _sample(
    maps: Tensor, boxes: Tensor, image: Tensor, window: tuple[int, int], canvas: tuple[int, int], edge: Edge
) -> tuple[Tensor, Tensor, Tensor]:
    """The maps at the pixels of a window around each box: values, whether the object reaches them, and their site."""
    (height, width), (rows, columns) = canvas, window
    reach = _footprints(boxes.detach(), maps.shape[-2:], edge)
    # At the border, windows are moved into the image; they still cover all visible pixels.
    left = reach[:, 0].floor().clamp(0, width - columns)
    top = reach[:, 1].floor().clamp(0, height - rows)
    column = left[:, None] + torch.arange(columns, device=boxes.device, dtype=boxes.dtype)
    row = top[:, None] + torch.arange(rows, device=boxes.device, dtype=boxes.dtype)
    corner, extent = corners_of(boxes), boxes[:, 2:].clamp(min=1e-6)
    u = (column + 0.5 - corner[:, 0, None]) / extent[:, 0, None] * 2 - 1
    v = (row + 0.5 - corner[:, 1, None]) / extent[:, 1, None] * 2 - 1
    across = _contains(column + 0.5, boxes, 0, edge, maps.shape[3])
    down = _contains(row + 0.5, boxes, 1, edge, maps.shape[2])
    shape = (len(boxes), rows, columns)
    grid = torch.stack((u[:, None, :].expand(shape), v[:, :, None].expand(shape)), dim=-1)
    padding = "border" if edge == "box" else "zeros"
    values = F.grid_sample(maps, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    broken = ~boxes.isfinite().all(1)
    values = values.masked_fill(broken[:, None, None, None], torch.nan)
    inside = down[:, :, None] & across[:, None, :] | broken[:, None, None]
    site = image[:, None, None] * (height * width) + row.long()[:, :, None] * width + column.long()[:, None, :]
    return values.permute(0, 2, 3, 1).flatten(0, 2), inside.flatten(), site.flatten()


def _contains(centre: Tensor, boxes: Tensor, axis: int, edge: Edge, size: int) -> Tensor:
    """Line 1: whether objects reach pixel centres along one axis, (objects, pixels)."""
    middle, extent = boxes[:, axis, None].detach(), boxes[:, axis + 2, None].detach()
    if edge == "box":
        return (centre >= middle - extent / 2) & (centre < middle + extent / 2)
    return (centre - middle).abs() < extent * (0.5 + 0.5 / size)


def _mix(values: Tensor, inside: Tensor, site: Tensor, channels: int, background: Tensor) -> tuple[Tensor, Tensor]:
    """sum gamma' alpha' (o - x_bg) and sum gamma' at each pixel, as images."""
    batch, _, height, width = background.shape
    # Drops pixels of a window outside the box.
    kept = inside.nonzero().squeeze(1)
    values, site = values[kept], site[kept]
    colour, alpha, gamma, whole = values.split((channels, 1, 1, values.shape[1] - channels - 2), dim=1)
    writers = torch.zeros(batch * height * width, device=site.device, dtype=values.dtype)
    writers.index_add_(0, site, torch.ones_like(values[:, 0]).detach())
    gamma = torch.where((writers[site] == 1)[:, None], 1.0, gamma)
    share = gamma * alpha
    # With faded edges, the missing part of the colour is the background's.
    part = share * whole if whole.shape[1] else share
    terms = torch.cat((share * colour, part, gamma), dim=1)
    sums = terms.new_zeros(batch * height * width, channels + 2).index_add(0, site, terms)
    pictures = sums.view(batch, height, width, channels + 2).permute(0, 3, 1, 2)
    total, covered, weight = pictures.split((channels, 1, 1), dim=1)
    return total - covered * background, weight


def _check(
    appearance: Tensor, alpha: Tensor, boxes: Tensor, presence: Tensor, depth: Tensor, background: Tensor
) -> None:
    if appearance.dim() != 5 or 0 in appearance.shape[2:]:
        raise ValueError(f"appearance must be (batch, k, channels, rows, columns), got {tuple(appearance.shape)}")
    batch, k, channels, rows, columns = appearance.shape
    wanted = {
        "alpha": (alpha, (batch, k, 1, rows, columns)),
        "boxes": (boxes, (batch, k, 4)),
        "presence": (presence, (batch, k)),
        "depth": (depth, (batch, k)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {shape} for this appearance, got {tuple(tensor.shape)}")
    if background.dim() != 4 or background.shape[:2] != (batch, channels):
        raise ValueError(
            f"the background must be ({batch}, {channels}, height, width) for these objects, "
            f"got {tuple(background.shape)}"
        )
