"""The two widths of SPAIR's backbone: nothing else differs, and the study goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.spair_width import run, widths


def test_only_the_width_differs() -> None:
    found: dict[str, Any] = dict(widths())
    assert found["preset"].model.width == 64 and found["paper"].model.width == 128
    assert dataclasses.replace(found["paper"].model, width=64) == found["preset"].model
    assert dataclasses.replace(found["paper"], model=found["preset"].model) == found["preset"]


def test_a_run() -> None:
    preset: Any = widths()["preset"]
    small = dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, source="embedded"),
        train=dataclasses.replace(preset.train, batch_size=2),
    )
    found = run(small, 1, 2, 2)
    assert found["width"] == 64 and found["cpu_seconds"] > 0 and 0 <= found["ap50_ink"] <= 1
