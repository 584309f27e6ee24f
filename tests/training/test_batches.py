"""The samples of each batch."""

from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.training.batches import batch_indices, batches, dataset_length, share_of_batch
from tests.training.toy import FewToys, Toys


@pytest.mark.parametrize(("length", "batch_size"), [(12, 4), (10, 4), (3, 7), (1, 2)])
def test_each_epoch_holds_every_index_once(length: int, batch_size: int) -> None:
    stream = [i for t in range(3 * length) for i in batch_indices(t, batch_size, length, seed=1)]
    epochs = [stream[start : start + length] for start in range(0, 3 * length, length)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(length))] * 3
    if length == 12:
        assert epochs[0] != epochs[1]
        assert epochs[0] != [i for t in range(3) for i in batch_indices(t, batch_size, length, seed=2)]


def test_unlimited_data_count_on() -> None:
    assert batch_indices(3, 4, None, seed=9) == [12, 13, 14, 15]


def test_a_batch_does_not_depend_on_where_the_stream_starts() -> None:
    whole = dict(batches(FewToys(10), start=0, stop=9, batch_size=4, seed=3))
    later = dict(batches(FewToys(10), start=5, stop=9, batch_size=4, seed=3))
    assert list(later) == [5, 6, 7, 8]
    assert all(torch.equal(whole[t].images, later[t].images) for t in later)


def test_processes_share_the_joined_batch_in_order() -> None:
    def stream(rank: int, processes: int) -> list[torch.Tensor]:
        shares = batches(FewToys(10), start=2, stop=5, batch_size=6, seed=3, rank=rank, processes=processes)
        return [batch.images for _, batch in shares]

    for joined, *shares in zip(stream(0, 1), stream(0, 3), stream(1, 3), stream(2, 3), strict=True):
        assert torch.equal(joined, torch.cat(shares))


def test_workers_change_nothing_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    with_workers = list(batches(Toys(), start=2, stop=6, batch_size=3, seed=0, workers=2))
    assert torch.equal(before, torch.get_rng_state())
    without = list(batches(Toys(), start=2, stop=6, batch_size=3, seed=0))
    assert [t for t, _ in with_workers] == [2, 3, 4, 5]
    for (_, a), (_, b) in zip(with_workers, without, strict=True):
        assert torch.equal(a.images, b.images)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(MistError, match=r"batch_size=10 cannot be shared among 4 processes.*e\.g\. 8"):
        share_of_batch(10, 0, 4)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(MistError, match="0 samples"):
        dataset_length(FewToys(0))
