"""Local maxima of maps with classes: selection under given numbers, and the Gaussians that a map learns at them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def select_peaks(
    response: Float[Tensor, "classes rows columns"],
    numbers: Sequence[int] | int,
    window: int,
    apart: float,
    inside: Bool[Tensor, "rows columns"] | None = None,
    bonus: Float[Tensor, "classes ranks"] | None = None,
) -> tuple[Tensor, Tensor]:
    """Local maxima of maps of several classes, best first, no two in one place.

    Peaks are taken in the order of their response, plus the bonus of their class and rank. A peak is left out if its
    class has its number already, or if it is closer than ``apart`` to a peak taken before, of whatever class.

    Convention: a plateau, cells of exactly equal maxima that touch each other (also by a corner), is one peak: its
    first cell in reading order that is ``inside``. Equal maxima that don't touch are peaks of their own.

    Args:
        response: one map per class.
        numbers: how many of each class; or how many in all.
        window: side in cells of the window of non-maximum suppression within a class, odd.
        apart: the smallest distance in cells between peaks of different classes.
        inside: the cells that may be selected; by default all.
        bonus: of the best peak of each class, the second best, ...; falling. Peaks beyond the last have the last one.

    Returns:
        (found, 3): class, row and column of each, integers; and (found,), their responses without bonus. Fewer than
        asked for where the maps have fewer maxima.
    """
    classes, rows, columns = response.shape
    quotas = [numbers] * classes if isinstance(numbers, int) else list(numbers)
    rest = numbers if isinstance(numbers, int) else sum(quotas)
    highest = F.max_pool2d(response[None], window, 1, window // 2)[0]
    allowed = response >= highest if inside is None else (response >= highest) & inside
    allowed = _first_of_plateaus(allowed) if window > 1 else allowed  # without a window, every cell is a maximum
    scores = torch.where(allowed, response, -torch.inf).flatten(1)
    # One class needs no more candidates than objects; of several, some may lie in the same place.
    wanted = [min(rows * columns, quota if classes == 1 else 2 * quota + 3) if quota else 0 for quota in quotas]
    found = scores.topk(max(wanted, default=0), dim=1)
    values, places = found.values.cpu().numpy(), found.indices.cpu().numpy()
    gains = values if bonus is None else values + _bonuses(bonus, values.shape[1])
    candidates = [(gains[c, i], c, places[c, i], values[c, i]) for c in range(classes) for i in range(wanted[c])]
    candidates = sorted((one for one in candidates if one[0] > -np.inf), key=lambda one: (-one[0], one[1], one[2]))
    taken = np.empty((rest, 3), dtype=np.int64)
    scored, count = np.empty(rest, dtype=values.dtype), 0
    for _, label, place, value in candidates:
        if count == rest:
            break
        if quotas[label] == 0:
            continue
        here = np.array((label, place // columns, place % columns))
        if classes > 1 and count and ((taken[:count, 1:] - here[1:]) ** 2).sum(1).min() < apart**2:
            continue
        taken[count], scored[count], count = here, value, count + 1
        if not isinstance(numbers, int):
            quotas[label] -= 1
    return torch.from_numpy(taken[:count]), torch.from_numpy(scored[:count])


def refined_peaks(response: Float[Tensor, "maps rows columns"], places: Tensor) -> Float[Tensor, "found 2"]:
    """The centres of peaks in cells, x and y: the mean of the response over the 3 x 3 cells around each.

    Convention: the middle of the first cell is (0.5, 0.5).

    Args:
        response: not negative.
        places: (found, 3), map, row and column of each peak, integers.
    """
    padded = F.pad(response, (1, 1, 1, 1))
    index, rows, columns = places.unbind(1)
    shifts = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], device=response.device)
    near = padded[index[:, None], rows[:, None] + 1 + shifts[:, 0], columns[:, None] + 1 + shifts[:, 1]]
    weights = near / near.sum(1, keepdim=True).clamp(min=1e-12)
    offsets = weights @ shifts.to(weights.dtype)
    return torch.stack((columns + 0.5 + offsets[:, 1], rows + 0.5 + offsets[:, 0]), 1)


def _first_of_plateaus(maxima: Bool[Tensor, "classes rows columns"]) -> Bool[Tensor, "classes rows columns"]:
    """Of maxima that touch each other, the first in reading order; touching maxima have equal values."""
    size = maxima[0].numel()
    order = torch.arange(size, 0, -1, device=maxima.device, dtype=torch.float32).view(maxima.shape[1:])
    first = own = torch.where(maxima, order, 0.0)  # float32 counts exactly to 16 million cells
    while True:  # the order of the first cell spreads by one cell
        spread = torch.where(maxima, F.max_pool2d(first[None], 3, 1, 1)[0], 0.0)
        if torch.equal(spread, first):
            return maxima & (first == own)
        first = spread


def _bonuses(bonus: Tensor, ranks: int) -> np.ndarray:
    """The bonus of so many ranks, (classes, ranks)."""
    last = bonus.shape[1] - 1
    return bonus.cpu().numpy()[:, np.minimum(np.arange(ranks), last)]


def count_bonus(expected: Float[Tensor, " classes"], ranks: int | Tensor) -> Float[Tensor, "classes ranks"]:
    """What each further peak of a class gains if so many are expected: 1 up to the number, then -1.

    The peak of rank j, counted from 0, gains abs(j - expected) - abs(j + 1 - expected): the error that it removes.

    Args:
        expected: the number of objects of each class.
        ranks: how many peaks of each class, or their ranks.
    """
    rank = ranks
    if isinstance(rank, int):
        rank = torch.arange(rank, device=expected.device, dtype=expected.dtype)
    return (rank - expected[:, None]).abs() - (rank + 1 - expected[:, None]).abs()


def gaussian_peaks(
    points: Float[Tensor, "batch classes rows columns"] | Bool[Tensor, "batch classes rows columns"], spread: float
) -> Float[Tensor, "batch classes rows columns"]:
    """Maps with 1 at marked cells, falling as a Gaussian around them; the largest where several meet.

    Args:
        points: true, or 1, at the marked cells.
        spread: the standard deviation in cells. The Gaussian is cut at three of them.
    """
    reach = max(1, math.ceil(3 * spread))
    marked = points.to(torch.float32 if points.dtype == torch.bool else points.dtype)
    rows, columns = marked.shape[-2:]
    # The Gaussian of a distance is the product of those of its parts, and both are largest at the nearest mark: one
    # pass along each axis suffices.
    for axis in (-1, -2):
        padded = F.pad(marked, (reach, reach) if axis == -1 else (0, 0, reach, reach))
        length = columns if axis == -1 else rows
        marked = torch.stack(
            [
                padded.narrow(axis, reach + shift, length) * math.exp(-(shift**2) / (2 * spread**2))
                for shift in range(-reach, reach + 1)
            ]
        ).amax(0)
    return marked


def gaussian_blur(
    maps: Float[Tensor, "batch classes rows columns"], spread: float
) -> Float[Tensor, "batch classes rows columns"]:
    """Maps blurred by a Gaussian that sums to 1; outside they are 0.

    Args:
        spread: the standard deviation in cells. The Gaussian is cut at three of them.
    """
    reach, classes = max(1, math.ceil(3 * spread)), maps.shape[1]
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-steps.square() / (2 * spread**2))
    kernel = (kernel / kernel.sum()).expand(classes, 1, 1, -1)
    across = F.conv2d(maps, kernel, padding=(0, reach), groups=classes)
    return F.conv2d(across, kernel.transpose(2, 3), padding=(reach, 0), groups=classes)
