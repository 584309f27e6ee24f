from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.viz import CandidatePoint, draw_candidates, draw_comparison, picture_to_png, residual


def test_comparison_has_a_tile_for_each_picture() -> None:
    dark, bright = torch.zeros(1, 8, 8), torch.rand(1, 8, 8) * 2
    rows = [{"input": dark, "MIST": bright}, {"a": dark, "b": bright}]
    figure = draw_comparison(rows)
    assert [axes.get_title() for axes in figure.axes] == ["input", "MIST", "a", "b"]
    shown = figure.axes[1].images[0].get_array()
    assert shown.max() <= 1


@pytest.mark.parametrize("rows", [[], [{}], [{"a": torch.zeros(1, 4, 4)}, {}]])
def test_comparison_needs_whole_rows(rows: list) -> None:
    with pytest.raises(ValueError, match="as many pictures each"):
        draw_comparison(rows)


def test_candidates_show_measurements_and_the_formula() -> None:
    curves = {
        "MIST": [CandidatePoint(100, 0.1, 2**29, 2**28), CandidatePoint(400, 0.2, 2**29, 2**28)],
        "Xie20": [CandidatePoint(100, 0.5, 2**30, 2**30), CandidatePoint(400, None, None, 2**32)],
    }
    memory, time = draw_candidates(curves).axes
    assert [len(line.get_xdata()) for line in memory.lines] == [2, 2, 1, 2], "measured, formula, measured, formula"
    assert memory.lines[1].get_linestyle() == "--" and memory.lines[3].get_ydata()[1] == 4
    assert [len(line.get_xdata()) for line in time.lines] == [2, 1]
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_candidates({"MIST": []})


def test_residual_is_the_mean_absolute_error_of_the_channels() -> None:
    image = torch.rand(3, 8, 8)
    torch.testing.assert_close(residual(image, image * 0.5), 0.5 * image.mean(dim=0))
    assert not residual(image, image).any()


def test_picture_to_png_keeps_pixels() -> None:
    picture = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    drawn = np.asarray(Image.open(io.BytesIO(picture_to_png(picture, scale=3))))
    assert drawn.shape == (6, 6)
    assert drawn[::3, ::3].tolist() == [[0, 255], [128, 255]]
    assert drawn[2, 2] == 0
    assert np.asarray(Image.open(io.BytesIO(picture_to_png(torch.rand(3, 4, 5))))).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        picture_to_png(torch.rand(2, 4, 4))
