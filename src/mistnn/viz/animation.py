"""Animations: a sequence of figures as a GIF and as PNG frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mistnn.viz.style import figure_to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MILLISECONDS = 200
"""Duration of a frame."""
LAST_MILLISECONDS = 2000
"""Duration of the last frame, before the animation repeats."""


def save_animation(figures: Sequence[Figure], path_stem: Path) -> tuple[Path, Path]:
    """Writes the figures as ``path_stem.gif``, and each as a PNG in the folder ``path_stem-frames``.

    Args:
        figures: of one size.
        path_stem: the path without extension.

    Returns:
        The file and the folder.

    Raises:
        ValueError: if there is no figure.
    """
    from PIL import Image

    if not figures:
        raise ValueError("there is nothing to animate: give at least one figure")
    gif, folder = (path_stem.with_name(path_stem.name + ending) for ending in (".gif", "-frames"))
    folder.mkdir(parents=True)
    pictures = []
    for number, figure in enumerate(figures):
        content = figure_to_png(figure)
        (folder / f"{number:04d}.png").write_bytes(content)
        with Image.open(io.BytesIO(content)) as picture:
            pictures.append(picture.convert("RGB"))
    duration = [MILLISECONDS] * (len(pictures) - 1) + [LAST_MILLISECONDS]
    pictures[0].save(gif, save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return gif, folder
