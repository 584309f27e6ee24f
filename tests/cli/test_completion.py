"""The scripts of ``mist completion``, run in a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mistnn.cli.main import COMMANDS, main
from tests.cli.runs import only_line


def complete(script: str, folder: Path, *typed: str) -> set[str]:
    quoted = " ".join(f"'{word}'" for word in typed)
    run = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(typed) - 1}; _mist; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    done = subprocess.run([shell, "--norc", "-c", run], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return set(done.stdout.split("\n")) - {""}


def test_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert set(COMMANDS) <= complete(script, tmp_path, "mist", "")
    assert complete(script, tmp_path, "mist", "exp") == {"export"}
    assert complete(script, tmp_path, "mist", "predict", "--re") == {"--report", "--resume"}
    assert complete(script, tmp_path, "mist", "predict", "mist-mnist-h") == {"mist-mnist-hard", "mist-mnist-hard-fast"}
    assert "my-folder" in complete(script, tmp_path, "mist", "train", "my-f")
    (tmp_path / "two words").mkdir()
    assert complete(script, tmp_path, "mist", "inspect", "two") == {"two words"}


def test_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert main(["completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "complete -c mist -n '__fish_seen_subcommand_from label' -l classes" in lines
    assert main(["completion", "tcsh"]) == 2
    only_line(capsys.readouterr().err, "tcsh")
