"""The sheet of drawn objects: how many tiles, and which boxes are drawn how."""

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
    assert [axes.get_title() for axes in figure.axes[:6]] == ["input", "objects", "drawn", "1", "2", "3"]
    names = [patch.get_gid() for patch in figure.axes[1].patches]
    assert sorted(names) == ["missed", "right", "right", "wrong"]
    assert [patch.get_gid() for patch in figure.axes[7].patches] == ["missed"]


def test_many_objects_are_cut_off() -> None:
    assert len(draw_objects([example(12, 12)]).axes) == 3 + 9


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        draw_objects([])
