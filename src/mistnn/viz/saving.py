"""Figures and pictures as files: PNG, PDF and animated GIF."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mistnn.viz.style import Picture, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MILLISECONDS = 200
"""Duration of a frame."""
LAST_MILLISECONDS = 2000
"""Duration of the last frame, before the animation repeats."""


def picture_to_png(picture: Picture, scale: int = 1) -> bytes:
    """A bare picture (1 or 3 channels) as PNG, with each pixel as a square of ``scale`` x ``scale``, 1 or more."""
    from PIL import Image

    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    values = np.rint(to_array(picture) * 255).astype(np.uint8)
    image = Image.fromarray(values)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@contextmanager
def _saving() -> Iterator[None]:
    """Settings for writing a figure: text in a PDF as text; letters that no font has are drawn as boxes, silently."""
    import matplotlib

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        with matplotlib.rc_context({"pdf.fonttype": 42, "savefig.bbox": None, "savefig.dpi": "figure"}):
            yield


def figure_to_png(figure: Figure) -> bytes:
    """The figure as PNG, without date and program version, so that equal figures give equal bytes."""
    buffer = io.BytesIO()
    with _saving():
        figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def save_figure(figure: Figure, path_stem: Path) -> tuple[Path, Path]:
    """Writes the figure to ``path_stem`` plus .png and .pdf, which are returned, and creates missing folders."""
    path_stem.parent.mkdir(parents=True, exist_ok=True)
    png = path_stem.with_name(path_stem.name + ".png")
    pdf = path_stem.with_name(path_stem.name + ".pdf")
    png.write_bytes(figure_to_png(figure))
    with _saving():
        # By default matplotlib writes the time and its version, and equal figures would give different files.
        metadata = {"CreationDate": None, "Producer": None, "Creator": None}
        figure.savefig(pdf, format="pdf", metadata=metadata, facecolor=figure.get_facecolor())
    return png, pdf


def save_animation(figures: Sequence[Figure], path_stem: Path) -> tuple[Path, Path]:
    """Writes the figures, of one size, as ``path_stem.gif``, and each as a PNG in the folder ``path_stem-frames``.

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
