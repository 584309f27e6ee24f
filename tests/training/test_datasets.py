"""Training takes any map-style ``torch.utils.data.Dataset`` of ``Sample``, and refuses others in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from mistnn.errors import MistError
from mistnn.records import Sample
from mistnn.training import TrainConfig, fit
from mistnn.training.batches import batches, dataset_length
from tests.training.toy import DESCRIBE, FewToys, Toys, ToyStep


class Unlimited(Dataset[Sample]):
    """Without ``__len__``, as ``Dataset`` leaves it."""

    def __getitem__(self, index: int) -> Sample:
        return Toys()[index]


class Endless(Unlimited):
    def __len__(self) -> int:
        return sys.maxsize


class Strict(Dataset[Sample]):
    """A user's data set that takes nothing but the indices that it promises."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if type(index) is not int or not 0 <= index < self.length:
            raise IndexError(index)
        self.asked.append(index)
        return FewToys(self.length)[index]


class Labelled(Dataset[Sample]):
    """Samples of the tuples of a ``TensorDataset``."""

    def __init__(self, tensors: TensorDataset) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int) -> Sample:
        return Sample(*self.tensors[index])


def run(dataset: Any, out: Path, steps: int = 4, workers: int = 0) -> Tensor:
    """The images that a step saw, in order."""
    step = ToyStep()
    config = TrainConfig(steps=steps, batch_size=4, device="cpu", workers=workers)
    assert fit(step, dataset, config, out, describe=DESCRIBE).steps == steps
    return torch.cat(step.seen_images)


def test_a_finite_data_set_is_asked_for_its_own_indices(tmp_path: Path) -> None:
    dataset = Strict(8)
    seen = run(dataset, tmp_path / "run")
    assert sorted(dataset.asked) == sorted([*range(8)] * 2)
    assert torch.equal(seen, run(FewToys(8), tmp_path / "again")), "the base class makes no difference"


@pytest.mark.parametrize("dataset", [Unlimited(), Endless()])
def test_an_unlimited_data_set_counts_on(dataset: Dataset[Sample], tmp_path: Path) -> None:
    assert dataset_length(dataset) is None
    assert torch.equal(run(dataset, tmp_path / "run"), run(Toys(), tmp_path / "again"))


def test_wrappers_of_torch(tmp_path: Path) -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 2, 2)
    labelled = Labelled(TensorDataset(images, torch.ones(6, 2, dtype=torch.int64)))
    for dataset, expected in (
        (labelled, [0, 1, 2, 3, 4, 5]),
        (Subset(labelled, [1, 3, 4, 5]), [1, 3, 4, 5]),
        (Subset(Unlimited(), range(4)), None),
        (ConcatDataset([Subset(labelled, [0, 1]), Subset(labelled, [4, 5])]), [0, 1, 4, 5]),
    ):
        length = len(dataset)
        seen = run(dataset, tmp_path / str(id(dataset)), steps=length)[:, 0, 0, 0]
        if expected is not None:
            assert sorted(seen.tolist()) == sorted(expected * 4), "four epochs of every sample"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_tuples_is_refused_in_one_line(workers: int, tmp_path: Path) -> None:
    tuples = TensorDataset(torch.rand(8, 1, 2, 2), torch.ones(8, 2))
    with pytest.raises(MistError, match="gives a tuple for an index: it must give a mistnn.Sample") as error:
        run(tuples, tmp_path / "run", workers=workers)
    assert "\n" not in str(error.value)


def test_a_mistake_found_by_a_worker_stays_one_line() -> None:
    with pytest.raises(MistError, match=r"^image 3 is broken$"):
        list(batches(Broken(), start=0, stop=2, batch_size=2, seed=0, workers=1))


class Broken(Toys):
    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise MistError("image 3 is broken")
        return super().__getitem__(index)


class Stream(IterableDataset[Sample]):
    def __iter__(self) -> Iterator[Sample]:
        return iter([Toys()[0]])


def test_an_iterable_data_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MistError, match="Stream is an IterableDataset.*give a map-style"):
        run(Stream(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
