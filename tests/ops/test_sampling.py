from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mistnn.ops.sampling import extract_patches, place_patches
from tests.reference import sampling as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@st.composite
def problems(draw):
    """An image, boxes that may leave it, and a patch size; small, because the oracle is slow."""
    height, width, channels = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 2))
    k, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    random = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    image = torch.rand(channels, height, width, generator=random, dtype=torch.float64)
    quarter = st.integers(-8, 32).map(lambda number: number / 4)  # many samples fall on centres and edges
    side = st.sampled_from([0.25, 1.0, 2.0, 2.5, 3.0, 7.0])
    boxes = [[draw(quarter), draw(quarter), draw(side), draw(side)] for _ in range(k)]
    return image, torch.tensor(boxes, dtype=torch.float64), size


def smooth_boxes():
    """Boxes inside a 7 x 6 image whose samples, at size 3, stay away from the kinks between pixels."""
    return torch.tensor([[[3.13, 2.77, 2.9, 3.2], [4.31, 3.63, 2.3, 1.9]]], dtype=torch.float64)


class LargestOutput(TorchDispatchMode):
    """Records the largest storage that any operation returned, in elements."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.elements = max(self.elements, part.untyped_storage().nbytes() // part.element_size())
        return result


def test_shapes():
    images, boxes = torch.rand(2, 3, 8, 9), torch.rand(2, 5, 4) * 4 + 2
    assert extract_patches(images, boxes, 4).shape == (2, 5, 3, 4, 4)
    assert place_patches(torch.rand(2, 5, 3, 4, 4), boxes, 8, 9).shape == (2, 3, 8, 9)


@pytest.mark.parametrize(("batch", "k"), [(0, 2), (2, 0), (0, 0)])
def test_nothing_to_sample(batch, k):
    assert extract_patches(torch.rand(batch, 1, 4, 5), torch.rand(batch, k, 4), 3).shape == (batch, k, 1, 3, 3)
    placed = place_patches(torch.rand(batch, k, 1, 3, 3), torch.rand(batch, k, 4), 4, 5)
    assert placed.shape == (batch, 1, 4, 5) and not placed.any()


@given(problems())
@settings(max_examples=60, deadline=None)
def test_reference(problem):
    image, boxes, size = problem
    found = extract_patches(image[None], boxes[None], size)[0]
    expected = [reference.extract_patch(image.tolist(), box, size) for box in boxes.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


@given(problems(), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_place_reference(problem, height, width):
    image, boxes, size = problem
    patches = torch.rand(len(boxes), image.shape[0], size, size, dtype=torch.float64)
    found = place_patches(patches[None], boxes[None], height, width)[0]
    expected = reference.place_patches(patches.tolist(), boxes.tolist(), height, width)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_gradcheck():
    images = torch.rand(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = smooth_boxes().requires_grad_()
    assert torch.autograd.gradcheck(lambda i, b: extract_patches(i, b, 3), (images, boxes))
    patches = torch.rand(1, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, b: place_patches(p, b, 6, 7), (patches, boxes))
    assert torch.autograd.gradcheck(lambda p, b: place_patches(p, b, 6, 7, window=6), (patches, boxes))


@pytest.mark.parametrize("inverse", [False, True])
def test_gradient_not_missing(inverse):
    """The gradient of every coordinate of every box matches finite differences: none is missing or scaled."""
    boxes = smooth_boxes().requires_grad_()
    source = torch.rand(1, 2, 2, 3, 3, dtype=torch.float64) if inverse else torch.rand(1, 2, 6, 7, dtype=torch.float64)

    def value(at):
        result = place_patches(source, at, 6, 7) if inverse else extract_patches(source, at, 3)
        return (result * torch.linspace(0.5, 1.7, result.numel(), dtype=torch.float64).view(result.shape)).sum()

    (gradient,) = torch.autograd.grad(value(boxes), boxes)
    differences = torch.empty_like(gradient)
    with torch.no_grad():
        for index in range(boxes.numel()):
            step = torch.zeros(boxes.numel(), dtype=torch.float64)
            step[index] = 1e-6
            step = step.view(boxes.shape)
            differences.view(-1)[index] = (value(boxes + step) - value(boxes - step)) / 2e-6
    assert differences.abs().min() > 1e-4
    torch.testing.assert_close(gradient / differences, torch.ones_like(gradient), atol=1e-5, rtol=0)


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_round_trip(side, left, top):
    """S^-1 after S restores a pixel-aligned box and leaves zeros outside it."""
    height, width = top + side + 2, left + side + 1
    image = torch.rand(1, 2, height, width, dtype=torch.float64)
    boxes = torch.tensor([[[left + side / 2, top + side / 2, side, side]]], dtype=torch.float64)
    back = place_patches(extract_patches(image, boxes, side), boxes, height, width)
    expected = torch.zeros_like(image)
    expected[..., top : top + side, left : left + side] = image[..., top : top + side, left : left + side]
    torch.testing.assert_close(back, expected, atol=1e-12, rtol=0)


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_inverse_is_the_adjoint(side, corners):
    """<S(I), P> = <I, S^-1(P)> at unit scale on pixel-aligned boxes inside the image, overlapping ones too."""
    boxes = torch.tensor([[[x + side / 2, y + side / 2, side, side] for x, y in corners]], dtype=torch.float64)
    image = torch.rand(1, 1, 9, 9, dtype=torch.float64)
    patches = torch.rand(1, len(corners), 1, side, side, dtype=torch.float64)
    left = (extract_patches(image, boxes, side) * patches).sum()
    right = (image * place_patches(patches, boxes, 9, 9)).sum()
    assert left.item() == pytest.approx(right.item(), abs=1e-9)


@pytest.mark.parametrize("size", [1, 7, 20, 32])
@pytest.mark.parametrize("corner", [(0, 0), (60, 60), (0, 60), (60, 31)])
def test_a_box_at_the_border_keeps_its_last_row_and_column(size, corner):
    x, y = corner
    patch = extract_patches(torch.ones(1, 1, 80, 80), torch.tensor([[[x + 10.0, y + 10.0, 20.0, 20.0]]]), size)
    torch.testing.assert_close(patch, torch.ones_like(patch), atol=1e-5, rtol=0)


def test_index_frame_box_of_the_specification():
    """[69, 69, 20, 20] where pixel centres are integers: its last sample lies at index 79, the last pixel."""
    patch = extract_patches(torch.ones(1, 1, 80, 80), torch.tensor([[[69.5, 69.5, 20.0, 20.0]]]), 32)
    torch.testing.assert_close(patch, torch.ones_like(patch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (6, 1), (8, 9)])
def test_the_centre_of_every_pixel_returns_the_pixel(height, width):
    """The last one included."""
    image = torch.rand(1, 1, height, width, dtype=torch.float64)
    boxes = torch.tensor([[x + 0.5, y + 0.5, 1.0, 1.0] for y in range(height) for x in range(width)]).double()
    read = extract_patches(image, boxes[None], 1)
    torch.testing.assert_close(read.view(height, width), image[0, 0], atol=1e-12, rtol=0)


def test_a_box_off_the_image_reads_zeros():
    boxes = torch.tensor([[[-20.0, 4.0, 6.0, 6.0], [4.0, 30.0, 6.0, 6.0]]])
    assert not extract_patches(torch.ones(1, 1, 8, 8), boxes, 4).any()
    assert not place_patches(torch.ones(1, 2, 1, 4, 4), boxes, 8, 8).any()


def test_patches_are_of_their_own_image_and_box():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 5, 5).contiguous()
    boxes = torch.tensor([2.5, 2.5, 3.0, 3.0]).expand(6, 4, 4)
    assert torch.equal(extract_patches(images, boxes, 2).mean((2, 3, 4)), torch.arange(6.0)[:, None].expand(6, 4))
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [3.5, 1.5, 1.0, 1.0]]])
    placed = place_patches(torch.tensor([2.0, 5.0]).view(1, 2, 1, 1, 1), boxes, 3, 4)[0, 0]
    assert placed.nonzero().tolist() == [[0, 0], [1, 3]] and placed[0, 0] == 2 and placed[1, 3] == 5


def test_overlapping_patches_add_up():
    boxes = torch.tensor([2.0, 2.0, 4.0, 4.0]).expand(1, 3, 4)
    torch.testing.assert_close(place_patches(torch.ones(1, 3, 1, 4, 4), boxes, 4, 4), torch.full((1, 1, 4, 4), 3.0))


def test_the_image_is_not_repeated_for_each_box():
    k, images = 64, torch.rand(2, 1, 64, 64)
    boxes = torch.cat((torch.rand(2, k, 2) * 64, torch.full((2, k, 2), 6.0)), -1).requires_grad_()
    with LargestOutput() as sampler:
        patches = extract_patches(images, boxes, 4)
        patches.sum().backward()
    assert sampler.elements < 2 * images.numel()
    with LargestOutput() as inverse:
        place_patches(patches.detach(), boxes, 64, 64).sum().backward()
    assert inverse.elements < 0.1 * k * images.numel()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    images = torch.rand(1, 1, 6, 6, dtype=dtype, device=device)
    boxes = torch.tensor([[[3.0, 3.0, 4.0, 4.0]]], dtype=dtype, device=device)
    patches = extract_patches(images, boxes, 4)
    placed = place_patches(patches, boxes, 6, 6)
    assert patches.dtype == placed.dtype == dtype and patches.device.type == placed.device.type == device


def test_batch_equals_singles():
    images, boxes = torch.rand(4, 2, 9, 8), torch.rand(4, 3, 4) * 4 + 2
    patches = extract_patches(images, boxes, 5)
    for index in range(4):
        one = slice(index, index + 1)
        torch.testing.assert_close(extract_patches(images[one], boxes[one], 5), patches[one])
        whole = place_patches(patches, boxes, 9, 8)[one]
        torch.testing.assert_close(place_patches(patches[one], boxes[one], 9, 8), whole)


@pytest.mark.plain
def test_bad_shapes_are_named():
    images, boxes = torch.rand(2, 1, 5, 5), torch.rand(2, 3, 4)
    with pytest.raises(ValueError, match=r"\(1, 5, 5\)"):
        extract_patches(images[0], boxes, 4)
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        extract_patches(images, boxes[0], 4)
    with pytest.raises(ValueError, match=r"\(1, 3, 4\)"):
        extract_patches(images, boxes[:1], 4)
    with pytest.raises(ValueError, match=r"\(2, 3, 2\)"):
        extract_patches(images, boxes[..., :2], 4)
    with pytest.raises(ValueError, match="0"):
        extract_patches(images, boxes, 0)
    with pytest.raises(ValueError, match=r"\(2, 3, 1, 4, 5\)"):
        place_patches(torch.rand(2, 3, 1, 4, 5), boxes, 5, 5)
    with pytest.raises(ValueError, match=r"\(2, 2, 4\).*\(2, 3, 4\)"):
        place_patches(torch.rand(2, 2, 1, 4, 4), boxes, 5, 5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(kind: torch.dtype) -> None:
    """Positions of some hundred pixels need more digits than half precision has."""
    images = torch.rand(1, 1, 40, 600, generator=torch.Generator().manual_seed(0)).to(kind)
    boxes = torch.tensor([[[301.5, 20.25, 16.0, 16.0], [555.5, 19.75, 9.0, 12.0]]])
    patches = extract_patches(images, boxes, 8)
    assert patches.dtype == kind
    torch.testing.assert_close(patches, extract_patches(images.float(), boxes, 8).to(kind))
    placed = place_patches(patches, boxes, 40, 600)
    assert placed.dtype == kind
    torch.testing.assert_close(placed, place_patches(patches.float(), boxes, 40, 600).to(kind))
