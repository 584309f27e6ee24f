from __future__ import annotations

import contextlib
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.metrics import COCO_THRESHOLDS, AveragePrecision, average_precision
from mistnn.records import Detections
from tests.metrics.scenes import as_tensors, images, random_images
from tests.reference import metrics as reference

BOX = [10.0, 10.0, 8.0, 8.0]
FAR = [40.0, 40.0, 8.0, 8.0]


@given(images(), st.sampled_from([None, 11, 101]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_reference(cases, points, class_aware):
    thresholds = (0.0, 0.5, 0.75)
    found = average_precision(*as_tensors(cases), thresholds=thresholds, class_aware=class_aware, points=points)
    expected = [reference.average_precision(cases, limit, class_aware, points) for limit in thresholds]
    assert found == pytest.approx(expected, nan_ok=True)


@given(images(), st.randoms())
@settings(max_examples=30, deadline=None)
def test_order_of_images_is_irrelevant(cases, shuffler):
    """Scores tie on purpose: the result must not depend on the order of the processes."""
    before = average_precision(*as_tensors(cases))
    shuffler.shuffle(cases)
    assert average_precision(*as_tensors(cases)) == pytest.approx(before, nan_ok=True)


def test_against_pycocotools():
    pytest.importorskip("pycocotools")
    cases = random_images(40, seed=1)
    ours = average_precision(*as_tensors(cases), thresholds=COCO_THRESHOLDS, points=101)
    theirs = coco(cases)
    assert 0.2 < ours[0] < 0.95  # neither nothing nor everything
    assert ours[0] == pytest.approx(theirs[0], abs=1e-9)
    assert sum(ours) / 10 == pytest.approx(theirs[1], abs=1e-9)
    exact = average_precision(*as_tensors(cases))[0]
    assert exact == pytest.approx(theirs[0], abs=0.02)  # all points instead of 101


def coco(cases):
    """(mean AP at IoU 0.5, mean AP over all thresholds) of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def corner(box):
        return [box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3]]

    truth, found = [], []
    for image, (boxes, scores, labels, true, true_labels) in enumerate(cases, start=1):
        for box, label in zip(true, true_labels, strict=True):
            area = box[2] * box[3]
            truth.append({"image_id": image, "category_id": label + 1, "bbox": corner(box), "area": area, "iscrowd": 0})
        for box, score, label in zip(boxes, scores, labels, strict=True):
            found.append({"image_id": image, "category_id": label + 1, "bbox": corner(box), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, len(cases) + 1)],
            "categories": [{"id": label + 1} for label in range(4)],
            "annotations": [annotation | {"id": number} for number, annotation in enumerate(truth, start=1)],
        }
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[1], evaluation.stats[0]


def test_by_hand():
    # In order of score: right, wrong, right. Precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    cases = [([BOX, [70.0, 70.0, 8.0, 8.0], FAR], [0.9, 0.8, 0.7], [1, 1, 1], [BOX, FAR], [1, 1])]
    assert average_precision(*as_tensors(cases))[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_equal_scores_enter_together():
    cases = [([BOX, [70.0, 70.0, 8.0, 8.0]], [0.5, 0.5], [1, 1], [BOX], [1])]
    assert average_precision(*as_tensors(cases))[0] == 0.5


def test_duplicates_and_double_cover():
    duplicated = [([BOX, BOX], [0.9, 0.8], [1, 1], [BOX, FAR], [1, 1])]
    assert average_precision(*as_tensors(duplicated))[0] == 0.5
    covering = [([BOX], [0.9], [1], [BOX, BOX], [1, 1])]
    assert average_precision(*as_tensors(covering))[0] == 0.5


def test_threshold_zero_judges_the_classes_alone():
    elsewhere = [([FAR, FAR], [0.9, 0.8], [1, 2], [BOX, BOX], [1, 2])]
    assert average_precision(*as_tensors(elsewhere), thresholds=(0.0, 0.5)) == (1.0, 0.0)
    wrong = [([BOX, BOX], [0.9, 0.8], [3, 2], [BOX, BOX], [1, 2])]
    assert average_precision(*as_tensors(wrong), thresholds=(0.0,)) == (0.5,)


def test_the_threshold_itself_is_a_hit():
    half = [([[10.0, 10.0, 4.0, 8.0]], [0.9], [1], [BOX], [1])]
    assert average_precision(*as_tensors(half), thresholds=(0.5,)) == (1.0,)


def test_classes_ignored():
    cases = [([BOX, FAR], [0.9, 0.8], [3, 3], [BOX, FAR], [1, 2])]
    assert average_precision(*as_tensors(cases)) == (0.0,)
    assert average_precision(*as_tensors(cases), class_aware=False) == (1.0,)
    assert average_precision(*as_tensors(cases, with_labels=False), class_aware=False) == (1.0,)


def test_empty_sides():
    assert average_precision(*as_tensors([([], [], [], [BOX], [1])])) == (0.0,)
    assert math.isnan(average_precision(*as_tensors([([BOX], [0.5], [1], [], [])]))[0])
    assert math.isnan(average_precision(*as_tensors([([], [], [], [], [])]), class_aware=False)[0])


def test_bad_input():
    given_ = as_tensors([([BOX], [0.5], [1], [BOX], [1])])
    with pytest.raises(ValueError, match=r"\(50.0,\)"):
        average_precision(*given_, thresholds=(50.0,))
    with pytest.raises(ValueError, match="at least one"):
        average_precision(*given_, thresholds=())
    with pytest.raises(ValueError, match="got 1"):
        average_precision(*given_, points=1)
    with pytest.raises(ValueError, match="needs labels"):
        average_precision(*given_[:2])


def test_float32_scores_rank_as_given():
    cases = as_tensors([([BOX, FAR], [0.9, 0.8], [1, 1], [BOX], [1])])
    detections = [cases[0][0]._replace(scores=torch.tensor([0.8, 0.9]))]
    assert average_precision(detections, *cases[1:]) == (0.5,)


def test_strict_wants_more_than_the_threshold() -> None:
    """A detection that covers exactly half of an object's box, at a threshold of a half."""
    found = [Detections(torch.tensor([[1.0, 0.5, 2, 1]]), torch.ones(1))]
    boxes = [torch.tensor([[0.5, 0.5, 1.0, 1.0]])]
    assert average_precision(found, boxes, class_aware=False) == (1.0,)
    assert average_precision(found, boxes, class_aware=False, strict=True) == (0.0,)
    assert average_precision(found, boxes, thresholds=(0.49,), class_aware=False, strict=True) == (1.0,)
    for strict, expected in ((False, 1.0), (True, 0.0)):
        metric = AveragePrecision(class_aware=False, points=11, strict=strict)
        metric.update(found, boxes)
        assert metric.compute() == {"ap50": expected}
