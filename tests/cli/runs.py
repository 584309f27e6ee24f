"""The command line in-process, on runs so small that they take no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mistnn.cli.main import main

TINY = (
    "--train.steps 2 --train.batch-size 2 --train.log-every 1 --evaluation-images 2 --train.threads 1 "
    "--data.source embedded --data.canvas 32 --data.counts 2 --data.object-size 12 12 --data.min-distance 12 "
    "--model.k 2 --model.heatmap.channels 4 --model.heatmap.blocks 1 --model.encoder.width 4"
).split()
"""Settings of a run that trains for two steps on scenes of two embedded digits."""


def train_tiny(out: Path, *more: str) -> int:
    """Trains a tiny run through the command line; returns the exit code."""
    return main(["train", "mist-mnist-3", "--out", str(out), *TINY, *more])


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def only_line(text: str, *words: str) -> str:
    """Asserts that an error is one line of the command's, without a traceback, with all the words in it."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("mist: ")
    missing = [word for word in words if word not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"
    return lines[0]
