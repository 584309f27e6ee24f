"""SPAIR's renderer, which draws in windows, against the plain way with a full canvas for each object.

    python -m benchmarks.render [--json FILE] [--threads N] [--repeats N] [--batch 32]

Contract:
    * Forward and backward of one sum over the picture, in float32, on the same objects: 14 x 14 maps, one for each cell
      of 12 x 12 pixels, so 4 x 4 objects at 48 x 48 and 7 x 7 at 84 x 84. Both ways give the same picture and
      gradients, which is checked before the timing.
    * Sides of boxes: "digits", 14 pixels as the digits of the paper's scenes; "prior", 48 sigmoid(N(-2.2, 0.5)), the
      paper's prior, mostly a few pixels; "start", 48 sigmoid(N(0, 1)), as of an untrained network.
    * The plain way is Algorithm 1 with its loop over pixels vectorised and its loop over objects kept.
    * ``memory_ratio`` compares the bytes that autograd keeps for the backward pass.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import Options, alternate, milliseconds, print_and_write
from mistnn.ops.coordinates import corners_of
from mistnn.ops.render import importance_maps, render_objects

CELL, BASE, OBJECT = 12, 48, 14
"""Sides in pixels of a cell, of the base box and of an object's map: SPAIR, supplement, table 1."""

SIDES = ("digits", "prior", "start")
Way = Callable[..., Tensor]


def objects(canvas: int, sides: str, batch: int) -> list[Tensor]:
    """The arguments of both renderers, with gradients."""
    random = torch.Generator().manual_seed(0)
    cells = canvas // CELL
    corner = torch.cartesian_prod(torch.arange(cells), torch.arange(cells)).flip(1) * float(CELL)
    centre = corner + CELL * torch.rand(batch, cells**2, 2, generator=random)
    noise = torch.randn(batch, cells**2, 2, generator=random)
    prior, start = BASE * (0.5 * noise - 2.2).sigmoid(), BASE * noise.sigmoid()
    size = {"digits": 0 * noise + OBJECT, "prior": prior, "start": start}
    maps = torch.rand(batch, cells**2, 2, OBJECT, OBJECT, generator=random)
    parts = [
        maps[:, :, :1],
        maps[:, :, 1:],
        torch.cat((centre, size[sides]), dim=-1),
        torch.rand(batch, cells**2, generator=random),
        torch.randn(batch, cells**2, generator=random),
        torch.rand(batch, 1, canvas, canvas, generator=random),
    ]
    return [part.clone().requires_grad_() for part in parts]


def plain(
    appearance: Tensor, alpha: Tensor, boxes: Tensor, presence: Tensor, depth: Tensor, background: Tensor
) -> Tensor:
    """Algorithm 1, each object on its own canvas; the arguments of ``render_objects``."""
    gamma = importance_maps(alpha, presence, depth)
    maps = torch.cat((appearance, alpha * presence[..., None, None, None], gamma), dim=2)
    return draw_on_canvases(maps.unbind(1), boxes, background)


def draw_on_canvases(maps: Sequence[Tensor], boxes: Tensor, background: Tensor, fade: bool = False) -> Tensor:
    """Draws objects one by one on whole images.

    Args:
        maps: of each object (batch, colours + alpha + importance, rows, columns).
        boxes: (batch, objects, 4).
        background: (batch, colours, height, width).
        fade: objects fade over half a map pixel beyond their box, as in ``render_objects``.
    """
    height, width = background.shape[2:]
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    writes, total, normaliser, last = 0.0, 0.0, 0.0, background
    for k, parts in enumerate(maps):
        left, top, right, bottom = (corners_of(boxes[:, k])[:, side, None] for side in range(4))
        u, v = (x - left) / (right - left) * 2 - 1, (y - top) / (bottom - top) * 2 - 1
        shape = (len(boxes), height, width)
        grid = torch.stack((u[:, None, :].expand(shape), v[:, :, None].expand(shape)), dim=-1)
        covered = torch.cat((parts, torch.ones_like(parts[:, :1])), dim=1)
        values = F.grid_sample(covered, grid, padding_mode="zeros" if fade else "border", align_corners=False)
        colour, a, g, whole = values.split((background.shape[1], 1, 1, 1), dim=1)
        if fade:
            reach = 1 + 1 / parts.shape[-1]
            rows, columns = v.abs() < reach, u.abs() < reach
        else:
            rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        mixed = a * (colour + (1 - whole) * background) + (1 - a) * background
        writes = writes + inside.float()
        total = total + torch.where(inside, g * mixed, 0)
        normaliser = normaliser + torch.where(inside, g, 0)
        last = torch.where(inside, mixed, last)
    several = torch.where(normaliser > 0, total / torch.where(normaliser > 0, normaliser, 1), background)
    return torch.where(writes == 1, last, several)


def kept_mib(way: Way, given: Sequence[Tensor]) -> float:
    """What autograd keeps for the backward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _picture = way(*given)  # alive, so that no storage is used twice
    return sum(storages.values()) / 2**20


def measure(canvas: int, sides: str, batch: int, repeats: int) -> dict[str, float]:
    """Both ways at one size of canvas and one kind of boxes."""
    given = objects(canvas, sides, batch)
    weight = torch.rand(batch, 1, canvas, canvas, generator=torch.Generator().manual_seed(1))
    ways = {"plain": plain, "windows": render_objects}
    found = {name: torch.autograd.grad((way(*given) * weight).sum(), given) for name, way in ways.items()}
    torch.testing.assert_close(plain(*given), render_objects(*given), atol=1e-4, rtol=0)
    for one, other in zip(found["plain"], found["windows"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(one.abs().max()), rtol=0)
    kept = {name: kept_mib(way, given) for name, way in ways.items()}

    def both(way: Way, _: int) -> None:
        torch.autograd.grad((way(*given) * weight).sum(), given)

    found = milliseconds(alternate({name: partial(both, way) for name, way in ways.items()}, repeats))
    found |= {f"{name}_kept_mib": size for name, size in kept.items()}
    return {"ratio": found["plain_ms"] / found["windows_ms"], "memory_ratio": kept["plain"] / kept["windows"]} | found


def main() -> None:
    options = Options(__doc__)
    options.size("canvas", (48, 84), (24,), "sides of the images in pixels")
    options.size("batch", 32, 2, "images per round")
    options.size("repeats", 7, 1, "measured rounds")
    given = options.parse()
    result = {
        str(canvas): {sides: measure(canvas, sides, given.batch, given.repeats) for sides in SIDES}
        for canvas in given.canvas
    }
    print_and_write(result, given, "batch", "repeats", "threads")


if __name__ == "__main__":
    main()
