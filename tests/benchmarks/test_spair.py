"""The benchmark of SPAIR, at a tiny size: both ways give the same loss, or it stops."""

from __future__ import annotations

import pytest
import torch

import benchmarks.spair as benchmark
from mistnn.ops.priors import presence_kl


@pytest.mark.parametrize("digits", [False, True])
def test_both_ways_run(digits: bool) -> None:
    result = benchmark.measure(24, digits, width=4, batch=2, repeats=2)
    assert result["ratio"] > 0 and all(result[f"{name}_ms"] > 0 for name in ("plain", "waves", "backbone"))


def test_ways_that_differ_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "draw_each", lambda model, z, background: background)
    with pytest.raises(AssertionError, match="reconstruction differs"):
        benchmark.measure(24, True, width=4, batch=2, repeats=1)


def test_the_walk_is_the_table() -> None:
    torch.manual_seed(0)
    logits, present = torch.randn(6, 9), torch.rand(6, 9)
    torch.testing.assert_close(
        benchmark.walked_kl(logits, present, 0.3), presence_kl(logits, present, 0.3), atol=1e-4, rtol=1e-4
    )
