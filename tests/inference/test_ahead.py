"""Images are read ahead in their order, with bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from mistnn.inference import ahead
from mistnn.inference.ahead import Drawings, read_ahead


def test_results_keep_the_order_of_the_items() -> None:
    def read(item: int, admit: Callable[[int], None]) -> int:
        time.sleep(0.001 * (item % 3))
        if item % 4:  # the others fail before they are decoded
            admit(10)
        return item

    assert list(read_ahead(range(40), read, 4, 8)) == list(range(40))


@pytest.mark.parametrize("pixels", [3, 30])
def test_pixels_in_waiting_are_bounded(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """Three images of 3 pixels fit; one of 30, more than all, waits alone."""
    monkeypatch.setattr(ahead, "PIXELS", 10)
    held, most, lock = 0, 0, threading.Lock()

    def read(item: int, admit: Callable[[int], None]) -> int:
        nonlocal held, most
        admit(pixels)
        with lock:
            held += 1
            most = max(most, held)
        return item

    for _ in read_ahead(range(20), read, 4, 16):
        time.sleep(0.002)
        with lock:
            held -= 1
    # The one that was taken makes room before it is counted here.
    assert most <= (3 if pixels == 3 else 1) + 1


def test_an_error_comes_in_its_place_and_ends_the_threads() -> None:
    before = threading.active_count()

    def read(item: int, admit: Callable[[int], None]) -> int:
        if item == 5:
            raise ValueError("broken")
        admit(1)
        return item

    seen = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(read_ahead(range(100), read, 3, 10))
    results = read_ahead(range(100), lambda item, admit: admit(1) or item, 3, 10)
    assert next(results) == 0
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before


def test_drawings_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PIXELS", 10)
    running, most, lock = 0, 0, threading.Lock()

    def draw() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with Drawings(8) as drawings:
        for _ in range(20):
            drawings.add(4, draw)
        failed = drawings.add(4, fail)
        drawings.add(4, draw)
    assert 1 <= most <= 2
    with pytest.raises(OSError, match="No space"):
        failed.result()
