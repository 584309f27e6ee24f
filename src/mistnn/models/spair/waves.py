"""The order in which cells are computed: all cells whose neighbours are known form one wave."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Wave(NamedTuple):
    """Cells that don't depend on each other.

    Attributes:
        cells: their m indices in reading order.
        context: m x neighbours positions of their neighbours in a list that starts with the edge element and continues
            with the cells of the last ``reach`` waves, oldest first.
    """

    cells: tuple[int, ...]
    context: tuple[int, ...]


class Waves(NamedTuple):
    """The order of the cells of a grid.

    Attributes:
        waves: in the order of computation.
        reach: the largest distance in waves from a cell to a neighbour.
        reading: for each cell in reading order, its position in the order of the waves.
    """

    waves: tuple[Wave, ...]
    reach: int
    reading: tuple[int, ...]


def neighbours_of(look_back: int) -> tuple[tuple[int, int], ...]:
    """Offsets (rows, columns) to the cells before a cell in reading order, up to ``look_back`` rows and columns away.

    With 1: upper left, above, upper right, left.
    """
    span = range(-look_back, look_back + 1)
    return tuple((row, column) for row in range(-look_back, 1) for column in span if (row, column) < (0, 0))


@lru_cache(maxsize=64)
def waves_of(rows: int, columns: int, look_back: int) -> Waves:
    """The order of the cells: a cell is in wave (look_back + 1) * row + column.

    The neighbour one row up and ``look_back`` columns to the right is exactly one wave earlier, and so is the left one.
    All others are earlier still. Without look-back, all cells are one wave.
    """
    near, slope = neighbours_of(look_back), look_back + 1
    reach = look_back * (look_back + 2)
    numbers = [0] * (rows * columns)
    if look_back:
        numbers = [slope * row + column for row in range(rows) for column in range(columns)]
    # With few columns some numbers don't occur.
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
