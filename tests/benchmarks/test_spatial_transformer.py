"""The benchmark of the spatial transformer, at a tiny size: both ways read the same, or it stops."""

from __future__ import annotations

import pytest

import benchmarks.spatial_transformer as benchmark


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_both_ways_run(kind: str) -> None:
    run = benchmark.measure(kind, batch=2, size=7, rounds=2, warm_up=1)
    assert run["kind"] == kind and run["ratios"]["usual"] > 0
    assert set(run["seconds"]) == {"ours", *run["ratios"]}
    assert all(times["median"] > 0 for times in run["seconds"].values())


def test_ways_that_differ_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "usual", lambda kind, size: lambda images, offsets: images + offsets.sum())
    with pytest.raises(SystemExit, match="usual differs from ours"):
        benchmark.measure("affine", batch=2, size=7, rounds=1, warm_up=0)
