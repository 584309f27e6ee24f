"""Spatial transformers: the region of the image that each of them samples, and its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mistnn.viz.style import FOUND, LIGHT, RIGHT, TRUTH, WRONG, new_figure, place_axes, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (FOUND.color, TRUTH.color, "#cc79a7", "#e69f00")
LINES = ("solid", "dashed", "dotted", "dashdot")
"""Of the first transformer, the second and so on, then repeated: Okabe and Ito's colours, and line styles for
colour-blind readers."""
BEYOND = 0.15
"""Margin shown around an image, as a share of its sides: a transformer may sample there."""

_TILE, _EDGE, _GAP, _BETWEEN, _HEADER, _WORDS = 1.2, 0.08, 0.06, 0.2, 0.26, 0.85


class TransformerExample(NamedTuple):
    """An image and the outputs of spatial transformers.

    Attributes:
        image: in [0, 1].
        outlines: for each transformer the outline of the region it samples, (x, y) in pixels of the image.
        outputs: for each transformer its output, with the channels of the image.
        truth: the true label, as a short text.
        prediction: the network's prediction, as a short text.
        right: whether the prediction is correct.
    """

    image: Float[Tensor, "channels height width"]
    outlines: Sequence[Float[Tensor, "points 2"]]
    outputs: Sequence[Float[Tensor, "channels rows columns"]]
    truth: str
    prediction: str
    right: bool


def draw_transformers(examples: Sequence[TransformerExample]) -> Figure:
    """One row per image: its channels with the outlines of the sampled regions, then each transformer's output.

    Raises:
        ValueError: if there is no example, or they differ in channels or transformers.
    """
    shapes = {(len(example.image), len(example.outputs), len(example.outlines)) for example in examples}
    if len(shapes) != 1:
        raise ValueError(f"give examples of as many channels and transformers each, got {sorted(shapes)}")
    channels, transformers, _ = shapes.pop()
    block = channels * _TILE + (channels - 1) * _GAP
    width = 2 * _EDGE + (1 + transformers) * (block + _BETWEEN) + _WORDS
    height = _EDGE + _HEADER + len(examples) * (_TILE + _GAP)
    figure = new_figure(width, height)

    def tile(row: int, group: int, channel: int) -> Axes:
        left = _EDGE + group * (block + _BETWEEN) + channel * (_TILE + _GAP)
        axes = place_axes(figure, left, _HEADER + row * (_TILE + _GAP), _TILE, _TILE, bare=False)
        axes.set(xticks=[], yticks=[], facecolor=LIGHT.grid)
        return axes

    for row, example in enumerate(examples):
        for channel in range(channels):
            _draw_input(tile(row, 0, channel), example, channel, named=row == 0)
            for number, output in enumerate(example.outputs):
                axes = tile(row, number + 1, channel)
                show_picture(axes, output[[channel]])
                axes.spines[:].set(color=COLORS[number % len(COLORS)], linewidth=1.5)
                if row == 0:
                    title_tile(axes, _title(f"ST {number + 1}", channel, channels), bold=True)
        middle = 1 - (_HEADER + row * (_TILE + _GAP) + _TILE / 2) / height
        left = (width - _WORDS - _EDGE) / width
        figure.text(left, middle + 0.02 / height, example.truth, fontsize=9, color=LIGHT.text, va="bottom")
        mark = RIGHT if example.right else WRONG
        text = figure.text(left, middle - 0.04 / height, example.prediction, fontsize=9, color=mark.color, va="top")
        text.set(gid=mark.name, fontweight="bold")
    return figure


def _draw_input(axes: Axes, example: TransformerExample, channel: int, *, named: bool) -> None:
    """One channel of the image with a margin, and the outline of each transformer's region."""
    show_picture(axes, example.image[[channel]])
    rows, columns = example.image.shape[-2:]
    across, down = BEYOND * columns, BEYOND * rows
    axes.set(xlim=(-across, columns + across), ylim=(rows + down, -down))
    axes.spines[:].set_visible(False)
    for number, outline in enumerate(example.outlines):
        x, y = (values.tolist() for values in outline.T)
        colour, line = COLORS[number % len(COLORS)], LINES[number % len(LINES)]
        axes.fill(x, y, fill=False, edgecolor=colour, linestyle=line, linewidth=1.5)
    if named:
        title_tile(axes, _title("input", channel, len(example.image)), bold=True)


def _title(text: str, channel: int, channels: int) -> str:
    return f"{text}, channel {channel + 1}" if channels > 1 else text
