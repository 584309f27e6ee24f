from __future__ import annotations

import pytest
import torch

from mistnn.viz import CandidatePoint, draw_candidates, draw_comparison


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


def test_candidates_show_what_was_measured_and_what_was_foretold() -> None:
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
