"""Memory that a training step frees, kept for the next one."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Names of ``mallopt`` in glibc."""
PAD = 64 << 20
"""Bytes asked of the system beyond what is needed."""


def keep_freed_memory() -> bool:
    """Has this process keep what it frees instead of handing it back to the system.

    PyTorch asks the system for each large tensor anew, and the system clears every page of it; in convolutions of
    large maps that takes up to two fifths of a training step on a CPU. Kept pages need no clearing. It holds until the
    process ends, and the process stays about as large as it was at its largest.

    Returns:
        Whether it does: on Linux with glibc, unless ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_MAX_`` say otherwise.
    """
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"} & set(os.environ)
    if not sys.platform.startswith("linux") or chosen:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    # Nothing by a mapping of its own, which is gone when it is freed; never trimmed.
    return all(mallopt(name, value) == 1 for name, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, PAD)))
