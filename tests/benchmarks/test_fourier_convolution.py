"""The benchmark of the convolution by Fourier transforms: both ways agree, which it checks itself."""

from __future__ import annotations

import time

from benchmarks.fourier_convolution import measure


def test_both_ways_are_measured() -> None:
    result = measure("stn-cnn-affine-tc", 2, time.process_time)
    assert set(result) == {"ratio", "plain_ms", "plain_iqr_ms", "fourier_ms", "fourier_iqr_ms"}
    assert min(result["plain_ms"], result["fourier_ms"]) > 0
