from __future__ import annotations

import pytest

from mistnn.cli.main import main
from mistnn.reproduce import fill
from tests.cli.runs import only_line

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The tables that are filled; none is filled here, see tests/reproduce."""
    calls: list[object] = []
    monkeypatch.setattr(fill, "fill_table", lambda *arguments, **options: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["centre"], ["'centre'", "table1"]),
        (["table1", "--seeds", "0"], ["--seeds=0", "from 1 to 1000"]),
        (["table1", "--seeds", "1001"], ["--seeds=1001", "from 1 to 1000"]),
        (["table1", "--jobs", "0"], ["--jobs=0", "from 1 to"]),
        (["table1", "--jobs", "99999"], ["--jobs=99999", "from 1 to"]),
        (["table1", "--only", ""], ["--only is empty", "leave it out"]),
        (["table1", "--only", " "], ["--only=' '"]),
        (["table1", "--sedes", "1"], ["'--sedes'", "--seeds"]),
        ([], ["NAME", "must be given"]),
    ],
)
def test_mistakes(arguments: list[str], words: list[str], asked: list[object], capsys: Captured) -> None:
    assert main(["reproduce", *arguments]) == 2
    only_line(capsys.readouterr().err, *words)
    assert not asked


@pytest.mark.parametrize("study", ["off-centre", "choices", "precision", "blood-cells"])
def test_studies_have_moved(study: str, capsys: Captured) -> None:
    """The command of the ledger's earlier entries prints the new one."""
    assert main(["reproduce", study, "--seeds", "3", "--steps", "200"]) == 2
    only_line(capsys.readouterr().err, study, f"`python -m benchmarks.{study.replace('-', '_')}")
