"""The study of equal time: what its variants change, and that it goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.equal_time import run, step_seconds, variants


def changed(one: Any, other: Any) -> set[str]:
    return {
        f"{part}.{field.name}"
        for part in ("model", "step", "data", "train")
        for field in dataclasses.fields(getattr(one, part))
        if getattr(getattr(one, part), field.name) != getattr(getattr(other, part), field.name)
    }


def test_each_variant_takes_one_change_back() -> None:
    found = variants()
    assert {name: changed(found["fast"], one) for name, one in found.items()} == {
        "fast": set(),
        "network": {"model.heatmap"},
        "passes": {"step.order", "step.inner_steps", "step.keypoint_step"},
        "mirrored": {"step.mirrored"},
        "start": {"step.heatmap_start"},
        "strength": {"model.softmax_strength"},
        "paper": {
            "model.heatmap",
            "model.softmax_strength",
            "step.order",
            "step.inner_steps",
            "step.keypoint_step",
            "step.mirrored",
            "step.heatmap_start",
            "train.steps",
        },
    }


def test_a_run_and_its_time() -> None:
    fast: Any = variants()["fast"]
    small = dataclasses.replace(
        fast,
        data=dataclasses.replace(fast.data, source="embedded"),
        train=dataclasses.replace(fast.train, batch_size=2),
    )
    each = step_seconds({"fast": small}, iter(range(0, 10_000, 30)).__next__)
    assert each == {"fast": 30}
    found = run(small, 1, 3, 2, iter(range(0, 1000, 30)).__next__)
    assert found["steps"] == 3 and found["seconds"] == 30 and list(found["read"]) == ["3", "0.1"]
