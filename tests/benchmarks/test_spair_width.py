"""The two widths of SPAIR's backbone: nothing else differs, and the study goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.spair_width import known, run, widths


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


def test_runs_of_another_length_are_refused(tmp_path: Path) -> None:
    assert known(None, 5) == known(tmp_path / "none.json", 5) == {}
    (tmp_path / "some.json").write_text(json.dumps({"settings": {"steps": 5}, "runs": {"a": 1}}), encoding="utf-8")
    assert known(tmp_path / "some.json", 5) == {"a": 1}
    with pytest.raises(SystemExit, match="5 steps"):
        known(tmp_path / "some.json", 6)
