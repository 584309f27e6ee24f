from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from mistnn.metrics import (
    AveragePrecision,
    CentreMetrics,
    DetectionMetrics,
    ReconstructionMetrics,
    average_precision,
    greedy_optimal_gap,
)
from tests.metrics import gloo_worker
from tests.metrics.scenes import as_tensors, images, random_images, random_pictures
from tests.reference import metrics as reference

KEYS = {
    "iou50",
    "both",
    "classified",
    "classified_paper",
    "ap50",
    "ap",
    "count_error",
    "images",
    "objects",
    "greedy_optimal_gap",
}
NEED_LABELS = {"both", "classified", "classified_paper", "ap50", "ap"}
BOX = [10.0, 10.0, 8.0, 8.0]


def evaluate(cases, size, with_labels=True):
    metrics = DetectionMetrics()
    for first in range(0, len(cases), size):
        metrics.update(*as_tensors(cases[first : first + size], with_labels))
    return metrics.compute()


@given(images())
@settings(max_examples=20, deadline=None)
def test_reference(cases):
    found = evaluate(cases, size=2)
    objects = sum(len(case[3]) for case in cases)
    assert found["images"] == len(cases) and found["objects"] == objects
    assert found["count_error"] == pytest.approx(sum(abs(len(c[0]) - len(c[3])) for c in cases) / len(cases))
    if not objects:
        assert set(found) == {"images", "objects", "count_error"}
        return
    assert set(found) == KEYS
    for name in ("iou50", "both", "classified", "classified_paper"):
        assert found[name] == pytest.approx(getattr(reference, name)(cases)), name
    assert found["ap50"] == pytest.approx(reference.average_precision(cases, 0.5))
    sweep = [reference.average_precision(cases, round(0.5 + 0.05 * step, 2)) for step in range(10)]
    assert found["ap"] == pytest.approx(sum(sweep) / 10)
    assert found["greedy_optimal_gap"] == pytest.approx(greedy_optimal_gap(*as_tensors(cases)[:2]))
    assert all(isinstance(value, float) for value in found.values())


@pytest.mark.parametrize("size", [1, 4, 17])
def test_batches_are_irrelevant(size):
    cases = random_images(17, seed=7)
    assert evaluate(cases, size) == pytest.approx(evaluate(cases, 5))


def test_missing_labels_are_absent_and_never_zero():
    found = evaluate(random_images(8, seed=1), size=3, with_labels=False)
    assert set(found) == KEYS - NEED_LABELS
    detections, boxes, _ = as_tensors(random_images(8, seed=1))
    metrics = DetectionMetrics()
    metrics.update(detections, boxes)  # the model has classes, the truth hasn't
    assert metrics.compute() == found


def test_labels_for_some_images_only():
    cases = random_images(4, seed=1)
    metrics = DetectionMetrics()
    metrics.update(*as_tensors(cases))
    metrics.update(*as_tensors(cases, with_labels=False))
    with pytest.raises(ValueError, match="4 of 8 images"):
        metrics.compute()


def test_nine_zeros_called_ones():
    boxes = [[10.0 + 20 * (i % 3), 10.0 + 20 * (i // 3), 16.0, 16.0] for i in range(9)]
    found = evaluate([(boxes, [0.5] * 9, [1] * 9, boxes, [0] * 9)], size=1)
    assert found["iou50"] == 1.0 and found["both"] == found["classified"] == found["ap50"] == 0.0
    assert found["classified_paper"] == 1.0


def test_reset_forgets():
    metrics = DetectionMetrics()
    metrics.update(*as_tensors(random_images(5, seed=3)))
    metrics.reset()
    metrics.update(*as_tensors([([BOX], [0.5], [1], [BOX], [1])]))
    assert metrics.compute()["ap"] == 1.0 and metrics.compute()["objects"] == 1


def test_forward_returns_the_batch_and_keeps_the_rest():
    cases = random_images(8, seed=3)
    metrics = DetectionMetrics()
    metrics(*as_tensors(cases[:5]))
    assert metrics(*as_tensors(cases[5:])) == pytest.approx(evaluate(cases[5:], 3))
    assert metrics.compute() == pytest.approx(evaluate(cases, 8))


def test_average_precision_names_its_thresholds():
    cases = random_images(9, seed=4)
    metrics = AveragePrecision((0.0, 0.5, 0.625), class_aware=False, points=101)
    metrics.update(*as_tensors(cases[:4]))
    metrics.update(*as_tensors(cases[4:]))
    expected = average_precision(*as_tensors(cases), thresholds=(0.0, 0.5, 0.625), class_aware=False, points=101)
    assert metrics.compute() == pytest.approx(dict(zip(("ap00", "ap50", "ap62.5"), expected, strict=True)))


def test_centre_and_reconstruction():
    cases = random_images(9, seed=4)
    centre = CentreMetrics(background=0)
    pictures, truth = random_pictures(9, seed=4)
    made = ReconstructionMetrics((1, 4, 5))
    for part in (slice(0, 5), slice(5, 9)):
        centre.update(*as_tensors(cases[part]))
        made.update(pictures[part], truth[part])
    assert tuple(centre.compute().values()) == pytest.approx(reference.centre_scores(cases, 0))
    expected = reference.reconstruction_errors(pictures.flatten(1).tolist(), truth.flatten(1).tolist())
    assert tuple(made.compute().values()) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"\(1, 4, 5\), got \(1, 5, 5\)"):
        made.update(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5))


def test_two_processes_equal_one(tmp_path):
    """Gloo; shares of 11 and 6 images, then of 17 and none."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, gloo_worker.__file__]
    workers = [
        subprocess.Popen(
            [*command, str(rank), "2", str(tmp_path / "rendezvous"), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    cases, pictures = random_images(17, seed=5), random_pictures(17, seed=5)
    expected = gloo_worker.results(cases, pictures, 0, 17)
    for name in ("uneven", "idle"):
        together = json.loads(Path(tmp_path, f"{name}.json").read_text())
        assert together.keys() == expected.keys()
        for metric, found in together.items():
            assert found == pytest.approx(expected[metric], abs=1e-12), (name, metric)


def test_import_is_light():
    """The classes load torchmetrics, and with it pyplot; the functions load neither."""
    code = (
        "import sys, mistnn.metrics as m; m.iou50; "
        "sys.exit(str([x for x in ('torchmetrics', 'matplotlib', 'scipy', 'torchvision') if x in sys.modules] or ''))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == ""


def test_unknown_name():
    import mistnn.metrics

    with pytest.raises(AttributeError, match="nonsense"):
        mistnn.metrics.nonsense  # noqa: B018
