"""Where and with what a training ran."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from mistnn.weights import commit, hardware, provenance, versions


def test_where_and_with_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware().endswith(f", {torch.get_num_threads()} threads") and len(hardware()) > len(", 2 threads")
    assert hardware(torch.device("cpu")) == hardware()
    assert versions().keys() == {"python", "torch", "mistnn"} and versions()["torch"] == torch.__version__
    assert re.fullmatch(r"unknown|[0-9a-f]{12}(\+changes)?", commit())
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown", "git is missing"


def test_the_accelerator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device.index}")
    assert hardware(torch.device("cuda", 1)) == f"{hardware()}, a GPU, 1"


def test_commit_of_the_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkout: its commit, and whether any file of the package was changed. Installed in one: nothing."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "src" / "mistnn"
    (package / "weights").mkdir(parents=True)
    (package / "nn").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(package / "weights" / "provenance.py"))
    (tmp_path / "other").write_text("1")
    (package / "__init__.py").write_text("")
    assert commit() == "unknown"
    git("init")
    git("add", "other")
    git("commit", "-m", "a")
    assert commit() == "unknown", "somebody else's checkout"
    git("add", ".")
    git("commit", "-m", "b")
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit() == head
    (tmp_path / "other").write_text("2")
    assert commit() == head, "of another folder"
    (package / "nn" / "new.py").write_text("")
    assert commit() == f"{head}+changes"
