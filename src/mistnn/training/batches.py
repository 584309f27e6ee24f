"""The batches of a data set, and the order of its samples.

Batch number t is a pure function of t. A resumed run therefore sees the batches that the uninterrupted run would have
seen, and several processes share a batch without communicating.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mistnn.errors import MistError
from mistnn.records import Batch, Sample, collate


@runtime_checkable
class MapDataset(Protocol):
    """Samples by index: any map-style ``torch.utils.data.Dataset`` of ``Sample``.

    A data set without ``__len__``, or of length ``sys.maxsize``, is unlimited: it has a sample for any index from 0.
    """

    def __getitem__(self, index: int, /) -> Sample:
        """The sample of an index, the same each time."""
        ...


@runtime_checkable
class BatchDataset(MapDataset, Protocol):
    """A data set that makes many samples at once faster than one by one."""

    def batch(self, indices: Sequence[int], /) -> Batch:
        """The samples of several indices, equal to collating them one by one."""
        ...


def dataset_length(dataset: MapDataset) -> int | None:
    """The number of samples, or ``None`` for an unlimited data set; raises if it is empty or can't be indexed."""
    if isinstance(dataset, IterableDataset):
        raise MistError(
            f"{type(dataset).__name__} is an IterableDataset, and training needs samples by index: give a map-style "
            "torch.utils.data.Dataset, with __getitem__"
        )
    length = len(dataset) if isinstance(dataset, Sized) else None
    if length == 0:
        raise MistError("the training data set holds 0 samples: give at least one image")
    return None if length == sys.maxsize else length


def share_of_batch(batch_size: int, rank: int, processes: int) -> slice:
    """The contiguous part of the joined batch that one process works on.

    Raises:
        MistError: unless all parts are equal: otherwise the mean of their gradients is not that of the joined batch.
    """
    share, rest = divmod(batch_size, processes)
    if rest:
        raise MistError(
            f"train.batch_size={batch_size} cannot be shared among {processes} processes: "
            f"give a multiple of {processes}, e.g. {max(1, share) * processes}"
        )
    return slice(rank * share, (rank + 1) * share)


def batch_indices(iteration: int, batch_size: int, length: int | None, seed: int) -> list[int]:
    """Indices of the samples in the joined batch of one iteration.

    Convention: for iteration t and batch size B, unlimited data (of length ``None``) are counted: t B, t B + 1, ...
    Finite data are permuted in each epoch, by the seed, and the epochs are concatenated. So each epoch holds each index
    exactly once, and batches are always full: a batch may start in one epoch and end in the next.
    """
    positions = range(iteration * batch_size, (iteration + 1) * batch_size)
    if length is None:
        return list(positions)
    return [int(_permutation(length, seed, position // length)[position % length]) for position in positions]


@lru_cache(maxsize=2)  # a batch may span two epochs
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
        batch_size: of the joined batch, which ``processes`` share; this one has the number ``rank``.
        seed: of the order of finite data.
        workers: extra processes that prepare the next batches; they change no value.

    Raises:
        MistError: if the data set is empty, gives something else than ``Sample``, or the batch can't be split equally.
    """
    length = dataset_length(dataset)
    share = share_of_batch(batch_size, rank, processes)
    indices = (batch_indices(iteration, batch_size, length, seed)[share] for iteration in range(start, stop))
    joined = _Joined(dataset)
    prepared = map(joined.__getitem__, indices)
    if workers:
        prepared = DataLoader(
            joined,  # pyright: ignore[reportArgumentType]  # asks for a nominal subclass, needs only __getitem__
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # not the global one, whose state is in the checkpoint
        )
    for iteration, batch in zip(range(start, stop), prepared, strict=True):
        if isinstance(batch, MistError):
            raise batch
        yield iteration, batch


@dataclass(frozen=True)
class _Joined:
    """Batches by their indices."""

    dataset: MapDataset

    def __getitem__(self, indices: Sequence[int]) -> Batch | MistError:
        try:
            if isinstance(self.dataset, BatchDataset):
                return self.dataset.batch(indices)
            samples = [self.dataset[index] for index in indices]
            if wrong := next((type(sample).__name__ for sample in samples if not isinstance(sample, Sample)), None):
                raise MistError(f"the training data set gives a {wrong} for an index: it must give a mistnn.Sample")
            return collate(samples)
        except MistError as error:
            return error  # raised by a worker, its one line would come with a traceback of many


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(tensor) for tensor in value]
        return None if value is None else value.to(device, non_blocking=True)

    return Batch(*map(move, batch))


def _ignore_interrupts(worker: int) -> None:
    # A terminal sends Ctrl-C to all processes of the group; the parent still needs its workers for the last batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
