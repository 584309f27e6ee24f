from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.losses import (
    class_proportion_loss,
    heatmap_loss,
    lifting_penalty,
    mass_offset,
    presence_loss,
    reconstruction_loss,
)
from mistnn.ops.sampling import place_patches
from tests.reference import losses as reference
from tests.reference import sampling as sampling_reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def as_counts(labels, classes):
    return torch.bincount(torch.tensor(labels, dtype=torch.int64), minlength=classes)[None]


def test_shapes():
    assert reconstruction_loss(torch.rand(2, 1, 4, 5), torch.rand(2, 1, 4, 5)).shape == (2,)
    assert class_proportion_loss(torch.rand(2, 3, 4), torch.ones(2, 4, dtype=torch.int64)).shape == (2,)
    assert heatmap_loss(torch.rand(2, 4, 5), torch.rand(2, 4, 5)).shape == (2,)
    assert lifting_penalty(torch.rand(2, 3, 2), torch.rand(2, 3, 2)).shape == (2,)
    assert mass_offset(torch.rand(2, 3, 1, 4, 4)).shape == (2, 3, 2)


@given(st.integers(1, 4), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_equation_9(k, classes, data):
    """L and K may differ, and an image may be empty."""
    labels = data.draw(st.lists(st.integers(0, classes - 1), max_size=6))
    probabilities = torch.randn(1, k, classes, dtype=torch.float64).softmax(-1)
    found = class_proportion_loss(probabilities, as_counts(labels, classes)).item()
    assert found == pytest.approx(reference.class_proportion_loss(labels, probabilities[0].tolist(), classes))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_equation_9_is_zero_for_a_perfect_histogram(labels, repeats):
    """Patches may be in any order, and any multiple of the true number."""
    order = torch.randperm(len(labels) * repeats)
    probabilities = torch.nn.functional.one_hot(torch.tensor(labels * repeats)[order], 5).double()[None]
    assert class_proportion_loss(probabilities, as_counts(labels, 5)).item() == pytest.approx(0, abs=1e-15)


def test_equation_9_is_two_where_all_is_wrong():
    probabilities = torch.nn.functional.one_hot(torch.ones(1, 4, dtype=torch.int64), 3).float()
    assert class_proportion_loss(probabilities, as_counts([0, 0, 0], 3)).item() == 2.0


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_presence_reference(k, known, more, data):
    """With and without a background after the known classes."""
    present = data.draw(st.lists(st.booleans(), min_size=known, max_size=known))
    probabilities = torch.randn(2, k, known + more, dtype=torch.float64).softmax(-1)
    found = presence_loss(probabilities, torch.tensor([present, present[::-1]])).tolist()
    for image, wanted in enumerate((present, present[::-1])):
        assert found[image] == pytest.approx(reference.presence_loss(wanted, probabilities[image].tolist()))


def test_presence_by_hand():
    """One certain patch per class suffices; the others may be any class that is not absent."""
    sure = torch.eye(4, dtype=torch.float64)
    present = torch.tensor([[True, True, False], [False, False, False]])
    for patches in ([0, 1, 3], [0, 0, 1], [1, 0, 1, 3, 3]):
        assert presence_loss(sure[patches][None], present[:1]).item() == 0
    assert presence_loss(sure[[0, 3, 3]][None], present[:1]).item() == 1, "one is missing"
    assert presence_loss(sure[[0, 1, 2, 3]][None], present[:1]).item() == 1 / 4, "one of four is absent"
    assert presence_loss(sure[[3, 3]][None], present[1:]).item() == 0, "only background"
    assert presence_loss(sure[[0, 1]][None], present[1:]).item() == 1


@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_equation_8(k, channels, height, width):
    image = torch.rand(1, channels, height, width, dtype=torch.float64)
    patches = torch.rand(1, k, channels, 3, 3, dtype=torch.float64)
    boxes = torch.rand(1, k, 4, dtype=torch.float64) * 3 + 1
    found = reconstruction_loss(image, place_patches(patches, boxes, height, width)).item()
    placed = [
        sampling_reference.place_patches([patch], [box], height, width)
        for patch, box in zip(patches[0].tolist(), boxes[0].tolist(), strict=True)
    ]
    assert found == pytest.approx(reference.reconstruction_loss(image[0].tolist(), placed))


@given(st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_equation_7(height, width):
    heatmap, ideal = torch.rand(2, 2, height, width, dtype=torch.float64)
    found = heatmap_loss(heatmap, ideal).tolist()
    for index in range(2):
        assert found[index] == pytest.approx(reference.heatmap_loss(heatmap[index].tolist(), ideal[index].tolist()))


@given(st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_penalty_reference(k):
    keypoints, anchors = torch.randn(2, 2, k, 2, dtype=torch.float64)
    found = lifting_penalty(keypoints, anchors).tolist()
    for index in range(2):
        assert found[index] == pytest.approx(
            reference.lifting_penalty(keypoints[index].tolist(), anchors[index].tolist())
        )


@given(st.integers(1, 5), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_mass_offset_reference(size, channels, flat):
    patch = torch.rand(channels, size, size, dtype=torch.float64)
    patch = torch.full_like(patch, 0.25) if flat else patch
    found = mass_offset(patch[None, None])[0, 0].tolist()
    assert found == pytest.approx(reference.mass_offset(patch.tolist()), abs=1e-9)


@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_mass_offset_by_hand(ground):
    """One odd pixel to the right and above, on a dark or bright background: x is positive, y negative."""
    patch = torch.full((1, 1, 1, 9, 9), ground)
    patch[0, 0, 0, 2, 7] = 1 - ground
    x, y = mass_offset(patch)[0, 0].tolist()
    assert x == pytest.approx(3 / 9, rel=0.02) and y == pytest.approx(-2 / 9, rel=0.02)


def test_gradcheck():
    double = {"dtype": torch.float64}
    images, rebuilt = torch.rand(2, 1, 3, 3, **double), torch.rand(2, 1, 3, 3, **double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: reconstruction_loss(images, r), (rebuilt,))
    probabilities = torch.rand(2, 3, 4, **double, requires_grad=True)
    counts = torch.randint(0, 4, (2, 4))
    assert torch.autograd.gradcheck(lambda p: class_proportion_loss(p, counts), (probabilities,))
    present = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.autograd.gradcheck(lambda p: presence_loss(p, present), (probabilities,))
    heatmap = torch.rand(2, 3, 4, **double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: heatmap_loss(h, torch.ones(2, 3, 4, **double)), (heatmap,))
    keypoints = torch.rand(2, 3, 2, **double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: lifting_penalty(k, torch.ones(2, 3, 2, **double)), (keypoints,))


def test_gradient_not_missing():
    """Every patch, pixel and keypoint contributes, to the loss of its own image only."""
    probabilities = torch.rand(2, 3, 4, requires_grad=True)
    class_proportion_loss(probabilities, torch.tensor([[1, 0, 0, 2], [0, 1, 1, 0]]))[0].backward()
    assert (probabilities.grad[0] != 0).all() and not probabilities.grad[1].any()
    probabilities = torch.rand(2, 3, 4, requires_grad=True)
    presence_loss(probabilities, torch.tensor([[True, False, False], [True, True, False]]))[0].backward()
    seen = probabilities.grad[0] != 0
    assert seen[:, 0].sum() == 1 and seen[:, 1:3].all() and not seen[:, 3].any(), "the most certain; all; no background"
    assert not probabilities.grad[1].any()
    rebuilt = torch.rand(2, 1, 3, 3, requires_grad=True)
    reconstruction_loss(torch.rand(2, 1, 3, 3), rebuilt)[0].backward()
    assert (rebuilt.grad[0] != 0).all() and not rebuilt.grad[1].any()
    heatmap = torch.rand(2, 3, 3, requires_grad=True)
    heatmap_loss(heatmap, torch.rand(2, 3, 3))[0].backward()
    assert (heatmap.grad[0] != 0).all() and not heatmap.grad[1].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    kind = {"dtype": dtype, "device": device}
    counts = torch.ones(2, 4, dtype=torch.int64, device=device)
    results = (
        reconstruction_loss(torch.rand(2, 1, 4, 5, **kind), torch.rand(2, 1, 4, 5, **kind)),
        class_proportion_loss(torch.rand(2, 3, 4, **kind), counts),
        presence_loss(torch.rand(2, 3, 4, **kind), counts > 0),
        heatmap_loss(torch.rand(2, 4, 5, **kind), torch.rand(2, 4, 5, **kind)),
        lifting_penalty(torch.rand(2, 3, 2, **kind), torch.rand(2, 3, 2, **kind)),
        mass_offset(torch.rand(2, 3, 1, 4, 4, **kind)),
    )
    assert all(result.dtype == dtype and result.device.type == device for result in results)


@pytest.mark.plain
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 5\).*\(2, 1, 4, 4\)"):
        reconstruction_loss(torch.rand(2, 1, 4, 5), torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(2, 5\)"):
        class_proportion_loss(torch.rand(2, 3, 4), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        class_proportion_loss(torch.rand(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(1, 4\)"):
        presence_loss(torch.rand(2, 3, 4), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="5 classes.* only 4"):
        presence_loss(torch.rand(2, 3, 4), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(1, 4, 5\)"):
        heatmap_loss(torch.rand(2, 4, 5), torch.rand(1, 4, 5))
    with pytest.raises(ValueError, match=r"\(2, 3, 2\).*\(2, 1, 2\)"):
        lifting_penalty(torch.rand(2, 3, 2), torch.rand(2, 1, 2))
    with pytest.raises(ValueError, match=r"\(3, 1, 4, 4\)"):
        mass_offset(torch.rand(3, 1, 4, 4))
