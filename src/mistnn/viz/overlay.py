"""Boxes and labels drawn on an image with Pillow, without matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Corners = tuple[int | float, int | float, int | float, int | float]

PALETTE: tuple[Colour, ...] = (
    (240, 228, 66), (86, 180, 233), (230, 159, 0), (0, 200, 140), (255, 120, 90), (204, 121, 167), (160, 220, 60),
    (150, 150, 255), (255, 255, 255), (0, 220, 220),
)  # fmt: skip
"""Ten light colours that colour-blind readers can distinguish, after Okabe and Ito; one per class, then repeated."""

SMALL_SIDE = 320
"""An image whose longer side is below this many pixels is enlarged."""

MAX_PIXELS = 4096 * 4096
"""An image with more pixels is reduced: the drawing is for viewing."""

_TEXT_SIDE = 13
"""Minimum height of a label's text, in pixels of the drawing."""


def overlay_scale(width: int, height: int) -> float:
    """The scale of the drawing: a whole number above 1 for small images, below 1 for huge ones."""
    longer = max(width, height)
    if longer < SMALL_SIDE:
        return float(min(8, math.ceil(SMALL_SIDE / longer)))
    return min(1.0, math.sqrt(MAX_PIXELS / (width * height)))


def class_colour(index: int) -> Colour:
    """The colour of a class; classes ten apart share one."""
    return PALETTE[index % len(PALETTE)]


def draw_detections(
    image: Image.Image,
    boxes: Sequence[Sequence[int | float]],
    labels: Sequence[str] | None = None,
    colours: Sequence[Colour] | None = None,
) -> Image.Image:
    """Draws boxes with labels on a copy of the image, in RGB.

    The size of the drawing may differ from the image's, see ``overlay_scale``: small images are enlarged with hard
    pixel edges until a label is readable, huge ones are reduced. The first box is drawn last, on top.

    Convention: a box is (centre x, centre y, width, height) in pixels of ``image``; pixel 0 spans 0 to 1.

    Args:
        image: any image that Pillow converts to RGB.
        boxes: in order of decreasing score.
        labels: one text per box; an empty one is not drawn.
        colours: one per box; ``None`` for the first of ``PALETTE``.

    Raises:
        ValueError: if the numbers of labels or colours and boxes differ.
    """
    for name, values in (("labels", labels), ("colours", colours)):
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes need as many {name}, got {len(values)}")
    scale = overlay_scale(image.width, image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = image.convert("RGB").resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
    # The mean side, not the longer one: a line on a 10,000 x 100 strip must not fill the strip.
    side = math.sqrt(size[0] * size[1])
    line = max(1, round(side / 200))
    font = ImageFont.load_default(size=max(_TEXT_SIDE, side / 40))
    draw = ImageDraw.Draw(canvas)
    for index in reversed(range(len(boxes))):
        colour = PALETTE[0] if colours is None else colours[index]
        corners = _corners(boxes[index], scale)
        _draw_frame(draw, corners, colour, line)
        if labels is not None and labels[index]:
            _draw_label(draw, corners, labels[index], colour, font, size)
    return canvas


def _corners(box: Sequence[int | float], scale: float) -> Corners:
    """First and last column and row of a box on the canvas; Pillow includes the last one."""
    x, y, width, height = (value * scale for value in box)
    left, top = x - width / 2, y - height / 2
    return left, top, max(left, left + width - 1), max(top, top + height - 1)


def _draw_frame(draw: ImageDraw.ImageDraw, corners: Corners, colour: Colour, line: int) -> None:
    left, top, right, bottom = corners
    # A dark rim outside the line keeps it visible on a background of its own colour.
    draw.rectangle((left - line, top - line, right + line, bottom + line), outline=(0, 0, 0), width=line)
    draw.rectangle(corners, outline=colour, width=line)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    corners: Corners,
    label: str,
    colour: Colour,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """A filled label above the box, or inside its upper edge if there is no space above."""
    text = label.replace("\n", " ")
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = 2
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(corners[0], 0), max(size[0] - width, 0))
    y = corners[1] - height
    y = min(max(corners[1] if y < 0 else y, 0), max(size[1] - height, 0))
    draw.rectangle((x, y, x + width, y + height), fill=colour, outline=(0, 0, 0))
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 110
    draw.text((x + pad - left, y + pad - top), text, font=font, fill=(255, 255, 255) if dark else (0, 0, 0))
