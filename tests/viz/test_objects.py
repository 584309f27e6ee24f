"""The sheet of objects: number of tiles, and styles of boxes."""

from __future__ import annotations

import pytest
import torch

from mistnn.viz import DrawnObjects, draw_objects


def example(found: int, objects: int) -> DrawnObjects:
    boxes = torch.tensor([[6.0, 6.0, 4.0, 4.0]]).expand(found, 4)
    right = torch.arange(found) % 2 == 0
    missed = torch.tensor([[3.0, 3.0, 4.0, 4.0]])
    return DrawnObjects(
        torch.rand(1, 12, 12), torch.rand(1, 12, 12), boxes, right, missed, torch.rand(objects, 1, 5, 5)
    )


def test_tiles_and_boxes() -> None:
    figure = draw_objects([example(3, 3), example(0, 0)])
    assert len(figure.axes) == 3 + 3 + 3
    assert [axes.get_title() for axes in figure.axes[:6]] == ["input", "objects", "drawn", "1, nearest", "2", "3"]
    names = [patch.get_gid() for patch in figure.axes[1].patches]
    assert sorted(names) == ["missed", "right", "right", "wrong"]
    assert [patch.get_gid() for patch in figure.axes[7].patches] == ["missed"]


def test_a_title_says_how_many_objects_are_left_out() -> None:
    titles = [axes.get_title() for axes in draw_objects([example(23, 23), example(20, 20)]).axes]
    assert len(titles) == 2 * (3 + 20) and titles[3:6] == ["1, nearest", "2", "3"]
    assert titles[22] == "20, 3 more" and titles[-1] == "20"


@pytest.mark.parametrize("objects", [1, 4, 9])
def test_objects_are_beside_their_image_and_do_not_overlap(objects: int) -> None:
    figure = draw_objects([example(objects, objects), example(2, 2)])
    scene, *small = [axes.get_position() for axes in (figure.axes[2], *figure.axes[3 : 3 + objects])]
    for index, one in enumerate(small):
        assert one.x0 > scene.x1 and one.x1 <= 1 and scene.y0 - 1e-9 <= one.y0 and one.y1 <= scene.y1 + 1e-9
        assert not any(one.overlaps(other) for other in small[:index])


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        draw_objects([])
