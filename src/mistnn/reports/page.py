"""Self-contained HTML pages from the templates in ``templates/``; every text is escaped."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jinja2

from mistnn.errors import MistError
from mistnn.files import replace_file
from mistnn.viz import DARK, LIGHT, Theme, figure_to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """An image inside a page.

    Attributes:
        alt: its description.
        dark: a version for dark screens; ``None`` to show the same one.
        pixels: whether pixels are enlarged without smoothing.
    """

    png: bytes
    alt: str
    dark: bytes | None = None
    pixels: bool = False


class Tile(NamedTuple):
    """A figure in a grid.

    Attributes:
        pictures: side by side or one below the other; the title is above them, the caption below.
        verdict: after the caption.
        good: whether the verdict is positive; ``None`` for no colour.
    """

    pictures: tuple[Picture, ...]
    title: str = ""
    caption: str = ""
    verdict: str = ""
    good: bool | None = None


def in_both_themes(draw: Callable[[Theme], Figure], alt: str) -> Picture:
    """A figure drawn for bright and for dark screens."""
    light, dark = (figure_to_png(draw(theme)) for theme in (LIGHT, DARK))
    return Picture(light, alt, dark)


def render(template: str, **content: object) -> str:
    """A page as one string of HTML that needs no other file and no network, from a file in ``templates/``."""
    return _environment().get_template(template).render(content)


def write_page(page: str, path: Path, option: str = "") -> None:
    """Writes a page, in full or not at all, into a folder that exists.

    Raises:
        MistError: if it can't be written, naming the option of the command line.
    """
    try:
        replace_file(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise MistError(f"{option} {path} can't be written ({error.strerror}): give another file".strip()) from error


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mistnn.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return environment
