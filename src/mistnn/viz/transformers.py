"""What spatial transformers look at: where in the image each of them reads, and what it makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mistnn.viz.style import FOUND, LIGHT, RIGHT, TRUTH, WRONG, Theme, new_figure, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (FOUND.color, TRUTH.color, "#cc79a7", "#e69f00")
LINES = ("solid", "dashed", "dotted", "dashdot")
"""Of the first transformer, the second and so on, and again from the first: colours by Okabe and Ito, and a line each
for who sees no colours."""
BEYOND = 0.15
"""Of the sides: how much is shown around an image, for a transformer may read there."""

_EDGE, _GAP, _BETWEEN, _HEADER, _WORDS = 0.08, 0.06, 0.2, 0.26, 0.85


class Looked(NamedTuple):
    """An image and what spatial transformers made of it.

    Attributes:
        image: in [0, 1].
        outlines: of each transformer the border of what it reads, (x, y) in pixels of the image.
        read: of each transformer what it made of the image; as many channels.
        truth: what is true of the image, in a few words.
        said: what the network says of it.
        right: whether that is so.
    """

    image: Float[Tensor, "channels height width"]
    outlines: Sequence[Float[Tensor, "points 2"]]
    read: Sequence[Float[Tensor, "channels rows columns"]]
    truth: str
    said: str
    right: bool


def draw_transformers(examples: Sequence[Looked], *, inches: float = 1.2, theme: Theme = LIGHT) -> Figure:
    """A row an image: its channels with the border of what each transformer reads; what each makes of every channel.

    Args:
        examples: all with as many channels and transformers.
        inches: side of a tile.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no example, or they differ in channels or transformers.
    """
    shapes = {(len(example.image), len(example.read), len(example.outlines)) for example in examples}
    if len(shapes) != 1:
        raise ValueError(f"give examples of as many channels and transformers each, got {sorted(shapes)}")
    channels, transformers, _ = shapes.pop()
    block = channels * inches + (channels - 1) * _GAP
    width = 2 * _EDGE + (1 + transformers) * (block + _BETWEEN) + _WORDS
    height = _EDGE + _HEADER + len(examples) * (inches + _GAP)
    figure = new_figure(width, height, theme)

    def tile(row: int, group: int, channel: int) -> Axes:
        left = _EDGE + group * (block + _BETWEEN) + channel * (inches + _GAP)
        bottom = height - _HEADER - row * (inches + _GAP) - inches
        axes = figure.add_axes((left / width, bottom / height, inches / width, inches / height))
        axes.set(xticks=[], yticks=[], facecolor=theme.grid)
        return axes

    for row, example in enumerate(examples):
        for channel in range(channels):
            _draw_input(tile(row, 0, channel), example, channel, theme, named=row == 0)
            for number, read in enumerate(example.read):
                axes = tile(row, number + 1, channel)
                show_picture(axes, read[[channel]])
                axes.spines[:].set(color=COLORS[number % len(COLORS)], linewidth=1.5)
                if row == 0:
                    title_tile(axes, _title(f"ST {number + 1}", channel, channels), theme, bold=True)
        middle = 1 - (_HEADER + row * (inches + _GAP) + inches / 2) / height
        left = (width - _WORDS - _EDGE) / width
        figure.text(left, middle + 0.02 / height, example.truth, fontsize=9, color=theme.text, va="bottom")
        mark = RIGHT if example.right else WRONG
        said = figure.text(left, middle - 0.04 / height, example.said, fontsize=9, color=mark.color, va="top")
        said.set(gid=mark.name, fontweight="bold")
    return figure


def _draw_input(axes: Axes, example: Looked, channel: int, theme: Theme, *, named: bool) -> None:
    """A channel of the image with the border of what each transformer reads, and some room around it."""
    show_picture(axes, example.image[[channel]])
    rows, columns = example.image.shape[-2:]
    across, down = BEYOND * columns, BEYOND * rows
    axes.set(xlim=(-across, columns + across), ylim=(rows + down, -down))
    axes.spines[:].set_visible(False)
    for number, outline in enumerate(example.outlines):
        x, y = (values.tolist() for values in outline.T)
        axes.fill(
            x,
            y,
            fill=False,
            edgecolor=COLORS[number % len(COLORS)],
            linestyle=LINES[number % len(LINES)],
            linewidth=1.5,
        )
    if named:
        title_tile(axes, _title("input", channel, len(example.image)), theme, bold=True)


def _title(what: str, channel: int, channels: int) -> str:
    return f"{what}, channel {channel + 1}" if channels > 1 else what
