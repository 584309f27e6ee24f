"""Several processes train like one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.processes import Processes, join_processes
from mistnn.training.processes import average_gradients
from tests.training import toy
from tests.training.toy import train

STATE = Path("checkpoint") / "state.safetensors"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(out: Path, options: dict[str, object]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    script = ["--main_process_port", str(free_port()), str(toy.__file__), str(out), json.dumps(options)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*launcher, *settings, *script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_two_processes_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Equal to 1e-6, not bit for bit: the joined batch is summed at once, the halves are summed separately.

    Dropout is off, because its masks depend on the positions in a process's own batch.
    """
    done = launch(tmp_path / "two", {"steps": 12, "dropout": False})
    assert done.returncode == 0, done.stderr
    train(tmp_path / "one", steps=12, dropout=False)
    one, two = load_file(tmp_path / "one" / STATE), load_file(tmp_path / "two" / STATE)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-6, rtol=0, msg=name)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    for first, second in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert first["step"] == second["step"]
        assert first["task"] == pytest.approx(second["task"], abs=1e-6)


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share(tmp_path: Path) -> None:
    done = launch(tmp_path / "run", {"steps": 2, "batch_size": 3})
    assert done.returncode != 0
    assert "train.batch_size=3 cannot be shared among 2 processes" in done.stderr
    assert list((tmp_path / "run").iterdir()) == []


@dataclass(frozen=True)
class Pair(Processes):
    """This process and one other, whose message is given."""

    other: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        assert self.other is not None
        return (values + self.other) / 2


def test_gradients_that_only_one_process_has() -> None:
    """The mean of a present gradient with a missing one is half of it; one that is missing everywhere stays missing."""
    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad = torch.tensor([1.0, 2.0])
    other = torch.tensor([3.0, 4.0, 6.0, 8.0, 0.0, 0.0, 1.0, 1.0, 0.0])  # gradients of a, b, c, then who has one
    average_gradients(torch.optim.SGD([a, b, c], lr=1.0), Pair(0, 2, torch.device("cpu"), None, other))
    assert a.grad.tolist() == [2.0, 3.0]
    assert b.grad is not None and b.grad.tolist() == [3.0, 4.0]
    assert c.grad is None


def test_mixed_precision_of_the_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(MistError, match="mixed_precision no"):
        join_processes("cpu")


def test_a_launch_that_started_one_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.warns(UserWarning, match="--multi_gpu"):
        assert join_processes("cpu").count == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported() -> None:
    with pytest.raises(MistError, match="train.device cuda"):
        join_processes("cuda")
