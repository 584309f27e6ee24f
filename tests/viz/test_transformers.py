"""The sheet of spatial transformers: tiles, outlines, predictions."""

from __future__ import annotations

import pytest
import torch

from mistnn.viz import TransformerExample, draw_transformers

SQUARE = torch.tensor([[1.0, 2.0], [5.0, 2.0], [5.0, 6.0], [1.0, 6.0]])


def example(channels: int = 2, transformers: int = 2, right: bool = True) -> TransformerExample:
    read = [torch.rand(channels, 6, 6) for _ in range(transformers)]
    return TransformerExample(
        torch.rand(channels, 8, 8), [SQUARE + n for n in range(transformers)], read, "sum 9", "says 8", right
    )


def test_tiles_and_borders() -> None:
    figure = draw_transformers([example(), example(right=False)])
    titles = [axes.get_title() for axes in figure.axes]
    expected = {f"{what}, channel {channel}" for what in ("input", "ST 1", "ST 2") for channel in (1, 2)}
    assert set(titles[:6]) == expected
    assert titles[6:] == [""] * 6
    inputs = [axes for axes in figure.axes if axes.patches]
    assert len(inputs) == 4, "outlines are on the input only, in each channel"
    for axes in inputs:
        first, second = (torch.tensor(patch.get_xy()[:-1]).float() for patch in axes.patches)
        assert torch.equal(first, SQUARE) and torch.equal(second, SQUARE + 1)
        assert axes.get_xlim()[0] < 0 and axes.get_ylim()[0] > 8, "the margin around the image is visible"


def test_verdicts() -> None:
    figure = draw_transformers([example(1, 1), example(1, 1, right=False)])
    assert [(text.get_text(), text.get_gid()) for text in figure.texts] == [
        ("sum 9", None),
        ("says 8", "right"),
        ("sum 9", None),
        ("says 8", "wrong"),
    ]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["input", "ST 1"]


@pytest.mark.parametrize("examples", [[], [example(1, 1), example(2, 1)], [example(1, 1), example(1, 2)]])
def test_examples_are_alike(examples: list[TransformerExample]) -> None:
    with pytest.raises(ValueError, match="as many channels and transformers each"):
        draw_transformers(examples)
