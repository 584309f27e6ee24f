"""Functions in parallel processes, each with its share of the cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from mistnn.devices import cores

Key = TypeVar("Key", bound=Hashable)
STOP_SECONDS = 60.0  #: How long a training may take to write its checkpoint after another one has failed.


def share_of_cores(jobs: int) -> int:
    """The threads of each of so many processes."""
    return max(1, cores() // jobs)


def in_processes(
    calls: Mapping[Key, Callable[[], Any]], jobs: int, finished: Callable[[Key, Future[Any]], None]
) -> None:
    """Calls functions in parallel processes, in the order in which they are given.

    Args:
        calls: the functions, which can be pickled.
        jobs: the number of processes.
        finished: called here with each key and its future as soon as the future is done. An error that it raises stops
            all processes as Ctrl-C does; those in the queue never begin.
    """
    if not calls:
        return
    pool = ProcessPoolExecutor(min(jobs, len(calls)), multiprocessing.get_context("spawn"))
    try:
        running = {pool.submit(call): key for key, call in calls.items()}
        for future in as_completed(running):
            finished(running[future], future)
    except BaseException:
        workers = multiprocessing.active_children()
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(STOP_SECONDS)
            worker.kill()  # it had taken its next training, or hangs
        raise
    pool.shutdown()
