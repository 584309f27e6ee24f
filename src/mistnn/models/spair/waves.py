"""In which order cells are computed: those whose neighbours are known go together."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Wave(NamedTuple):
    """Cells that don't depend on each other.

    Attributes:
        cells: their m indices in reading order.
        context: m x neighbours numbers, where the neighbours of each stand among the edge element, which is 0, and
            the cells of the last ``reach`` waves, the oldest first.
    """

    cells: tuple[int, ...]
    context: tuple[int, ...]


class Waves(NamedTuple):
    """The order for a grid.

    Attributes:
        waves: one after the other.
        reach: how many waves back a neighbour lies at most.
        reading: where each cell of the reading order stands in the order of the waves.
    """

    waves: tuple[Wave, ...]
    reach: int
    reading: tuple[int, ...]


def neighbours_of(look_back: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) from a cell to those before it in reading order, at most ``look_back`` rows and columns away.

    With 1: upper left, above, upper right, left.
    """
    span = range(-look_back, look_back + 1)
    return tuple((row, column) for row in range(-look_back, 1) for column in span if (row, column) < (0, 0))


@lru_cache(maxsize=64)
def waves_of(rows: int, columns: int, look_back: int) -> Waves:
    """The order: a cell is in wave (look_back + 1) * row + column.

    The neighbour that is up by one row and right by ``look_back`` columns is exactly one wave earlier, and so is the
    one to the left; all others are earlier still. Without look-back all cells are one wave.

    Args:
        rows: of cells.
        columns: of cells.
        look_back: see ``SpairConfig``.
    """
    near, slope = neighbours_of(look_back), look_back + 1
    reach = look_back * (look_back + 2)
    numbers = [0] * (rows * columns)
    if look_back:
        numbers = [slope * row + column for row in range(rows) for column in range(columns)]
    # Few columns leave numbers out.
    fronts = [[cell for cell, number in enumerate(numbers) if number == wave] for wave in sorted(set(numbers))]
    waves = []
    for index, cells in enumerate(fronts):
        known = [cell for front in fronts[max(0, index - reach) : index] for cell in front]
        place = {cell: 1 + position for position, cell in enumerate(known)}
        context = []
        for cell in cells:
            row, column = divmod(cell, columns)
            for down, across in near:
                inside = 0 <= row + down and 0 <= column + across < columns
                context.append(place[(row + down) * columns + column + across] if inside else 0)
        waves.append(Wave(tuple(cells), tuple(context)))
    place = {cell: position for position, cell in enumerate(cell for front in fronts for cell in front)}
    return Waves(tuple(waves), reach, tuple(place[cell] for cell in range(rows * columns)))
