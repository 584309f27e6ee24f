from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.mist import Mist
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.ops.heatmap import local_spatial_softmax
from tests.models.mist.toys import JOINT, NETWORKS, TOY, toy, variant
from tests.reference import heatmap as reference
from tests.reference import sampling as sampling_reference


def test_output_has_the_names_and_shapes_of_the_paper():
    output = toy(JOINT)(torch.rand(2, 1, 20, 24))
    assert output.heatmaps.shape == (2, 1, 20, 24)
    assert output.keypoints.shape == (2, 2, 3) and output.responses.shape == (2, 2)
    assert output.patches.shape == output.decoded.shape == (2, 2, 1, 8, 8)
    assert output.logits.shape == (2, 2, 3)
    assert output.reconstruction.shape == (2, 1, 20, 24)
    assert toy()(torch.rand(1, 1, 20, 20)).decoded is None
    assert toy(JOINT, class_names=())(torch.rand(1, 1, 20, 20)).logits is None


def test_forward_is_equation_1():
    """Each part is the op of the paper applied to the part before."""
    model, images = toy(JOINT), torch.rand(2, 1, 20, 20)
    with torch.no_grad():
        output = model(images)
    for index in range(2):
        pixels = (output.keypoints[index, :, :2] - 0.5).tolist()
        expected = reference.top_k_pixels(output.heatmaps[index, 0].tolist(), TOY.k, TOY.nms_window)
        assert [tuple(pixel) for pixel in pixels] == expected
        boxes = [(x, y, 7.0, 7.0) for x, y, _ in output.keypoints[index].tolist()]
        patches = [sampling_reference.extract_patch(images[index].tolist(), box, 8) for box in boxes]
        torch.testing.assert_close(output.patches[index], torch.tensor(patches), atol=1e-5, rtol=0)
        placed = sampling_reference.place_patches(output.decoded[index].tolist(), boxes, 20, 20)
        torch.testing.assert_close(output.reconstruction[index], torch.tensor(placed), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("heatmap", "encoder"), NETWORKS)
def test_batch_equals_singles(heatmap, encoder):
    """An image's output does not depend on the rest of the batch (in the released code it did)."""
    model = variant(heatmap, encoder).eval()
    scale = torch.tensor([1.0, 0.2, 0.6]).view(3, 1, 1, 1)
    images = torch.rand(3, 1, 20, 20) * scale
    with torch.no_grad():
        whole = model(images)
        for index in range(3):
            one = model(images[index : index + 1])
            assert torch.equal(one.keypoints[0], whole.keypoints[index])
            for name in ("heatmaps", "responses", "patches", "logits"):
                torch.testing.assert_close(getattr(one, name)[0], getattr(whole, name)[index], atol=1e-5, rtol=1e-4)


def test_training_mode_is_eval_mode():
    model, images = toy(JOINT), torch.rand(2, 1, 20, 20)
    with torch.no_grad():
        trained, evaluated = model.train()(images), model.eval()(images)
    assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))


def test_task_loss_does_not_reach_the_heatmap_network():
    """E_K stops it: this is why lifting is needed."""
    model = toy()
    model(torch.rand(2, 1, 20, 20)).logits.sum().backward()
    assert all(part.grad is None for part in model.heatmap_network.parameters())
    assert any(part.grad is not None for part in model.task_network.parameters())


@pytest.mark.parametrize("k", [1, 5, 400])
@pytest.mark.parametrize("batch", [1, 2])
def test_detect_any_k(k, batch):
    found = toy().detect(torch.rand(batch, 1, 20, 20), k)
    assert len(found) == batch
    for one in found:
        assert one.boxes.shape == (k, 4) and one.scores.shape == (k,) and one.labels.shape == (k,)
        assert (one.boxes[:, 2:] == 7).all()
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
        assert (one.scores[:-1] >= one.scores[1:]).all()


def test_detect_pairs_boxes_with_their_labels():
    """Scores reorder the detections: boxes, scores and labels must move together."""
    model, images = toy(), torch.rand(1, 1, 20, 20)
    with torch.no_grad():
        found, output = model.detect(images, 5)[0], model(images, 5)
    confidence, label = output.logits[0].softmax(-1).max(-1)
    expected = {
        (x, y): (score, kind)
        for (x, y, _), score, kind in zip(
            output.keypoints[0].tolist(), (output.responses[0] * confidence).tolist(), label.tolist(), strict=True
        )
    }
    for box, score, kind in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        assert expected[tuple(box[:2])] == (pytest.approx(score), kind)


def test_without_classes_there_are_no_labels():
    model = toy(JOINT, class_names=())
    found = model.detect(torch.rand(1, 1, 20, 20))[0]
    assert found.labels is None and found.boxes.shape == (2, 4)
    with pytest.raises(ValueError, match="classes"):
        model.task_network.classify(torch.rand(1, 2, 1, 8, 8))


@pytest.mark.plain
def test_k_beyond_the_pixels_is_named():
    with pytest.raises(ValueError, match="got 401"):
        toy().detect(torch.rand(1, 1, 20, 20), 401)


def test_colour_and_other_sizes():
    model = toy(channels=3)
    for side in ((20, 20), (33, 17), (7, 9)):
        assert model.detect(torch.rand(1, 3, *side))[0].boxes.shape == (2, 4)


def test_box_and_extent_are_two_things():
    model = toy(box_size=5.0, patch_extent=9.0)
    images = torch.rand(1, 1, 20, 20)
    assert (model.detect(images)[0].boxes[:, 2:] == 5).all()
    patch = model.cut(images, torch.tensor([[[10.0, 10.0, 1.0]]]))[0, 0].tolist()
    expected = sampling_reference.extract_patch(images[0].tolist(), (10.0, 10.0, 9.0, 9.0), 8)
    torch.testing.assert_close(torch.tensor(patch), torch.tensor(expected), atol=1e-5, rtol=0)


def test_rebuild_has_room_for_every_place():
    """The fixed window of ``rebuild`` is large enough for any position of a keypoint within its pixel."""
    for extent, size in ((7.0, 8), (20.0, 32), (9.5, 8)):
        model = toy(JOINT, patch_extent=extent, patch_size=size)
        for shift in (0.0, 0.01, 0.49, 0.5, 0.99):
            keypoints = torch.tensor([[[14.0 + shift, 15.0 - shift, 1.0]]])
            decoded = torch.rand(1, 1, 1, size, size)
            found = model.rebuild(decoded, keypoints, torch.zeros(1, 1, 30, 30))
            box = (*keypoints[0, 0, :2].tolist(), extent, extent)
            if size == 8:
                expected = sampling_reference.place_patches(decoded[0].tolist(), [box], 30, 30)
                torch.testing.assert_close(found[0], torch.tensor(expected), atol=1e-4, rtol=0)
            assert found.sum().item() == pytest.approx(decoded.mean().item() * extent**2, rel=0.05)


def test_patch_window_darkens_the_border():
    model = toy(patch_window=0.25)
    patches = torch.rand(1, 1, 1, 8, 8)
    moved = patches.clone()
    moved[..., 0, 0] += 1
    moved_centre = patches.clone()
    moved_centre[..., 4, 4] += 1
    with torch.no_grad():
        base = model.task_network.classify(patches)
        corner = (model.task_network.classify(moved) - base).abs().max()
        centre = (model.task_network.classify(moved_centre) - base).abs().max()
    assert corner < 0.5 * centre


def test_tiles_are_exact_without_group_normalisation():
    plain = toy(heatmap=HeatmapConfig(channels=4, blocks=1, normalisation="none"))
    assert plain.tiles_are_exact and plain.margin == 3
    assert not toy(heatmap=HeatmapConfig(channels=4, blocks=1, normalisation="before")).tiles_are_exact
    assert not variant("released", "small").tiles_are_exact


@pytest.mark.parametrize(("heatmap", "encoder"), [("paper", "paper"), ("released", "released"), ("small", "small")])
def test_state_round_trip(heatmap, encoder):
    model = variant(heatmap, encoder)
    other = Mist(model.config)
    images = torch.rand(1, 1, 20, 20)
    with torch.no_grad():
        assert not torch.equal(other(images).logits, model(images).logits)
        other.load_state_dict(model.state_dict(), strict=True)
        assert all(torch.equal(a, b) for a, b in zip(model(images), other(images), strict=True) if a is not None)


def test_seeds_reproduce():
    same, again, other = (toy(JOINT, seed=seed)(torch.ones(1, 1, 20, 20)).logits for seed in (3, 3, 4))
    assert torch.equal(same, again) and not torch.equal(same, other)


SCALES = (0.7, 1.0, 1.4)


def test_heatmaps_of_several_scales_read_like_the_supplement():
    """Section A: the image resized by 1 / s, the same network, resized back, sharpened, pooled over scales."""
    model, images = toy(scales=SCALES), torch.rand(2, 1, 20, 24)
    sharp = []
    with torch.no_grad():
        found = model.heatmaps(images)
        for scale in SCALES:
            size = [round(side / scale) for side in (20, 24)]
            seen = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            scores = F.interpolate(
                model.heatmap_network(seen)[:, None], (20, 24), mode="bilinear", align_corners=False, antialias=True
            )
            sharp.append(local_spatial_softmax(scores[:, 0], TOY.softmax_window, TOY.softmax_strength))
    expected = torch.stack([reference.pool_scales([one[index] for one in sharp]) for index in range(2)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.heatmap(images), found.sum(1))


def test_boxes_and_patches_follow_the_scale():
    model = toy(scales=SCALES, box_size=6.0, patch_extent=8.0)
    keypoints = torch.tensor([[[9.0, 10.0, 0.7], [11.0, 8.0, 1.25]]])
    assert model.boxes(keypoints).tolist() == [[pytest.approx([9, 10, 4.2, 4.2]), pytest.approx([11, 8, 7.5, 7.5])]]
    images = torch.rand(1, 1, 20, 20)
    for index, (x, y, scale) in enumerate(keypoints[0].tolist()):
        expected = sampling_reference.extract_patch(images[0].tolist(), (x, y, 8 * scale, 8 * scale), 8)
        found = model.cut(images, keypoints)[0, index]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    boxes = model.detect(torch.rand(1, 1, 20, 20))[0].boxes
    assert boxes[:, 2].min() >= 0.7 * 6 - 1e-4 and boxes[:, 2].max() <= 1.4 * 6 + 1e-4
    assert torch.equal(boxes[:, 2], boxes[:, 3])


def test_rebuild_of_the_largest_scale_is_whole():
    model = toy(JOINT, scales=SCALES)
    decoded, keypoints = torch.rand(1, 1, 1, 8, 8), torch.tensor([[[14.3, 15.8, 1.4]]])
    found = model.rebuild(decoded, keypoints, torch.zeros(1, 1, 30, 30))
    expected = sampling_reference.place_patches(decoded[0].tolist(), [(14.3, 15.8, 9.8, 9.8)], 30, 30)
    torch.testing.assert_close(found[0], torch.tensor(expected), atol=1e-4, rtol=0)


def test_batch_equals_singles_with_scales():
    model, images = toy(JOINT, scales=SCALES).eval(), torch.rand(3, 1, 20, 20)
    with torch.no_grad():
        whole = model(images)
        for index in range(3):
            one = model(images[index : index + 1])
            for name in ("heatmaps", "keypoints", "reconstruction"):
                torch.testing.assert_close(getattr(one, name)[0], getattr(whole, name)[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, float("inf"))])
def test_scales_that_make_no_sense_are_named(scales):
    with pytest.raises(MistError, match=r"model\.scales"):
        toy(scales=scales)
