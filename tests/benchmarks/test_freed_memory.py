"""The benchmark of kept memory runs both ways."""

from __future__ import annotations

import platform

import pytest

from benchmarks import freed_memory


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep freed memory")
def test_both_ways_are_measured() -> None:
    result = freed_memory.measure("stn-fcn-rts", steps=2, rounds=1)
    assert result["ratio"] == pytest.approx(result["returned_step_ms"] / result["kept_step_ms"])
    assert all(result[f"{way}_{name}"] > 0 for way in freed_memory.WAYS for name in ("step_ms", "peak_mib"))
