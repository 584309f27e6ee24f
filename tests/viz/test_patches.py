"""Patches with labels and reconstructions, and bare pictures as PNG."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.viz import draw_patches, draw_reconstructions, picture_to_png, residual


def test_patches_with_reconstruction_below():
    patches = torch.rand(5, 1, 6, 6)
    figure = draw_patches(patches, list("abcde"), 3, after=1 - patches, correct=[True, False, True, True, True])
    tiles = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in tiles] == ["a", "✗ b", "c", "d", "e"]
    assert len(figure.axes) == 10
    for index, upper in enumerate(tiles):
        np.testing.assert_allclose(upper.images[0].get_array(), patches[index, 0], atol=1e-6)
        below = [
            axes
            for axes in figure.axes
            if axes is not upper
            and axes.get_position().x0 == pytest.approx(upper.get_position().x0)
            and 0 < upper.get_position().y0 - axes.get_position().y0 < 1.2 * upper.get_position().height
        ]
        assert len(below) == 1
        np.testing.assert_allclose(below[0].images[0].get_array(), 1 - patches[index, 0], atol=1e-6)


def test_patches_lists_must_match():
    with pytest.raises(ValueError, match="labels has 1 entries for 2 patches"):
        draw_patches(torch.rand(2, 1, 4, 4), ["a"])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_patches(torch.rand(0, 1, 4, 4))


def test_reconstructions_show_what_is_left():
    image = torch.rand(3, 8, 8)
    figure = draw_reconstructions([image, image], [image, image * 0.5])
    assert len(figure.axes) == 6
    left = [axes.images[0].get_array() for axes in figure.axes if axes.images[0].get_array().ndim == 2]
    assert float(np.max(left[0])) == 0.0
    np.testing.assert_allclose(left[1], 0.5 * image.mean(dim=0), atol=1e-6)
    assert residual(image, image * 0.5).shape == (8, 8)
    with pytest.raises(ValueError, match="1 reconstructions for 2 images"):
        draw_reconstructions([image, image], [image])


def test_picture_to_png_keeps_pixels():
    picture = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    drawn = np.asarray(Image.open(io.BytesIO(picture_to_png(picture, scale=3))))
    assert drawn.shape == (6, 6)
    assert drawn[::3, ::3].tolist() == [[0, 255], [128, 255]]
    assert drawn[2, 2] == 0
    assert np.asarray(Image.open(io.BytesIO(picture_to_png(torch.rand(3, 4, 5))))).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        picture_to_png(torch.rand(2, 4, 4))
