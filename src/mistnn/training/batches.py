"""Which samples make batch number t, and the batches themselves.

Batch t is a pure function of t, so a resumed run sees the batches that the uninterrupted one would have seen, and
several processes share a batch without speaking to each other.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mistnn.errors import MistError
from mistnn.records import Batch, Sample, collate


@runtime_checkable
class MapDataset(Protocol):
    """Samples by index; unlimited without ``__len__`` or of length ``sys.maxsize``: any index from 0 on is one."""

    def __getitem__(self, index: int, /) -> Sample:
        """The sample of an index, the same each time."""
        ...


@runtime_checkable
class BatchDataset(MapDataset, Protocol):
    """Samples that are made faster many at once than one by one."""

    def batch(self, indices: Sequence[int], /) -> Batch:
        """The samples of some indices, as collating them one by one would join them."""
        ...


def dataset_length(dataset: MapDataset) -> int | None:
    """Number of samples, or ``None`` for an unlimited data set: one without ``__len__``, or of length ``sys.maxsize``.

    Raises:
        MistError: if the data set is empty.
    """
    length = len(dataset) if isinstance(dataset, Sized) else None
    if length == 0:
        raise MistError("the training data set holds 0 samples: give at least one image")
    return None if length == sys.maxsize else length


def share_of_batch(batch_size: int, rank: int, processes: int) -> slice:
    """The contiguous part of the joined batch that one process works on.

    Raises:
        MistError: if the batch cannot be cut into equal parts; with unequal ones the mean of the processes'
            gradients would not be the gradient of the joined batch.
    """
    if batch_size % processes:
        nearest = max(1, batch_size // processes) * processes
        raise MistError(
            f"train.batch_size={batch_size} cannot be shared among {processes} processes: "
            f"give a multiple of {processes}, e.g. {nearest}"
        )
    share = batch_size // processes
    return slice(rank * share, (rank + 1) * share)


def batch_indices(iteration: int, batch_size: int, length: int | None, seed: int) -> list[int]:
    """Indices of the samples in the joined batch of one iteration.

    Convention:
        Unlimited data count on: t B, t B + 1, ... Finite data are permuted anew for each epoch and the epochs are
        strung together, so each epoch holds every index exactly once, and a batch is always full: it may begin in
        one epoch and end in the next.

    Args:
        iteration: t, from 0.
        batch_size: B, over all processes.
        length: number of samples, or ``None`` for unlimited data.
        seed: of the permutations; unlimited data are seeded by the data set itself.
    """
    positions = range(iteration * batch_size, (iteration + 1) * batch_size)
    if length is None:
        return list(positions)
    return [int(_permutation(length, seed, position // length)[position % length]) for position in positions]


@lru_cache(maxsize=2)  # two, since a batch may straddle two epochs
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(length)


def batches(
    dataset: MapDataset,
    *,
    start: int,
    stop: int,
    batch_size: int,
    seed: int,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Iterator[tuple[int, Batch]]:
    """Yields (iteration, this process's part of the batch) for the iterations from ``start`` to ``stop`` - 1.

    Args:
        dataset: finite where it has a length, else unlimited.
        start: first iteration.
        stop: one past the last iteration.
        batch_size: of the joined batch.
        seed: of the order of finite data.
        rank: this process's number, from 0.
        processes: how many processes share the batch.
        workers: extra processes that prepare the next batches meanwhile; they change no value.

    Raises:
        MistError: if the data set is empty or the batch cannot be shared equally.
    """
    length = dataset_length(dataset)
    indices = _Indices(range(start, stop), batch_size, length, seed, share_of_batch(batch_size, rank, processes))
    joined = _Joined(dataset)
    if workers == 0:
        prepared = (joined[batch] for batch in indices)
    else:
        prepared = DataLoader(
            joined,  # pyright: ignore[reportArgumentType]  # asks for a nominal subclass, needs only __getitem__
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # else it draws from the global generator, whose state a checkpoint keeps
        )
    yield from zip(range(start, stop), prepared, strict=True)


@dataclass(frozen=True)
class _Joined:
    """Batches by their indices."""

    dataset: MapDataset

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        if isinstance(self.dataset, BatchDataset):
            return self.dataset.batch(indices)
        return collate([self.dataset[index] for index in indices])


@dataclass(frozen=True)
class _Indices:
    """The lists of indices of one process, an iteration each; computed as they are asked for."""

    iterations: range
    batch_size: int
    length: int | None
    seed: int
    share: slice

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in self.iterations:
            yield batch_indices(iteration, self.batch_size, self.length, self.seed)[self.share]

    def __len__(self) -> int:
        return len(self.iterations)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""

    def move(value: Tensor | list[Tensor] | None) -> Tensor | list[Tensor] | None:
        if isinstance(value, list):
            return [tensor.to(device, non_blocking=True) for tensor in value]
        return None if value is None else value.to(device, non_blocking=True)

    return Batch(*map(move, batch))  # pyright: ignore[reportArgumentType]


def _leave_interrupts_to_the_parent(worker: int) -> None:
    # A terminal sends Ctrl-C to every process of the group; the parent still needs its workers for the last batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
