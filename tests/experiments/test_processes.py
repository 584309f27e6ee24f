"""MIST in two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mistnn.experiments import train
from tests.experiments import tiny


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Equal but for the order of sums, which Adam divides by their own size.

    A run on half of the batch tells how far off the weights would be if the processes did not share.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    done = subprocess.run(
        [*launcher, *settings, str(tiny.__file__), str(tmp_path / "two")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    train(tiny.changed(), tmp_path / "one")
    train(tiny.changed(batch_size=2), tmp_path / "half")
    one, two, half = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "half"))
    assert one.keys() == two.keys()

    def furthest(other: dict[str, torch.Tensor]) -> float:
        return max(float((other[name] - one[name]).abs().max()) for name in one)

    assert furthest(two) < 1e-5
    assert furthest(half) > 1e-3
