from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mistnn.viz.overlay import MAX_PIXELS, PALETTE, class_colour, draw_detections, overlay_scale


def _has(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == colour).all(-1)


@pytest.mark.parametrize(
    ("size", "scale"), [((80, 80), 4), ((48, 48), 7), ((1, 1), 8), ((320, 5), 1), ((200, 10), 2), ((4096, 4096), 1)]
)
def test_scale(size: tuple[int, int], scale: float) -> None:
    assert overlay_scale(*size) == scale


def test_huge_images_are_reduced() -> None:
    assert overlay_scale(10_000, 100) == 1
    scale = overlay_scale(10_000, 10_000)
    assert (scale * 10_000) ** 2 == pytest.approx(MAX_PIXELS)


def test_box_lies_where_it_belongs() -> None:
    # A box of 20 px around (30, 40): columns 20 to 39, rows 30 to 49; four canvas pixels each.
    drawn = draw_detections(Image.new("L", (80, 80)), [(30, 40, 20, 20)])
    assert drawn.size == (320, 320) and drawn.mode == "RGB"
    rows, columns = np.nonzero(_has(drawn, PALETTE[0]))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (80, 159, 120, 199)
    assert not _has(drawn, PALETTE[0])[125:195, 85:155].any(), "the inside stays free"


def test_the_image_is_kept_and_copied() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8))
    before = image.tobytes()
    drawn = draw_detections(image, [])
    assert drawn.tobytes() == before and drawn is not image
    draw_detections(image, [(200, 200, 50, 50)], ["7"])
    assert image.tobytes() == before


def test_labels_are_drawn_dark_on_a_tag_inside_the_canvas() -> None:
    for x, y in ((40, 40), (2, 2), (79, 79), (-10, 40), (40, 90)):
        plain = np.asarray(draw_detections(Image.new("RGB", (80, 80)), [(x, y, 20, 20)]))
        tagged = draw_detections(Image.new("RGB", (80, 80)), [(x, y, 20, 20)], ["8"])
        more = _has(tagged, PALETTE[0]).sum() - (plain == PALETTE[0]).all(-1).sum()
        assert more > 50, "a tag is filled with the colour of the box"
    other = draw_detections(Image.new("RGB", (80, 80)), [(40, 40, 20, 20)], ["3"])
    eight = draw_detections(Image.new("RGB", (80, 80)), [(40, 40, 20, 20)], ["8"])
    assert other.tobytes() != eight.tobytes()
    assert (
        draw_detections(Image.new("L", (80, 80)), [(40, 40, 20, 20)], [""]).tobytes()
        == draw_detections(Image.new("L", (80, 80)), [(40, 40, 20, 20)]).tobytes()
    )


def test_the_first_box_is_on_top() -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    boxes = [(40, 40, 20, 20), (40, 40, 20, 20)]
    drawn = draw_detections(Image.new("L", (80, 80)), boxes, colours=[red, blue])
    assert _has(drawn, red).any() and not _has(drawn, blue).any()


def test_lines_grow_with_the_image() -> None:
    def thickness(side: int) -> int:
        drawn = draw_detections(Image.new("L", (side, side)), [(side / 2, side / 2, side / 2, side / 2)])
        return int(_has(drawn, PALETTE[0])[drawn.height // 2].sum())

    assert thickness(320) == 4
    assert thickness(3000) == 30


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 1)])
def test_any_image(mode: str, size: tuple[int, int]) -> None:
    drawn = draw_detections(
        Image.new(mode, size), [(0.5, 0.5, 1, 1), (0, 0, 0, 0), (1e4, -1e4, 3, 3)], ["é", "", "a\nb"]
    )
    assert drawn.mode == "RGB"


def test_colours() -> None:
    assert len(set(PALETTE)) == 10
    assert class_colour(12) == PALETTE[2]


def test_as_many_labels_as_boxes() -> None:
    with pytest.raises(ValueError, match="1 boxes need as many labels, got 2"):
        draw_detections(Image.new("L", (9, 9)), [(1, 1, 1, 1)], ["a", "b"])
    with pytest.raises(ValueError, match="1 boxes need as many colours, got 0"):
        draw_detections(Image.new("L", (9, 9)), [(1, 1, 1, 1)], colours=[])
