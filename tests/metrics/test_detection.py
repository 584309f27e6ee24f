from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from mistnn.metrics import both, greedy_optimal_gap, iou50
from mistnn.metrics.scenes import pad_scenes
from mistnn.records import Detections
from tests.metrics.scenes import as_tensors, images
from tests.reference import metrics as reference

BOX = [10.0, 10.0, 8.0, 8.0]
FAR = [40.0, 40.0, 8.0, 8.0]


def case(boxes, labels, true, true_labels, scores=None):
    return as_tensors([(boxes, scores or [0.5] * len(boxes), labels, true, true_labels)])


@given(images())
@settings(max_examples=60, deadline=None)
def test_reference(cases):
    detections, boxes, labels = as_tensors(cases)
    assert iou50(detections, boxes) == pytest.approx(reference.iou50(cases), nan_ok=True)
    assert both(detections, boxes, labels) == pytest.approx(reference.both(cases), nan_ok=True)


def test_found_with_the_wrong_class():
    detections, boxes, labels = case([BOX, FAR], [1, 3], [BOX, FAR], [1, 2])
    assert iou50(detections, boxes) == 1.0
    assert both(detections, boxes, labels) == 0.5


def test_one_detection_over_two_objects_counts_once():
    near = [11.0, 10.0, 8.0, 8.0]
    detections, boxes, labels = case([BOX], [1], [BOX, near], [1, 1])
    assert iou50(detections, boxes) == 0.5
    assert both(detections, boxes, labels) == 0.5


def test_duplicates_count_once():
    detections, boxes, labels = case([BOX, BOX, BOX], [1, 1, 1], [BOX, FAR], [1, 1])
    assert iou50(detections, boxes) == 0.5
    assert both(detections, boxes, labels) == 0.5


def test_a_wrong_class_does_not_stand_in_the_way():
    near = [11.0, 10.0, 8.0, 8.0]
    detections, boxes, labels = case([BOX, near], [2, 1], [BOX], [1])
    assert both(detections, boxes, labels) == 1.0


def test_an_overlap_of_exactly_one_half_is_no_match():
    half = [10.0, 10.0, 4.0, 8.0]
    detections, boxes, labels = case([half], [1], [BOX], [1])
    assert iou50(detections, boxes) == 0.0
    assert both(detections, boxes, labels) == 0.0


def test_empty_sides():
    assert iou50(*case([], [], [BOX], [1])[:2]) == 0.0
    assert math.isnan(iou50(*case([BOX], [1], [], [])[:2]))
    assert math.isnan(both(*case([], [], [], [])))


def test_gap_of_greedy_matching():
    # The middle detection suits both objects, the left one best; the left detection suits the left object only.
    true = [[10.0, 10.0, 8.0, 8.0], [12.0, 10.0, 8.0, 8.0]]
    found = [[10.75, 10.0, 8.0, 8.0], [8.5, 10.0, 8.0, 8.0]]
    detections, boxes, _ = case(found, [0, 0], true, [0, 0])
    assert iou50(detections, boxes) == 1.0 - greedy_optimal_gap(detections, boxes) == 0.5


def test_padding_is_inert():
    """The images of a batch have different numbers of boxes: together they give the sums of each alone."""
    cases = [
        ([BOX], [0.5], [0], [BOX, FAR], [0, 0]),
        ([], [], [], [FAR], [1]),
        ([FAR, BOX], [0.1, 0.2], [1, 1], [], []),
    ]
    scenes = pad_scenes(*as_tensors(cases))
    assert scenes.objects == 3
    assert scenes.is_found.sum(1).tolist() == [1, 0, 2]
    assert not scenes.same_label()[1:].any()
    assert (scenes.iou[1:] == -1).all()
    found, true = scenes.histograms()
    assert found.tolist() == [[1, 0], [0, 0], [0, 2]] and true.tolist() == [[2, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detections": []}, "at least one image"),
        ({"boxes": []}, "1 images have detections, but 0 have true boxes"),
        ({"labels": []}, "0 have true labels"),
        ({"labels": [torch.tensor([1, 2])]}, "image 0 has 1 true boxes but 2 labels"),
        ({"labels": [torch.tensor([-1])]}, "got -1"),
        ({"boxes": [torch.ones(1, 5)]}, r"true boxes of image 0 .*\(1, 5\)"),
        ({"boxes": [torch.full((1, 4), torch.nan)]}, "true boxes of image 0 are not finite"),
    ],
)
def test_bad_input(change, message):
    detections, boxes, labels = case([BOX], [1], [BOX], [1])
    arguments = {"detections": detections, "boxes": boxes, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        pad_scenes(**arguments)


@pytest.mark.plain
def test_bad_detections():
    box = torch.tensor([BOX])
    with pytest.raises(ValueError, match="image 0 has 1 detected boxes but 2 scores"):
        iou50([Detections(box, torch.ones(2))], [box])
    with pytest.raises(ValueError, match="detection scores of image 1 are not finite"):
        iou50([Detections(box, torch.ones(1)), Detections(box, torch.tensor([torch.inf]))], [box, box])
    with pytest.raises(ValueError, match="1 of 2 detections carry labels"):
        iou50([Detections(box, torch.ones(1)), Detections(box, torch.ones(1), torch.tensor([1]))], [box, box])
    with pytest.raises(ValueError, match="needs labels"):
        both([Detections(box, torch.ones(1))], [box], [torch.tensor([1])])
