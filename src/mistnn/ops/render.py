"""The differentiable renderer of SPAIR: objects with transparency and relative depth over a background.

Convention: see ``mistnn.ops.coordinates``. Row i, column j of an object's P x Q map is at the fraction
((j + 0.5) / Q, (i + 0.5) / P) of its box. A larger z_depth is farther away.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

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

LEAST_EXTENT = 1e-6
"""Boxes narrower than this are drawn as wide, in pixels."""

GROUP_PIXELS = {"cpu": 1 << 15}
"""What one more group of objects costs, in pixels of windows, by the type of device (measured on a Zen 5 processor)."""
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
    parts = [appearance.to(work), alpha * presence[..., None, None, None]]
    near = torch.sigmoid(-depth).flatten() if importance == "paper" else None  # gamma' = near alpha'
    if near is None:
        parts.append(importance_maps(alpha, presence, depth, importance))
    maps = torch.cat(parts, dim=2)
    lone = _lone(boxes, maps.shape[-2:], (height, width), edge)
    maps, boxes = maps.flatten(0, 1), boxes.flatten(0, 1)
    image = torch.arange(len(background), device=boxes.device).repeat_interleave(presence.shape[1])
    windows: list[_Window] = []
    weights: list[Tensor] = []
    for group, window in _groups(boxes, maps.shape[-2:], (height, width), edge):
        place, down, across = _place(group, boxes[group], image[group], window, maps.shape[-2:], (height, width), edge)
        windows.append(place)
        weights += (down, across)
    sums: Tensor = _Mixed.apply(maps, windows, lone, near, *weights)
    pictures = sums.view(channels + 2, len(background), height, width).transpose(0, 1)
    total, covered, weight = pictures.split((channels, 1, 1), dim=1)
    canvas = background.to(work)
    mixed = total - covered * canvas
    return (canvas + mixed / torch.where(weight > LEAST_SHARE * torch.finfo(work).tiny, weight, 1)).to(kept)


def _lone(boxes: Tensor, size: torch.Size, canvas: tuple[int, int], edge: Edge) -> Tensor:
    """(pixels of all images,): whether exactly one object reaches the pixel; ``boxes`` are (batch, k, 4).

    The number of boxes that reach a pixel is one product of matrices for each image: a box reaches rows and columns.
    """
    flat, reaches = boxes.detach().flatten(0, 1), []
    for axis, length in ((1, canvas[0]), (0, canvas[1])):
        centre = torch.arange(length, device=boxes.device, dtype=boxes.dtype) + 0.5
        inside = _contains(centre[None], flat, axis, edge, size[1 - axis])
        reaches.append(inside.to(boxes.dtype).view(*boxes.shape[:2], length))
    rows, columns = reaches
    return (torch.bmm(rows.transpose(1, 2), columns) == 1).flatten()


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
    """Windows of one size around some objects.

    Attributes:
        group: (objects,), which objects.
        rows: (objects, rows), 1 where the object reaches the row and 0 elsewhere.
        columns: (objects, columns), the same.
        site: (objects x rows x columns,), each pixel's place among those of all images.
        fade: whether the part of a pixel's neighbours that a map lacks is background.
    """

    group: Tensor
    rows: Tensor
    columns: Tensor
    site: Tensor
    fade: bool


def _place(
    group: Tensor,
    boxes: Tensor,
    image: Tensor,
    window: tuple[int, int],
    size: torch.Size,
    canvas: tuple[int, int],
    edge: Edge,
) -> tuple[_Window, Tensor, Tensor]:
    """A window of one size for each of some objects, and the weights of interpolation from maps to it.

    Bilinear interpolation at a grid is two products of matrices, for rows and for columns. The weights are 0 where the
    object doesn't reach.
    """
    (height, width), (rows, columns) = canvas, window
    reach = _footprints(boxes.detach(), size, edge)
    # At the border, windows are moved into the image; they still cover all visible pixels.
    left = reach[:, 0].floor().clamp(0, width - columns)
    top = reach[:, 1].floor().clamp(0, height - rows)
    column = left[:, None] + torch.arange(columns, device=boxes.device, dtype=boxes.dtype)
    row = top[:, None] + torch.arange(rows, device=boxes.device, dtype=boxes.dtype)
    broken = ~boxes.isfinite().all(1, keepdim=True)
    within = [
        _contains(centre + 0.5, boxes, axis, edge, size[1 - axis]) | broken for centre, axis in ((row, 1), (column, 0))
    ]
    down, across = (
        _Interpolation.apply(centre + 0.5, *boxes[:, axis::2, None].unbind(1), side, edge == "box", reached)
        for centre, axis, side, reached in ((row, 1, size[0], within[0]), (column, 0, size[1], within[1]))
    )
    place = (image[:, None] * (height * width) + row.long() * width)[:, :, None] + column.long()[:, None, :]
    by_row, by_column = (side.to(boxes.dtype) for side in within)
    return _Window(group, by_row, by_column, place.flatten(), edge == "fade"), down, across


class _Mixed(torch.autograd.Function):
    """The maps at the pixels of windows, mixed: sums over the objects at each pixel of all images.

    Args of ``apply``:
        maps: (objects, channels + 1 or 2, rows, columns): colours, alpha', and gamma' unless ``near`` gives it.
        windows: of all objects that are visible.
        lone: see ``_lone``.
        near: (objects,), gamma' / alpha' of each object, or ``None``.
        weights: for each window those of rows and of columns, (objects, pixels, map pixels).

    Returns:
        (channels + 2, pixels): sum gamma' alpha' o for each channel, sum gamma' alpha' w with the share w of a pixel's
        neighbours that the map has, and sum gamma'. A lone object counts fully: its gamma' is 1.

    Autograd keeps a plane of all windows for each operation on pixels. Here, the planes of the maps and two more are
    kept, and each is contiguous.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, windows: list[_Window], lone: Tensor, near: Tensor | None, *weights: Tensor
    ) -> Tensor:
        kinds, channels = maps.shape[1], maps.shape[1] - (2 if near is None else 1)
        sums = maps.new_zeros(channels + 2, len(lone))
        kept: list[Tensor] = []
        for window, down, across in zip(windows, weights[::2], weights[1::2], strict=True):
            chosen = maps.index_select(0, window.group)
            wide = torch.bmm(chosen.flatten(1, 2), across.transpose(1, 2)).unflatten(1, chosen.shape[1:3])
            planes = maps.new_empty(kinds, len(chosen), down.shape[1], across.shape[1])
            for kind in range(kinds):
                torch.bmm(down, wide[:, kind], out=planes[kind])
            alpha = planes[channels]
            mixing = planes[-1] if near is None else alpha * near[window.group, None, None]
            alone = lone.index_select(0, window.site).view(alpha.shape)
            gamma = torch.where(alone, _outer(window.rows, window.columns), mixing)
            share = gamma * alpha
            for channel in range(channels):
                sums[channel].index_add_(0, window.site, (share * planes[channel]).flatten())
            # With faded edges, the missing part of the colour is the background's.
            part = share.mul_(_outer(down.sum(2), across.sum(2))) if window.fade else share
            sums[-2].index_add_(0, window.site, part.flatten())
            sums[-1].index_add_(0, window.site, gamma.flatten())
            kept += (chosen, wide, planes, alone, gamma)
        ctx.windows, ctx.size, ctx.near = windows, maps.shape, near is not None
        ctx.save_for_backward(*weights, *kept, *([] if near is None else [near]))
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of the maps, of ``near`` and of the weights."""
        given, windows = gradients[0], ctx.windows
        weights, kept = ctx.saved_tensors[: 2 * len(windows)], ctx.saved_tensors[2 * len(windows) :]
        near = kept[-1] if ctx.near else None
        of_near = None if near is None else torch.zeros_like(near)
        of_maps = given.new_zeros(ctx.size)
        of_weights: list[Tensor] = []
        for index, window in enumerate(windows):
            down, across = weights[2 * index : 2 * index + 2]
            chosen, wide, planes, alone, gamma = kept[5 * index : 5 * index + 5]
            moved, whole, mixing = _pixel_gradients(given, window, planes, alone, gamma, down, across, ctx.near)
            if near is not None and of_near is not None:
                alpha = planes[-1]
                of_near.index_copy_(0, window.group, (mixing * alpha).sum((1, 2)))
                moved[-1].addcmul_(mixing, near[window.group, None, None])
            of_down = torch.bmm(moved[0], wide[:, 0].transpose(1, 2))
            of_wide = torch.empty_like(wide)
            of_wide[:, 0] = torch.bmm(down.transpose(1, 2), moved[0])
            for kind in range(1, len(moved)):
                of_down.baddbmm_(moved[kind], wide[:, kind].transpose(1, 2))
                of_wide[:, kind] = torch.bmm(down.transpose(1, 2), moved[kind])
            joined, flat = of_wide.flatten(1, 2), chosen.flatten(1, 2)
            of_maps.index_copy_(0, window.group, torch.bmm(joined, across).view(chosen.shape))
            of_across = torch.bmm(joined.transpose(1, 2), flat)
            if whole is not None:
                of_down += torch.bmm(whole, across.sum(2)[:, :, None])
                of_across += torch.bmm(whole.transpose(1, 2), down.sum(2)[:, :, None])
            of_weights += (of_down, of_across)
        return of_maps, None, None, of_near, *of_weights


def _pixel_gradients(
    given: Tensor,
    window: _Window,
    planes: Tensor,
    alone: Tensor,
    gamma: Tensor,
    down: Tensor,
    across: Tensor,
    near: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of the planes, of the share of neighbours that a map has, and of gamma'; see ``_Mixed``.

    Without ``near``, gamma' is the last of the planes, and its gradient is among theirs.
    """
    *of_colours, of_part, of_gamma = (row.index_select(0, window.site).view(gamma.shape) for row in given)
    channels = len(of_colours)
    alpha, moved = planes[channels], torch.empty_like(planes)
    share = gamma * alpha
    of_share, whole = of_part, None
    if window.fade:
        whole = share * of_part
        of_share = of_part.mul_(_outer(down.sum(2), across.sum(2)))
    for colour, own, result in zip(planes, of_colours, moved, strict=False):
        torch.mul(share, own, out=result)
        of_share.addcmul_(colour, own)
    torch.mul(of_share, gamma, out=moved[channels])
    of_gamma = of_gamma.addcmul_(of_share, alpha).masked_fill_(alone, 0)
    if not near:
        moved[-1] = of_gamma
    return moved, whole, of_gamma


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, :, None] * columns[:, None, :]


class _Interpolation(torch.autograd.Function):
    """The weights of a map's pixels at pixel centres along one axis; autograd would keep six tensors of this size.

    Args of ``apply``:
        centre: (objects, pixels), of pixels of the image.
        middle, extent: (objects, 1), of the boxes.
        size: pixels of a map.
        ends: whether pixels beyond the outer ones of the map have the weights of these.
        reached: (objects, pixels), the pixels with weights; all others have 0. A box that is not finite has NaN.

    Returns:
        (objects, pixels, size).
    """

    @staticmethod
    def forward(
        ctx: Any, centre: Tensor, middle: Tensor, extent: Tensor, size: int, ends: bool, reached: Tensor
    ) -> Tensor:
        finite = (middle + extent).isfinite()
        extent = extent.clamp(min=LEAST_EXTENT)
        place = (centre - middle + extent / 2) / extent * size - 0.5
        kept = place.clamp(0, size - 1) if ends else place
        pixels = torch.arange(size, device=place.device, dtype=place.dtype)
        weights = (kept[:, :, None] - pixels).abs_().neg_().add_(1).clamp_(min=0)
        weights.masked_fill_(~reached[:, :, None], 0)
        weights.masked_fill_(~finite[:, :, None], torch.nan)
        ctx.save_for_backward(place, kept, extent, reached, pixels)
        ctx.ends = ends
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of middle and extent."""
        place, kept, extent, reached, pixels = ctx.saved_tensors
        apart = pixels - kept[:, :, None]
        near = (apart.abs() <= 1) & reached[:, :, None]  # at 1 the slope is that of the inner side
        moved = apart.sign_().mul_(near).mul_(gradients[0]).sum(2)
        if ctx.ends:
            moved = moved * (place == kept)
        size = len(pixels)
        of_extent = (moved * (size / 2 - place - 0.5)).sum(1, keepdim=True) / extent
        return None, moved.sum(1, keepdim=True) * (-size / extent), of_extent, None, None, None


def _contains(centre: Tensor, boxes: Tensor, axis: int, edge: Edge, size: int) -> Tensor:
    """Line 1: whether objects reach pixel centres along one axis, (objects, pixels)."""
    middle, extent = boxes[:, axis, None].detach(), boxes[:, axis + 2, None].detach()
    if edge == "box":
        return (centre >= middle - extent / 2) & (centre < middle + extent / 2)
    return (centre - middle).abs() < extent * (0.5 + 0.5 / size)


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
