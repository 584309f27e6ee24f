from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mistnn.cli.main import main
from mistnn.studies import ablation, choices, off_centre
from tests.cli.runs import only_line

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, int, int]]:
    """What the study is asked for; it is not run here, see tests/studies."""
    calls: list[tuple[str, Path, int, int]] = []

    def study(cells: Any, results: Path, command: str, metrics: Any, seeds: int, steps: int) -> list[None]:
        calls.append((next(iter(cells)).name, results, seeds, steps))
        assert command.startswith("mist reproduce ") and "iou50" in metrics
        return [None, None]

    monkeypatch.setattr(ablation, "run_cells", study)
    return calls


def test_arguments_reach_the_study(asked: list[object], tmp_path: Path, capsys: Captured) -> None:
    assert main(["reproduce", "off-centre"]) == 0
    assert main(["reproduce", "choices", "--ledger", str(tmp_path), "--seeds", "1", "--steps", "2"]) == 0
    first = "off-centre-eq9-energy-plain"
    assert asked == [(first, Path("results"), 3, off_centre.STEPS), ("choices-base", tmp_path, 1, 2)]
    assert choices.STEPS > 0
    assert capsys.readouterr().out.splitlines() == ["2 new entries in results", f"2 new entries in {tmp_path}"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["centre"], ["'centre'", "off-centre"]),
        (["off-centre", "--seeds", "0"], ["--seeds 0", "from 1 to 1000"]),
        (["table1", "--seeds", "1001"], ["--seeds 1001", "from 1 to 1000"]),
        (["table1", "--jobs", "0"], ["--jobs 0", "from 1 to"]),
        (["table1", "--jobs", "99999"], ["--jobs 99999", "from 1 to"]),
        (["table1", "--only", ""], ["--only is empty", "leave it away"]),
        (["table1", "--only", " "], ["--only is empty"]),
        (["off-centre", "--steps", "0"], ["--steps 0", "1 or more"]),
        (["off-centre", "--sedes", "1"], ["'--sedes'", "--seeds"]),
        ([], ["NAME", "must be given"]),
    ],
)
def test_mistakes(arguments: list[str], words: list[str], asked: list[object], capsys: Captured) -> None:
    assert main(["reproduce", *arguments]) == 2
    only_line(capsys.readouterr().err, *words)
    assert not asked
