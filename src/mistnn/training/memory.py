"""Keeps the memory that a training step frees for the next step."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``."""
PAD = 64 << 20
"""Bytes requested from the system beyond what is needed."""


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory until it ends, and returns whether that works.

    PyTorch requests each large tensor from the system, which clears every page of it. For convolutions of large maps,
    this takes up to two fifths of a training step on a CPU. It works on Linux with glibc, unless
    ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_MAX_`` is set. The process stays about as large as its peak.
    """
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"} & set(os.environ)
    if not sys.platform.startswith("linux") or chosen:
        return False
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None or getattr(libc, "gnu_get_libc_version", None) is None:
        return False
    # No separate mappings, which are released when freed; never trim the heap.
    return all(mallopt(name, value) == 1 for name, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, PAD)))
