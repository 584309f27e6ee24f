"""The differentiable renderer of SPAIR: objects with transparency and relative depth over a background.

Convention: see ``mistnn.ops.coordinates``. Row i, column j of an object's P x Q map is at the fraction
((j + 0.5) / Q, (i + 0.5) / P) of its box. A larger z_depth is farther away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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

GROUP_PIXELS = {"cpu": 1 << 14}
"""What one more group of objects costs, in pixels of windows, by the type of device (measured on a Zen 4 processor)."""
GROUP_PIXELS_ELSEWHERE = 1 << 20


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
    maps, boxes = maps.flatten(0, 1), boxes.flatten(0, 1)
    image = torch.arange(len(background), device=boxes.device).repeat_interleave(presence.shape[1])
    parts = [
        _sample(maps[group], boxes[group], image[group], window, (height, width), edge)
        for group, window in _groups(boxes, maps.shape[-2:], (height, width), edge)
    ]
    canvas = background.to(work)
    mixed, weight = _mix(parts, channels, canvas)
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
    sides = torch.stack((rows, columns), dim=1).numpy()
    spare = GROUP_PIXELS.get(boxes.device.type, GROUP_PIXELS_ELSEWHERE)
    groups = []
    for group in _split(index.numpy(), sides, spare):
        tallest, widest = sides[group].max(0).tolist()
        groups.append((torch.from_numpy(group).to(boxes.device), (tallest, widest)))
    return groups


def _split(group: np.ndarray, sides: np.ndarray, spare: int) -> list[np.ndarray]:
    """Splits a group of objects, by height or width, as long as this saves more pixels of windows than ``spare``.

    Each object of a group has a window of the largest height and the largest width of the group.
    """
    own = sides[group]
    best, parts = len(group) * int(own.max(0).prod()) - spare, None
    if best <= 0:
        return [group]
    for axis in (0, 1):
        order = np.argsort(own[:, axis], kind="stable")
        ranked = own[order]
        before = np.maximum.accumulate(ranked, axis=0)[:-1].prod(1) * np.arange(1, len(group))
        after = np.maximum.accumulate(ranked[::-1], axis=0)[::-1][1:].prod(1) * np.arange(len(group) - 1, 0, -1)
        costs = before + after
        if len(costs) and costs.min() < best:
            place = int(costs.argmin()) + 1
            best, parts = int(costs.min()), (group[order[:place]], group[order[place:]])
    return [group] if parts is None else [*_split(parts[0], sides, spare), *_split(parts[1], sides, spare)]


class _Window(NamedTuple):
    """The maps of some objects at the pixels of a window around each.

    Attributes:
        values: (objects, rows, maps, columns).
        whole: (objects, rows, columns), the share of each pixel's neighbours that the maps have; ``None`` if all.
        inside: (objects, rows, columns), whether the object reaches the pixel.
        site: (objects, rows, columns), the pixel's place among those of all images.
    """

    values: Tensor
    whole: Tensor | None
    inside: Tensor
    site: Tensor


def _sample(
    maps: Tensor, boxes: Tensor, image: Tensor, window: tuple[int, int], canvas: tuple[int, int], edge: Edge
) -> _Window:
    """Samples the maps of some objects in windows of one size.

    Bilinear interpolation at a grid is two products of matrices: from map rows to window rows, then for columns.
    """
    (height, width), (rows, columns) = canvas, window
    reach = _footprints(boxes.detach(), maps.shape[-2:], edge)
    # At the border, windows are moved into the image; they still cover all visible pixels.
    left = reach[:, 0].floor().clamp(0, width - columns)
    top = reach[:, 1].floor().clamp(0, height - rows)
    column = left[:, None] + torch.arange(columns, device=boxes.device, dtype=boxes.dtype)
    row = top[:, None] + torch.arange(rows, device=boxes.device, dtype=boxes.dtype)
    down = _interpolation(row + 0.5, boxes, 1, maps.shape[2], edge)
    across = _interpolation(column + 0.5, boxes, 0, maps.shape[3], edge)
    broken = ~boxes.isfinite().all(1)
    down = down.masked_fill(broken[:, None, None], torch.nan)
    count, kinds, side = maps.shape[:3]
    by_rows = torch.bmm(down, maps.transpose(1, 2).flatten(2))
    values = torch.bmm(by_rows.view(count, rows * kinds, maps.shape[3]), across.transpose(1, 2))
    values = values.view(count, rows, kinds, columns)
    whole = down.sum(2)[:, :, None] * across.sum(2)[:, None, :] if edge == "fade" else None
    reaches = _contains(row + 0.5, boxes, 1, edge, side)[:, :, None]
    inside = reaches & _contains(column + 0.5, boxes, 0, edge, maps.shape[3])[:, None, :] | broken[:, None, None]
    site = image[:, None, None] * (height * width) + row.long()[:, :, None] * width + column.long()[:, None, :]
    return _Window(values, whole, inside, site)


def _interpolation(centre: Tensor, boxes: Tensor, axis: int, size: int, edge: Edge) -> Tensor:
    """The weights of a map's pixels at pixel centres along one axis, (objects, pixels, size)."""
    middle, extent = boxes[:, axis, None], boxes[:, axis + 2, None]
    place = (centre - (middle - extent / 2)) / extent.clamp(min=1e-6) * size - 0.5
    if edge == "box":
        place = place.clamp(0, size - 1)
    pixels = torch.arange(size, device=boxes.device, dtype=boxes.dtype)
    return (1 - (place[:, :, None] - pixels).abs()).clamp(min=0)


def _contains(centre: Tensor, boxes: Tensor, axis: int, edge: Edge, size: int) -> Tensor:
    """Line 1: whether objects reach pixel centres along one axis, (objects, pixels)."""
    middle, extent = boxes[:, axis, None].detach(), boxes[:, axis + 2, None].detach()
    if edge == "box":
        return (centre >= middle - extent / 2) & (centre < middle + extent / 2)
    return (centre - middle).abs() < extent * (0.5 + 0.5 / size)


def _mix(windows: Sequence[_Window], channels: int, background: Tensor) -> tuple[Tensor, Tensor]:
    """sum gamma' alpha' (o - x_bg) and sum gamma' at each pixel, as images."""
    batch, _, height, width = background.shape
    pixels = batch * height * width
    writers = background.new_zeros(pixels)
    for window in windows:
        writers.index_add_(0, window.site.flatten(), window.inside.flatten().to(writers.dtype))
    sums = [background.new_zeros(pixels) for _ in range(channels + 2)]
    for values, whole, inside, site in windows:
        *colours, alpha, gamma = values.unbind(2)
        site = site.flatten()
        lone = writers.index_select(0, site).view(inside.shape) == 1
        # A lone object counts fully; the pixels of a window that its object doesn't reach count nothing.
        gamma = torch.where(lone, 1.0, gamma).where(inside, 0.0)
        share = gamma * alpha
        # With faded edges, the missing part of the colour is the background's.
        part = share if whole is None else share * whole
        for total, term in zip(sums, (*(share * colour for colour in colours), part, gamma), strict=True):
            total.index_add_(0, site, term.flatten())
    pictures = torch.stack(sums).view(channels + 2, batch, height, width).transpose(0, 1)
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
