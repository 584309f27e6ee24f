"""Images with detections for the tests: as plain lists for the oracles, and as tensors for the metrics."""

from __future__ import annotations

import random

import torch
from hypothesis import strategies as st

from mistnn.records import Detections

# Few places, sizes, scores and classes, so that ties, duplicates and exact overlaps of one half are frequent.
_box = st.tuples(*[st.sampled_from([2.0, 3.0, 4.0, 6.0])] * 2, *[st.sampled_from([2.0, 4.0])] * 2)
_label = st.integers(0, 2)
_score = st.sampled_from([0.1, 0.5, 0.6, 0.9])


@st.composite
def images(draw, largest=4):
    """A list of (boxes, scores, labels, true boxes, true labels)."""
    cases = []
    for _ in range(draw(st.integers(1, 4))):
        found = draw(st.lists(st.tuples(_box, _score, _label), max_size=largest))
        true = draw(st.lists(st.tuples(_box, _label), max_size=largest))
        cases.append(
            (
                [list(box) for box, _, _ in found],
                [score for _, score, _ in found],
                [label for _, _, label in found],
                [list(box) for box, _ in true],
                [label for _, label in true],
            )
        )
    return cases


def random_images(number, seed, largest=6, classes=4):
    """Like ``images``, with places and scores that rarely tie, and detections near the objects."""
    draw = random.Random(seed)
    cases = []
    for _ in range(number):
        true = [[draw.uniform(5, 40), draw.uniform(5, 40), 10.0, 12.0] for _ in range(draw.randint(0, largest))]
        true_labels = [draw.randrange(classes) for _ in true]
        boxes, labels = [], []
        for box, label in zip(true, true_labels, strict=True):
            if draw.random() < 0.85:
                boxes.append([value + draw.gauss(0, 1.5) for value in box])
                labels.append(label if draw.random() < 0.8 else draw.randrange(classes))
        if draw.random() < 0.5:
            boxes.append([draw.uniform(5, 40), draw.uniform(5, 40), 10.0, 12.0])
            labels.append(draw.randrange(classes))
        cases.append((boxes, [draw.random() for _ in boxes], labels, true, true_labels))
    return cases


def random_pictures(number, seed, shape=(1, 4, 5)):
    """(reconstructions, images) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(number, *shape, generator=generator)
    return (truth + 0.2 * torch.randn(truth.shape, generator=generator)), truth


def as_tensors(cases, with_labels=True):
    """(detections, true boxes, true labels) of plain images."""
    detections = [
        Detections(
            torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
            torch.tensor(scores, dtype=torch.float64),
            torch.tensor(labels, dtype=torch.int64) if with_labels else None,
        )
        for boxes, scores, labels, _, _ in cases
    ]
    true = [torch.tensor(case[3], dtype=torch.float64).reshape(-1, 4) for case in cases]
    return detections, true, [torch.tensor(case[4], dtype=torch.int64) for case in cases] if with_labels else None
