"""The off-centre warning: said once, as soon as it has held for a while."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mistnn.experiments import mist as off_centre
from mistnn.experiments import train
from mistnn.experiments import watch as watch_module
from tests.experiments.tiny import TINY, changed


def hears(lines: list[tuple[int, float]]) -> list[str]:
    """What is said of a log of (iteration, offset)."""
    heard: list[str] = []
    model = dataclasses.replace(TINY.model, box_size=20.0)
    watch = off_centre.MistSystem().watch(dataclasses.replace(TINY, model=model), heard.append)
    for iteration, offset in lines:
        watch.line(iteration, {"offset_x": offset, "offset_y": 0.0, "offset_spread": 0.1})
        watch.line(iteration, {"evaluate/both": 0.5})
        if not heard:
            at = iteration
    before_the_end = len(heard)
    watch.end()
    watch.end()
    assert len(heard) <= 1, "it is said once"
    return [f"{'during' if before_the_end else 'end'} {at}" for _ in heard]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([(step, 5.0) for step in range(20, 301, 20)], ["during 280"]),  # 220, 240, 260, 280, 300
        ([(step, 5.0) for step in range(20, 281, 20)], ["end 280"]),  # four lines only
        ([(step, 5.0) for step in range(20, 201, 20)], ["end 200"]),  # all of them early
        ([(step, 0.0 if step == 280 else 5.0) for step in range(220, 361, 20)], ["end 360"]),  # broken off
        ([(step, 5.0 if step < 400 else 0.0) for step in range(220, 601, 20)], ["during 280"]),  # it came back
        ([(step, 0.0) for step in range(20, 601, 20)], []),
        ([], []),
    ],
)
def test_off_centre_is_said_as_soon_as_it_has_held(lines: list[tuple[int, float]], said: list[str]) -> None:
    assert hears(lines) == said


def test_off_centre_is_said_during_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_centre, "WATCHED_AFTER", 1)
    monkeypatch.setattr(watch_module, "LINES", 2)
    monkeypatch.setattr(off_centre, "off_centre_note", lambda values, box_size: "beside")
    events: list[str] = []
    train(
        changed(steps=5, batch_size=2), tmp_path / "run", on_log=lambda step, _: events.append(str(step)),
        on_note=events.append,
    )  # fmt: skip
    assert events == ["1", "2", "after 3 steps beside", "3", "4", "5"]
