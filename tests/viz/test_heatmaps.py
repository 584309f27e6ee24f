"""Heat maps over training: order, one scale, keypoints in pixels of the image."""

import numpy as np
import pytest
import torch

from mistnn.viz import Curve, draw_evolution, draw_heatmap, figure_to_png, heatmap_peak

CURVES = {"loss": Curve([0, 1, 2], [3.0, 2.0, 1.0], "log"), "$both": Curve([0, 1], [0.1, 0.9], "fraction")}


def history():
    faint, bright = torch.zeros(6, 8), torch.zeros(6, 8)
    faint[2, 3], bright[2, 3] = 0.01, 0.8
    keypoints = torch.tensor([[7.0, 5.0], [2.0, 1.0]])
    return torch.rand(3, 12, 16), [(0, faint, None), (1500, bright, keypoints)]


def rings(axes):
    return [artist for artist in axes.collections if artist.get_gid() == "keypoints"]


def test_image_first_then_the_steps_on_one_scale():
    image, frames = history()
    figure = draw_evolution(CURVES, image, frames)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == list(CURVES)
    tiles = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in tiles] == ["image", "step 0", "step 1,500"]
    assert [axes.images[0].norm.vmax for axes in tiles[1:]] == pytest.approx([0.8, 0.8])
    assert tiles[0].images[0].get_array().shape == (12, 16, 3)
    assert len({round(axes.get_position().y0, 6) for axes in tiles}) == 1


def test_keypoints_are_in_pixels_of_the_image():
    image, frames = history()
    tiles = [axes for axes in draw_evolution(CURVES, image, frames).axes if axes.images]
    assert not rings(tiles[1])
    (drawn,) = rings(tiles[2])
    np.testing.assert_allclose(drawn.get_offsets(), [[7.0, 5.0], [2.0, 1.0]])
    assert tiles[2].images[0].get_extent() == [0, 16, 12, 0]


def test_faint_maps_are_visible():
    _, frames = history()
    (axes,) = draw_heatmap(frames[0][1], peak=0.8).axes
    drawn = axes.images[0]
    # A hundredth of the brightest value is drawn at a tenth of the scale, not at a hundredth.
    assert float(drawn.norm(0.008)) == pytest.approx(0.1, abs=1e-6)
    assert axes.get_position().bounds == pytest.approx((0, 0, 1, 1))


def test_mistakes_and_all_zero_maps():
    with pytest.raises(ValueError, match="at least one curve"):
        draw_evolution({})
    with pytest.raises(ValueError, match="2 heat maps and no image"):
        draw_evolution(CURVES, None, history()[1])
    assert len(draw_evolution(CURVES).axes) == 2
    assert heatmap_peak([torch.zeros(3, 3)]) == 1.0
    assert heatmap_peak([torch.full((3, 3), float("nan")), torch.tensor([[0.3]])]) == pytest.approx(0.3)
    first, second = (figure_to_png(draw_heatmap(torch.zeros(4, 4))) for _ in range(2))
    assert first == second
