from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.render import importance_maps, render_objects
from tests.reference import render as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RULES = ["paper", "released"]
EDGES = ["box", "fade"]


def scene(batch=1, k=3, channels=2, size=(3, 4), canvas=(7, 8), seed=0, dtype=torch.float64):
    """Arguments of ``render_objects``: overlapping objects, inside and across the border."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=random, dtype=dtype)

    limits = torch.tensor([canvas[1], canvas[0]], dtype=dtype)
    boxes = torch.cat((uniform(batch, k, 2) * limits, 1.5 + 4 * uniform(batch, k, 2)), dim=-1)
    return [
        uniform(batch, k, channels, *size),
        0.2 + 0.7 * uniform(batch, k, 1, *size),
        boxes,
        0.3 + 0.6 * uniform(batch, k),
        4 * uniform(batch, k) - 2,
        uniform(batch, channels, *canvas),
    ]


def loop(arguments, rule="paper", edge="box"):
    """The reference on every image of a batch."""
    appearance, alpha, boxes, presence, depth, background = (part.tolist() for part in arguments)
    pictures = []
    for index, under in enumerate(background):
        a = [planes[0] for planes in alpha[index]]
        objects = list(zip(appearance[index], a, boxes[index], presence[index], depth[index], strict=True))
        pictures.append(reference.render(objects, under, rule, edge))
    return torch.tensor(pictures, dtype=arguments[-1].dtype).reshape(arguments[-1].shape)


@st.composite
def problems(draw):
    """Boxes on a lattice of quarters, many of them on pixel centres and edges, some off the canvas."""
    size, canvas = (
        (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        (draw(st.integers(1, 7)), draw(st.integers(1, 7))),
    )
    k, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    arguments = scene(1, k, channels, size, canvas, draw(st.integers(0, 10**6)))
    place = st.integers(-12, 36).map(lambda number: number / 4)
    side = st.sampled_from([0.0, 0.25, 1.0, 2.0, 2.5, 3.0, 9.0])
    arguments[2] = torch.tensor([[[draw(place), draw(place), draw(side), draw(side)] for _ in range(k)]]).double()
    arguments[3] = torch.tensor([[draw(st.sampled_from([0.0, 0.4, 1.0])) for _ in range(k)]]).double()
    return arguments


def opaque(boxes, colours, depth, canvas=(6, 6), background=0.5):
    """One image of objects of one colour each, opaque and present."""
    k = len(boxes)
    appearance = torch.tensor(colours, dtype=torch.float64).view(1, k, 1, 1, 1).expand(1, k, 1, 2, 2)
    boxes, depth = torch.tensor([boxes], dtype=torch.float64), torch.tensor([depth], dtype=torch.float64)
    under = torch.full((1, 1, *canvas), background, dtype=torch.float64)
    return [appearance, torch.ones_like(appearance), boxes, torch.ones_like(depth), depth, under]


@pytest.mark.parametrize("edge", EDGES)
def test_shapes(edge):
    arguments = scene(2, 5, 3, (4, 5), (9, 11))
    assert render_objects(*arguments, edge=edge).shape == (2, 3, 9, 11)
    assert importance_maps(arguments[1], arguments[3], arguments[4]).shape == (2, 5, 1, 4, 5)


@given(problems(), st.sampled_from(RULES), st.sampled_from(EDGES))
@settings(max_examples=80, deadline=None)
def test_reference(arguments, rule, edge):
    found = render_objects(*arguments, importance=rule, edge=edge)
    torch.testing.assert_close(found, loop(arguments, rule, edge), atol=1e-9, rtol=0)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("rule", RULES)
def test_reference_of_a_batch_with_many_sizes(rule, edge):
    """From a quarter of a pixel to the whole canvas, so that there are several groups."""
    arguments = scene(3, 6, 2, (3, 5), (20, 24), seed=1)
    arguments[2][..., 2:] *= torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 9.0]).view(1, 6, 1)
    found = render_objects(*arguments, importance=rule, edge=edge)
    torch.testing.assert_close(found, loop(arguments, rule, edge), atol=1e-9, rtol=0)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("rule", RULES)
def test_gradcheck(rule, edge):
    """No pixel centre within 1e-3 of a box's border or of a map's centre line, where the derivative jumps."""
    arguments = scene(1, 3, 1, (2, 2), (5, 5))
    arguments[2] = torch.tensor([[[1.93, 2.17, 3.3, 2.9], [2.81, 2.67, 3.1, 3.7], [4.63, 4.29, 2.3, 3.1]]]).double()
    tensors = [part.clone().requires_grad_() for part in arguments]
    assert torch.autograd.gradcheck(lambda *parts: render_objects(*parts, importance=rule, edge=edge), tensors)


@pytest.mark.parametrize("edge", EDGES)
def test_gradient_not_missing(edge):
    """For every object and argument; the depths matter where two overlap."""
    arguments = scene(2, 3, 2, (3, 3), (8, 8), seed=4)
    arguments[2][..., :2] = 4 + 0.3 * arguments[2][..., :2] / 8
    tensors = [part.clone().requires_grad_() for part in arguments]
    weight = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    (render_objects(*tensors, edge=edge) * weight).sum().backward()
    for tensor in tensors[:-1]:
        assert tensor.grad is not None and tensor.grad.isfinite().all()
        assert (tensor.grad.flatten(2).abs().sum(2) > 0).all() if tensor.dim() > 2 else (tensor.grad != 0).all()
    assert tensors[-1].grad is not None and (tensors[-1].grad != 0).all()


@pytest.mark.parametrize("edge", EDGES)
def test_a_box_on_the_pixels_has_a_gradient(edge):
    """Pixel centres lie on those of the map: the slope is the mean of both sides."""
    random = torch.Generator().manual_seed(0)
    appearance = torch.rand(1, 1, 1, 4, 4, generator=random).double()
    alpha, one = torch.ones(1, 1, 1, 4, 4).double(), torch.ones(1, 1).double()
    boxes = torch.tensor([[[8.0, 8.0, 4.0, 4.0]]]).double().requires_grad_()
    background, weight = torch.zeros(1, 1, 16, 16).double(), torch.rand(1, 1, 16, 16, generator=random).double()
    (render_objects(appearance, alpha, boxes, one, 0 * one, background, edge=edge) * weight).sum().backward()
    assert boxes.grad is not None and (boxes.grad[..., :2].abs() > 1e-3).all()


@pytest.mark.parametrize("edge", EDGES)
def test_no_objects(edge):
    arguments = scene(2, 0)
    assert torch.equal(render_objects(*arguments, edge=edge), arguments[-1])
    assert render_objects(*scene(0, 2), edge=edge).shape == (0, 2, 7, 8)


@pytest.mark.parametrize("box", [(-20.0, 3, 4, 4), (3, 40.0, 4, 4), (3, 3, 0, 4), (3, 3, 4, -2.0), (1e30, 3, 4, 4)])
@pytest.mark.parametrize("edge", EDGES)
def test_an_object_out_of_view_writes_nothing(box, edge):
    arguments = scene(1, 1)
    arguments[2] = torch.tensor([[box]]).double()
    tensors = [part.requires_grad_() for part in arguments]
    picture = render_objects(*tensors, edge=edge)
    assert torch.equal(picture, arguments[-1])
    picture.sum().backward()
    for tensor in tensors[:-1]:
        assert tensor.grad is not None and not tensor.grad.any()


def test_a_box_contains_its_left_and_top_border_only():
    """Two boxes side by side, their common border on pixel centres: every pixel has one writer."""
    arguments = opaque([(1.5, 3, 2, 6), (3.5, 3, 2, 6)], [0.2, 0.9], [0.0, 0.0])
    expected = torch.tensor([0.2, 0.2, 0.9, 0.9, 0.5, 0.5], dtype=torch.float64).expand(1, 1, 6, 6)
    torch.testing.assert_close(render_objects(*arguments), expected, atol=1e-12, rtol=0)


def test_a_picture_as_its_own_object():
    """A map of the canvas's size on a box of the canvas is returned unchanged, for both edges."""
    picture = torch.rand(1, 1, 3, 5, 7, dtype=torch.float64)
    box = torch.tensor([[[3.5, 2.5, 7, 5]]]).double()
    one = torch.ones(1, 1).double()
    for edge in EDGES:
        found = render_objects(picture, torch.ones_like(picture[:, :, :1]), box, one, one, picture[:, 0] * 0, edge=edge)
        torch.testing.assert_close(found, picture[:, 0], atol=1e-12, rtol=0)


def test_a_single_writer_is_not_divided_by_its_importance():
    """sigmoid(-2000) is 0: a single object is still visible; with another at the same depth, 0 / 0 is background."""
    alone = render_objects(*opaque([(3, 3, 6, 6)], [0.9], [2000.0]))
    torch.testing.assert_close(alone, torch.full_like(alone, 0.9), atol=1e-12, rtol=0)
    pair = opaque([(3, 3, 6, 6), (1.5, 3, 3, 6)], [0.9, 0.1], [2000.0, 2000.0])
    found = render_objects(*pair)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.5] * 3 + [0.9] * 3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_absent_objects_are_background_and_harmless():
    arguments = opaque([(3, 3, 6, 6), (3, 3, 4, 4)], [0.9, 0.1], [0.0, 0.0])
    arguments[3] = torch.zeros(1, 2).double().requires_grad_()
    picture = render_objects(*arguments)
    assert torch.equal(picture, arguments[-1])
    picture.sum().backward()
    assert arguments[3].grad is not None and arguments[3].grad.isfinite().all()
    # An absent object has no share beside a present one by the paper's rule.
    arguments[3] = torch.tensor([[1.0, 0.0]]).double()
    torch.testing.assert_close(render_objects(*arguments), torch.full_like(arguments[-1], 0.9), atol=1e-12, rtol=0)


def test_the_nearer_object_is_on_top_under_both_rules():
    """Equal depths share evenly. -8 against 8 takes all but sigmoid(-8), or but .01 beside 4 by the released floor."""
    boxes, colours = [(3, 3, 6, 6), (3, 3, 6, 6)], [0.0, 1.0]
    for rule, rest in (("paper", 3.3535e-4), ("released", 0.01 / (0.01 + 4 * 0.99966465))):
        even = render_objects(*opaque(boxes, colours, [1.0, 1.0]), importance=rule)
        torch.testing.assert_close(even, torch.full_like(even, 0.5), atol=1e-12, rtol=0)
        second = render_objects(*opaque(boxes, colours, [8.0, -8.0]), importance=rule)
        torch.testing.assert_close(second, torch.full_like(second, 1 - rest), atol=1e-8, rtol=0)


def test_importance_by_hand():
    alpha, one = torch.tensor([0.5, 0.0]).view(1, 1, 1, 1, 2), torch.ones(1, 1)
    assert importance_maps(alpha, one, 0 * one).flatten().tolist() == [0.25, 0.0]
    released = importance_maps(alpha, one, 0 * one, "released").flatten()
    torch.testing.assert_close(released, torch.tensor([1.0, 0.01]))


def test_a_tiny_importance_keeps_the_gradient_exact():
    """In float32, two far objects of equal depth: the result is their mean, with exact gradients."""
    arguments = [part.float() for part in opaque([(3, 3, 6, 6), (3, 3, 6, 6)], [0.9, 0.3], [60.0, 60.0], (2, 2))]
    arguments[3].requires_grad_()
    picture = render_objects(*arguments)
    torch.testing.assert_close(picture, torch.full_like(picture, 0.6))
    (grad,) = torch.autograd.grad(picture.mean(), arguments[3])
    # d/dz of sum g a (o - bg) / sum g with a = z and g proportional to z, at z = 1: (2 d - mean) / 2.
    torch.testing.assert_close(grad, torch.tensor([[(0.8 - 0.1) / 2, (-0.4 - 0.1) / 2]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("presence", [1e-29, 1e-37, 1e-39, 1e-41, 1e-45, 0.0])
def test_an_importance_near_nothing_keeps_the_gradients_finite(presence, edge):
    """Down to numbers whose inverse overflows float32: these give the background."""
    arguments = [part.float() for part in opaque([(3, 3, 6, 6), (3, 3, 6, 6)], [0.9, 0.3], [0.0, 0.0], (2, 2))]
    arguments[3] = torch.full_like(arguments[3], presence)
    for argument in arguments:
        argument.requires_grad_()
    picture = render_objects(*arguments, edge=edge)
    gradients = torch.autograd.grad(picture.sum(), arguments)
    assert picture.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_box_that_is_not_finite_shows(value, edge):
    for place in range(4):
        arguments = scene(2, 3)
        arguments[2][1, 0, place] = value
        picture = render_objects(*arguments, edge=edge)
        assert picture[1].isnan().any() and picture[0].isfinite().all()


def test_fade_is_continuous_in_the_boxes():
    """A box pushed over a pixel centre changes the picture at once with "box", little by little with "fade"."""
    jumps = {}
    for edge in EDGES:
        pictures = [
            render_objects(*opaque([(x, 3, 3, 3)], [0.9], [0.0]), edge=edge) for x in torch.linspace(2, 4, 81).tolist()
        ]
        jumps[edge] = max((b - a).abs().max().item() for a, b in pairwise(pictures))
    assert jumps["fade"] < 0.02 < 0.3 < jumps["box"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    exact = scene(2, 3)
    found = render_objects(*(part.to(device, dtype) for part in exact), edge="fade")
    assert found.dtype == dtype and found.device.type == device
    slack = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 0.1)
    torch.testing.assert_close(found.cpu().double(), render_objects(*exact, edge="fade"), atol=slack, rtol=0)


@pytest.mark.parametrize("edge", EDGES)
def test_batch_equals_singles(edge):
    arguments = scene(4, 5, seed=2)
    whole = render_objects(*arguments, edge=edge)
    for index in range(4):
        one = render_objects(*(part[index : index + 1] for part in arguments), edge=edge)
        torch.testing.assert_close(one, whole[index : index + 1], atol=1e-12, rtol=0)


def test_the_order_of_objects_does_not_matter():
    arguments = scene(1, 5, seed=6)
    turned = [part.flip(1) for part in arguments[:-1]]
    torch.testing.assert_close(render_objects(*turned, arguments[-1]), render_objects(*arguments), atol=1e-12, rtol=0)


@pytest.mark.plain
def test_bad_arguments_are_named():
    arguments = scene(2, 3)
    with pytest.raises(ValueError, match="'near'"):
        render_objects(*arguments, importance="near")
    with pytest.raises(ValueError, match="'soft'"):
        render_objects(*arguments, edge="soft")
    with pytest.raises(ValueError, match=r"\(3, 2, 3, 4\)"):
        render_objects(arguments[0][0], *arguments[1:])
    wrong = {1: (2, 3, 2, 3, 4), 2: (2, 3, 5), 3: (2, 4), 4: (2, 3, 1), 5: (2, 1, 7, 8)}
    for place, shape in wrong.items():
        changed = list(arguments)
        changed[place] = torch.rand(shape).double()
        with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
            render_objects(*changed)
