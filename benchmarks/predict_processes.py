"""How much faster two processes predict a folder than one.

    python -m benchmarks.predict_processes [--json FILE] [--processes 2] [--rounds 7] [--scenes 1000]

Contract:
    * Scenes of nine digits on 80 x 80 pixels as PNG files, the shipped network for them, tables without drawings. Each
      process has one thread for the network and one that reads images.
    * `accelerate launch` starts the processes once. In each round they predict the folder together, and the main one
      alone while the others wait. Starting is not included; the tables of both must be equal byte for byte.
    * ``ratio``: the median over the rounds, after the first, of the time alone by the time together. ``cpu_ratio``: the
      same with the CPU time of the process that takes most, for a busy machine; it leaves out waiting for each other.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measuring import Options, write
from benchmarks.predict import scenes
from mistnn.data.images import DETECTIONS_FILE
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.tables import COUNTS_FILE
from mistnn.processes import Processes, alone, join_processes
from mistnn.training.memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "mist-mnist-hard"
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]


def predict_timed(predictor: Predictor, folder: Path, out: Path, processes: Processes) -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    begun, spent = time.perf_counter(), time.process_time()
    predict_folder(predictor, [folder], out, overlays=False, force=True, workers=1, processes=processes)
    return time.perf_counter() - begun, time.process_time() - spent


def largest(value: float, processes: Processes) -> float:
    """The largest value of all processes."""
    held = torch.zeros(processes.count, dtype=torch.float64)
    held[processes.rank] = value * processes.count
    return float(processes.mean(held).max())


def rounds_of(folder: Path, base: Path, rounds: int) -> dict[str, object]:
    processes = join_processes("cpu", "--device")
    keep_freed_memory()
    predictor = Predictor.from_pretrained(NETWORK)
    taken: dict[str, list[float]] = {name: [] for name in ("alone", "together", "alone_cpu", "together_cpu")}
    for turn in range(rounds + 1):
        for way in ("alone", "together") if turn % 2 else ("together", "alone"):
            processes.wait()
            wall, cpu = 0.0, 0.0
            if way == "together" or processes.main:
                shared = processes if way == "together" else alone(processes.device)
                wall, cpu = predict_timed(predictor, folder, base / way, shared)
            wall, cpu = largest(wall, processes), largest(cpu, processes)
            if turn:
                taken[way].append(wall)
                taken[f"{way}_cpu"].append(cpu)
        for name in (DETECTIONS_FILE, COUNTS_FILE):
            ours, theirs = ((base / way / name).read_bytes() for way in ("alone", "together"))
            assert not processes.main or ours == theirs, f"{name} differs"
    ratios = {}
    for name, end in (("ratio", ""), ("cpu_ratio", "_cpu")):
        pairs = zip(taken[f"alone{end}"], taken[f"together{end}"], strict=True)
        ratios[name] = statistics.median(one / all for one, all in pairs)
    return {"processes": processes.count, **ratios, "tables_equal": True, "seconds": taken}


def main() -> None:
    options = Options(__doc__)
    options.size("processes", 2, 2, "processes")
    options.size("scenes", 1000, 70, "scenes")
    options.size("rounds", 7, 1, "rounds")
    options.add_argument("--base", type=Path, help="set by the launched processes: the folder of the scenes")
    given = options.parse()
    if given.base is not None:
        result = rounds_of(given.base / "images", given.base, given.rounds)
        if os.environ["RANK"] == "0":
            times, of_cpu = result["ratio"], result["cpu_ratio"]
            print(f"{result['processes']} processes: {times:.2f} times as fast, {of_cpu:.2f} by CPU time")
            write({**result, **options.settings(given)}, given.json)
        return
    with tempfile.TemporaryDirectory() as name, socket.socket() as listener:
        scenes(Path(name, "images"), given.scenes)
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        settings = ["--num_processes", str(given.processes), "--dynamo_backend", "no", "--main_process_port", str(port)]
        sizes = [part for key in ("scenes", "rounds", "threads") for part in (f"--{key}", str(getattr(given, key)))]
        saved = [] if given.json is None else ["--json", str(given.json.absolute())]
        script = ["-m", "benchmarks.predict_processes", "--base", name, *sizes, *saved]
        environment = os.environ | {"OMP_NUM_THREADS": str(given.threads), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([sys.executable, *LAUNCH, *settings, *script], env=environment, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
