from __future__ import annotations

import pytest
import torch

from mistnn.records import Sample, collate


def sample(side=4, objects=2, **changes):
    full = Sample(
        image=torch.rand(1, side, side),
        counts=torch.tensor([objects, 0]),
        boxes=torch.rand(objects, 4),
        labels=torch.zeros(objects, dtype=torch.int64),
        presence=torch.tensor([objects > 0, False]),
        size=torch.tensor([side, side - 1]),
    )
    return full._replace(**changes)


def test_collate_joins():
    samples = [sample(objects=2), sample(objects=0), sample(objects=3)]
    batch = collate(samples)
    assert batch.images.shape == (3, 1, 4, 4) and torch.equal(batch.images[2], samples[2].image)
    assert batch.counts is not None and batch.counts.tolist() == [[2, 0], [0, 0], [3, 0]]
    assert batch.boxes is not None and [len(boxes) for boxes in batch.boxes] == [2, 0, 3]
    assert batch.sizes is not None and batch.sizes.tolist() == [[4, 3]] * 3
    assert batch.presence is not None and batch.presence.tolist() == [[True, False], [False, False], [True, False]]
    assert batch.labels is not None and torch.equal(batch.labels[0], samples[0].labels)


def test_collate_of_one():
    assert collate([sample()]).images.shape == (1, 1, 4, 4)


def test_what_is_missing_stays_missing():
    batch = collate([Sample(torch.rand(1, 4, 4)), Sample(torch.rand(1, 4, 4))])
    assert batch.counts is None and batch.boxes is None and batch.labels is None and batch.presence is None


def test_no_samples():
    with pytest.raises(ValueError, match="none"):
        collate([])


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(1, 5, 5\)"):
        collate([sample(4), sample(5)])


@pytest.mark.parametrize("name", ["counts", "boxes", "labels", "presence", "size"])
@pytest.mark.parametrize("first", [True, False])
def test_annotations_in_all_or_none(name, first):
    pair = [sample(), sample(**{name: None})]
    with pytest.raises(ValueError, match=f"1 of 2 samples carry {name}"):
        collate(pair if first else pair[::-1])
