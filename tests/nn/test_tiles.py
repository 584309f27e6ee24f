from __future__ import annotations

import pytest
import torch

from mistnn.nn.finder import TiledFinder
from mistnn.nn.tiles import ALIGNMENT, spans, tiled_score_map
from tests.inference.fakes import FakeDetector


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("margin", [0, 1, 9, 20])
def test_spans_cover_the_axis_once(length: int, margin: int) -> None:
    kept = []
    for span in spans(length, 64, margin):
        assert span.start % ALIGNMENT == 0 and (span.stop % ALIGNMENT == 0 or span.stop == length)
        assert span.start == 0 or span.inner_start - span.start >= margin
        assert span.stop == length or span.stop - span.inner_stop >= margin
        if margin < 16:
            assert span.stop - span.start <= 64
        kept += range(span.inner_start, span.inner_stop)
    assert kept == list(range(length))


@pytest.mark.parametrize("size", [(100, 130), (16, 400), (400, 7), (1, 3000), (64, 64), (97, 33)])
@pytest.mark.parametrize("max_pixels", [64 * 64, 50 * 50, 1])
@torch.inference_mode()
def test_tiled_equals_untiled(size: tuple[int, int], max_pixels: int) -> None:
    model = FakeDetector().eval()
    images = torch.rand(2, 1, *size)
    whole = model.score_map(images)
    model.seen.clear()
    tiled = tiled_score_map(model.score_map, images, model.margin, max_pixels)
    torch.testing.assert_close(tiled, whole, rtol=1e-6, atol=1e-6)
    # A margin on both sides and the least inner part: 48 x 48 is the smallest tile there is.
    assert max(shape[-1] * shape[-2] for shape in model.seen) <= max(max_pixels, 48 * 48)
    assert len(model.seen) > 1 or size[0] * size[1] <= max_pixels


@torch.inference_mode()
def test_a_missing_margin_would_be_seen() -> None:
    model = FakeDetector().eval()
    images = torch.rand(1, 1, 100, 100)
    whole = model.score_map(images)
    assert (tiled_score_map(model.score_map, images, 0, 50 * 50) - whole).abs().max() > 1e-2


@torch.inference_mode()
def test_detections_are_the_same_and_small_images_are_not_tiled() -> None:
    model = FakeDetector().eval()
    images = torch.rand(2, 1, 90, 110)
    expected = model.detect(images, 20)
    model.seen.clear()
    for one, other in zip(expected, model.detect(images, 20, 64 * 64), strict=True):
        assert torch.equal(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)
    assert len(model.seen) > 1
    model.seen.clear()
    model.detect(images, 20, 90 * 110)
    assert model.seen == [(2, 1, 90, 110)]


@pytest.mark.parametrize("network", ["paper", "small"])
@torch.inference_mode()
def test_mist_tiles(network: str) -> None:
    from mistnn.models.mist import Mist, MistConfig
    from mistnn.nn.heatmap import HeatmapConfig

    model = Mist(MistConfig(heatmap=HeatmapConfig(network=network))).eval()  # pyright: ignore
    assert isinstance(model, TiledFinder)
    images = torch.rand(1, 1, 151, 170)
    if not model.tiles_are_exact:
        pytest.skip("this network normalises over the whole image")
    tiled = tiled_score_map(model.score_map, images, model.margin, 112 * 112)
    torch.testing.assert_close(tiled, model.score_map(images), rtol=1e-4, atol=1e-5)
