"""Ctrl-C, SIGTERM and SIGHUP as requests to stop, so that training stops between two iterations, never within one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 2.0
"""Signals within this time count as one: a launcher repeats the Ctrl-C that the terminal has already sent."""

STOP_SIGNALS = tuple(one for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP"))
"""Windows has no SIGHUP."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether one of these signals was received inside the context.

    SIGHUP stays ignored where the process ignores it, as under ``nohup``. SIGINT doesn't: shells ignore it for commands
    in the background, where a user can still send it with ``kill -INT``. The first signal only sets the flag. A
    signal more than ``GRACE_SECONDS`` later has its normal effect. Outside the main thread Python allows no signal
    handlers, and the function always returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[float] = []
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {n: handler for n, handler in handlers.items() if n == signal.SIGINT or handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python

    def note(number: int, frame: FrameType | None) -> None:
        received.append(time.monotonic())
        if received[-1] - received[0] > GRACE_SECONDS:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        restore()
