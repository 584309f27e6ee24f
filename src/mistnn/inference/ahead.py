"""Threads beside the network: they read images ahead and write drawings, with bounded memory.

Pillow and NumPy release Python's lock while they decode, convert and encode, and torch does while the network runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from mistnn.devices import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

Admit = Callable[[int], None]
"""Called with the pixels of an image before it is decoded; returns when there is room for them."""

MOST_THREADS = 8
PIXELS = 1 << 24
"""Pixels of the images that wait for the network, and of those that are being drawn; a larger image waits alone. About
250 MB each for colour images."""


def usual_threads() -> int:
    """One for each processor that this process may use, at most ``MOST_THREADS``."""
    return min(MOST_THREADS, cores())


class _Gate:
    """Admits items in their order, as long as those admitted and not yet taken have at most ``PIXELS`` pixels."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next, self._held, self._closed = 0, 0, False

    def enter(self, number: int, pixels: int) -> None:
        def free() -> bool:
            return number == self._next and (self._held == 0 or self._held + pixels <= PIXELS)

        with self._changed:
            self._changed.wait_for(lambda: self._closed or free())
            self._next, self._held = self._next + 1, self._held + pixels
            self._changed.notify_all()

    def leave(self, pixels: int) -> None:
        with self._changed:
            self._held -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def read_ahead(
    items: Iterable[Item], read: Callable[[Item, Admit], Result], threads: int, most: int
) -> Generator[Result, None, None]:
    """The results of ``read`` in the order of the items, computed in threads.

    Closing the iterator waits for the items that are being read, and drops the others.

    Args:
        read: gets an item and a function to call once, with the number of pixels, before it decodes an image.
        threads: number of threads.
        most: how many items are read ahead, at most.
    """
    gate = _Gate()

    def one(number: int, item: Item) -> tuple[Result, int]:
        entered: list[int] = []

        def admit(pixels: int) -> None:
            gate.enter(number, pixels)
            entered.append(pixels)

        try:
            return read(item, admit), sum(entered)
        finally:
            if not entered:
                gate.enter(number, 0)  # the next one's turn

    waiting: deque[Future[tuple[Result, int]]] = deque()
    pool = ThreadPoolExecutor(threads, "read")
    try:
        for number, item in enumerate(items):
            waiting.append(pool.submit(one, number, item))
            if len(waiting) > most:
                yield _taken(waiting.popleft(), gate)
        while waiting:
            yield _taken(waiting.popleft(), gate)
    finally:
        gate.close()
        pool.shutdown(cancel_futures=True)


def _taken(future: Future[tuple[Result, int]], gate: _Gate) -> Result:
    result, pixels = future.result()
    gate.leave(pixels)
    return result


class Drawings:
    """Threads that write pictures; a context, which waits for them at its end."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "draw")
        self._running: deque[tuple[Future[None], int]] = deque()
        self._held = 0

    def add(self, pixels: int, draw: Callable[[], None]) -> Future[None]:
        """Starts to write a picture; first waits for others if there are too many pixels."""
        while self._running and (self._held + pixels > PIXELS or self._running[0][0].done()):
            done, fewer = self._running.popleft()
            done.exception()  # raised where the result is needed
            self._held -= fewer
        future = self._pool.submit(draw)
        self._running.append((future, pixels))
        self._held += pixels
        return future

    def __enter__(self) -> Drawings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()
