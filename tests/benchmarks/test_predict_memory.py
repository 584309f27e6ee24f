"""The benchmark of a prediction's memory on a few images, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import predict_memory


@pytest.mark.slow
def test_a_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    monkeypatch.setattr(sys, "argv", ["x", "--images", "2", "5", "--json", str(path), "--tolerance", "9"])
    assert predict_memory.main() == 0
    content = json.loads(path.read_text())
    assert [point["images"] for point in content["points"]] == [2, 5]
    assert all(point["peak_bytes"] >= point["peak_bytes_before"] > 2**26 for point in content["points"])
    assert "flat within" in capsys.readouterr().out


def test_growth_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def grows(images: int, side: int) -> dict[str, float]:
        return {"images": images, "peak_bytes": 1e9 + 1e5 * images, "peak_bytes_before": 9e8, "seconds": 1.0}

    monkeypatch.setattr(predict_memory, "measure", grows)
    monkeypatch.setattr(sys, "argv", ["x"])
    assert predict_memory.main() == 1
    assert "NOT flat" in capsys.readouterr().out


@pytest.mark.parametrize("images", [["0"], ["5", "2"]])
def test_bad_numbers(images: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.predict_memory", "--images", *images],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2 and "--images" in done.stderr
