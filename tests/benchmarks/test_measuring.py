"""What the benchmarks share, with a clock that the test turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cost
from benchmarks.measuring import alternate, earlier, in_own_process, milliseconds, peak_bytes, spread, write


def test_rounds_alternate_and_the_first_are_dropped() -> None:
    now, called = [0.0], []

    def way(name: str, seconds: float) -> Callable[[], None]:
        def call(turn: int) -> None:
            called.append(name)
            now[0] += seconds * (100 if len(called) <= 2 else 1)  # the first round is slow

        return call

    seconds = alternate({"a": way("a", 1.0), "b": way("b", 2.0)}, rounds=3, clock=lambda: now[0])
    assert called == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_spread() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {
        "median": 3.0, "quartile_1": 2.0, "quartile_3": 4.0, "iqr": 2.0, "best": 1.0,
    }  # fmt: skip
    assert spread([7.0]) == {"median": 7.0, "quartile_1": 7.0, "quartile_3": 7.0, "iqr": 0.0, "best": 7.0}
    assert milliseconds({"a": [0.001, 0.002, 0.003]}) == pytest.approx({"a_ms": 2.0, "a_iqr_ms": 1.0})


def held(bytes_: int) -> int:
    """The peak of a process that holds so many bytes."""
    ballast = bytearray(bytes_)
    ballast[:: 1 << 12] = b"1" * len(ballast[:: 1 << 12])
    return peak_bytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a new process begins at zero")
def test_the_peak_of_a_process_is_not_its_parents() -> None:
    assert held(1 << 30) > 1 << 30
    child = "from benchmarks.measuring import peak_bytes; print(peak_bytes())"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True, cwd=root)
    assert 1 << 26 < int(done.stdout) < 1 << 30


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        in_own_process(cost.run_point, 0, 32, 1, 0)
    assert "model.k" in failed.value.stderr


def test_what_is_written_says_where_it_is_from(tmp_path: Path) -> None:
    write({"ratio": 2.0}, None)
    write({"ratio": 2.0}, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content.pop("ratio") == 2.0 and set(content) == {"hardware", "versions", "commit"}
    assert set(content["versions"]) == {"python", "torch", "mistnn"}


def test_what_was_written_with_other_settings_is_refused(tmp_path: Path) -> None:
    assert earlier(None, steps=5) == earlier(tmp_path / "none.json", steps=5) == {}
    held = {"runs": {"a": 1}, "settings": {"steps": 5, "minutes": 2.5}}
    (tmp_path / "some.json").write_text(json.dumps(held), encoding="utf-8")
    assert earlier(tmp_path / "some.json", steps=5, minutes=2.5) == held
    with pytest.raises(SystemExit, match="has runs of 5 steps"):
        earlier(tmp_path / "some.json", steps=6)
