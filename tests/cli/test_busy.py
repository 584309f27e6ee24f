from __future__ import annotations

import pytest

from mistnn.cli.busy import LOAD, advice, advise

BUSY = "4.10 3.90 3.50 5/88 1234"


@pytest.mark.parametrize(
    ("command", "load", "cores", "environment"),
    [
        ("train", "4.10 3.90 3.50 1/88 1234", 2, {}),  # the others have just ended
        ("train", "0.10 0.05 0.01 5/88 1234", 2, {}),  # a moment's work
        ("train", BUSY, 8, {}),
        ("train", BUSY, 1, {}),  # one thread anyway
        ("train", BUSY, 2, {"OMP_NUM_THREADS": "1"}),
        ("results", BUSY, 2, {}),
        ("train", "unknown", 2, {}),
    ],
)
def test_nothing_to_say(command: str, load: str, cores: int, environment: dict[str, str]) -> None:
    assert advice(command, load, cores, environment) == ""


def test_a_busy_computer() -> None:
    assert "use all 2 cores" in advice("train", BUSY, 2, {}) and "OMP_NUM_THREADS=1 mist train" in advice(
        "train", BUSY, 2, {}
    )


def test_only_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mistnn.cli.busy.advice", lambda *given: "busy")
    advise("train")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    advise("train")
    assert capsys.readouterr().err == ("mist: busy\n" if LOAD.exists() else "")
