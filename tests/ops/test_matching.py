from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match, optimal_match
from tests.reference import metrics as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Few values, so that ties and touching boxes are frequent.
box_lists = st.lists(
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.5, 4.0, 7.0])] * 2, *[st.sampled_from([0.0, 1.0, 2.0, 4.0])] * 2),
    max_size=6,
)


@st.composite
def problems(draw, largest=5):
    rows, columns = draw(st.integers(0, largest)), draw(st.integers(0, largest))
    value = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
    table = [[draw(value) for _ in range(columns)] for _ in range(rows)]
    mask = [[draw(st.booleans()) or draw(st.booleans()) for _ in range(columns)] for _ in range(rows)]
    return (
        torch.tensor(table, dtype=torch.float64).reshape(rows, columns),
        torch.tensor(mask, dtype=torch.bool).reshape(rows, columns),
        draw(st.sampled_from([-1.0, 0.0, 0.5, 0.8])),
    )


def test_shapes():
    assert box_iou(torch.rand(2, 3, 5, 4), torch.rand(2, 3, 7, 4)).shape == (2, 3, 5, 7)
    assert greedy_match(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5)
    assert optimal_match(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5)


@pytest.mark.parametrize("rule", [greedy_match, optimal_match])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (2, 3, 0), (0, 2, 3)])
def test_nothing_to_match(rule, shape):
    match = rule(torch.ones(shape))
    assert match.shape == shape[:-1]
    assert (match == UNMATCHED).all()


@given(box_lists, box_lists)
@settings(max_examples=100, deadline=None)
def test_iou_reference(a, b):
    rows, columns = (torch.tensor(part, dtype=torch.float64).reshape(-1, 4) for part in (a, b))
    expected = torch.tensor([[reference.iou(x, y) for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(box_iou(rows, columns), expected.reshape(len(a), len(b)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((5.0, 5.0, 4.0, 2.0), (5.0, 5.0, 4.0, 2.0), 1.0),
        ((5.0, 5.0, 4.0, 4.0), (7.0, 5.0, 4.0, 4.0), 1 / 3),
        ((5.0, 5.0, 4.0, 4.0), (9.0, 5.0, 4.0, 4.0), 0.0),  # touching
        ((5.0, 5.0, 4.0, 4.0), (5.0, 5.0, 2.0, 4.0), 0.5),
        ((5.0, 5.0, 0.0, 4.0), (5.0, 5.0, 0.0, 4.0), 0.0),  # no area
        ((5.0, 5.0, -2.0, 4.0), (5.0, 5.0, 2.0, 4.0), 0.0),  # negative width
    ],
)
def test_iou_by_hand(a, b, expected):
    assert box_iou(torch.tensor([a]), torch.tensor([b])).item() == pytest.approx(expected, abs=1e-7)


def test_iou_gradcheck():
    a = torch.tensor([[5.0, 5.0, 4.0, 4.0], [3.0, 3.0, 3.0, 5.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[6.0, 5.5, 4.2, 3.4]], dtype=torch.float64, requires_grad=True)  # no edges coincide
    assert torch.autograd.gradcheck(box_iou, (a, b))


def test_iou_of_empty_boxes_has_a_finite_gradient():
    a = torch.zeros(1, 4, requires_grad=True)
    box_iou(a, torch.zeros(1, 4)).sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    boxes = torch.tensor([[400.0, 400.0, 300.0, 300.0]], dtype=dtype, device=device)
    iou = box_iou(boxes, boxes)
    assert iou.dtype == dtype and iou.device.type == device
    assert iou.item() == 1.0  # the area, 90,000, is beyond float16
    for rule in (greedy_match, optimal_match):
        match = rule(iou)
        assert match.dtype == torch.int64 and match.device.type == device and match.tolist() == [0]


@given(problems())
@settings(max_examples=150, deadline=None)
def test_greedy_reference(problem):
    affinity, eligible, threshold = problem
    assert greedy_match(affinity, threshold).tolist() == reference.greedy_match(affinity.tolist(), threshold)
    expected = reference.greedy_match(affinity.tolist(), threshold, eligible.tolist())
    assert greedy_match(affinity, threshold, eligible).tolist() == expected


@given(problems(largest=4))
@settings(max_examples=100, deadline=None)
def test_optimal_reference(problem):
    affinity, eligible, threshold = problem
    match = optimal_match(affinity, threshold, eligible)
    rows = (match != UNMATCHED).nonzero().squeeze(1)
    columns = match[rows]
    assert len(columns.unique()) == len(columns)
    assert eligible[rows, columns].all() and (affinity[rows, columns] > threshold).all()
    pairs, total = reference.optimal_match_value(affinity.tolist(), threshold, eligible.tolist())
    assert len(rows) == pairs
    assert affinity[rows, columns].sum().item() == pytest.approx(total)


@pytest.mark.parametrize("rule", [greedy_match, optimal_match])
def test_batch_equals_singles(rule):
    affinity = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rule(affinity), torch.stack([rule(one) for one in affinity]))


def test_ties_go_to_the_lowest_detection_then_object():
    assert greedy_match(torch.full((3, 2), 0.9)).tolist() == [0, 1, UNMATCHED]
    assert greedy_match(torch.full((2, 3), 0.9)).tolist() == [0, 1]


def test_threshold_is_strict():
    assert greedy_match(torch.tensor([[0.5]])).tolist() == [UNMATCHED]
    assert optimal_match(torch.tensor([[0.5]])).tolist() == [UNMATCHED]
    assert greedy_match(torch.tensor([[0.5001]])).tolist() == [0]


def test_nan_is_never_matched():
    affinity = torch.tensor([[torch.nan, 0.8], [0.9, torch.nan]])
    assert greedy_match(affinity).tolist() == [1, 0]
    assert optimal_match(affinity).tolist() == [1, 0]


def test_greedy_may_match_fewer_than_optimal():
    affinity = torch.tensor([[0.9, 0.8], [0.7, 0.1]])
    assert greedy_match(affinity).tolist() == [0, UNMATCHED]
    assert optimal_match(affinity).tolist() == [1, 0]


def test_one_more_pair_is_worth_any_affinity():
    affinity = torch.tensor([[0.01, 1.0, 0.0], [0.0, 0.01, 1.0], [0.0, 0.0, 0.01]])
    assert optimal_match(affinity, 0.0).tolist() == [0, 1, 2]  # 3 pairs at .01, not 2 pairs at 1


def test_inputs_are_left_alone():
    affinity = torch.rand(4, 4)
    before = affinity.clone()
    greedy_match(affinity)
    optimal_match(affinity)
    assert torch.equal(affinity, before)


@pytest.mark.plain
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        box_iou(torch.rand(3, 5), torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"b must .*\(4,\)"):
        box_iou(torch.rand(3, 4), torch.rand(4))
    with pytest.raises(ValueError, match=r"int64.*float"):
        box_iou(torch.ones(3, 4, dtype=torch.int64), torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"\(7,\)"):
        greedy_match(torch.rand(7))
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 2\)"):
        greedy_match(torch.rand(2, 3), 0.5, torch.ones(3, 2, dtype=torch.bool))


def test_optimal_wants_affinities_up_to_one():
    with pytest.raises(ValueError, match=r"1\.5"):
        optimal_match(torch.tensor([[1.5]]))
