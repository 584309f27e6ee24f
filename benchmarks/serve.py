"""How `mist serve` answers many clients at once: requests per second, durations, errors, memory.

    python -m benchmarks.serve [--json FILE] [--clients 8] [--seconds 60] [--side 128] [--threads 2]

Contract:
    * The server is the command `mist serve mist-mnist-hard` in a process of its own; the clients are threads here, on
      the same machine. Each sends one PNG of random noise after another, over one connection.
    * The memory is the server's resident memory, from its /metrics: the largest of the first third, after the first
      second, against the largest of the last third.
    * The exit code is 1 if a request fails, or the memory grows by more than ``--tolerance``.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import Options, write

MODEL = "mist-mnist-hard"
MIB = 2**20


def picture(side: int, seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def client(host: str, body: bytes, end: float, seconds: list[float], errors: list[str]) -> None:
    connection = http.client.HTTPConnection(host, timeout=120)
    while time.monotonic() < end:
        begun = time.perf_counter()
        try:
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                errors.append(f"{answer.status}: {said.decode()}")
        except (OSError, http.client.HTTPException) as error:
            errors.append(repr(error))
            connection.close()
        seconds.append(time.perf_counter() - begun)
    connection.close()


def metric(host: str, name: str) -> float:
    connection = http.client.HTTPConnection(host, timeout=120)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^mist_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def measure(clients: int, seconds: float, side: int, threads: int) -> dict[str, Any]:
    """Starts the server, sends requests, and stops it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "mistnn", "serve", MODEL, "--port", "0", "--device", "cpu"]
    spent: list[float] = []
    errors: list[str] = []
    memory: list[float] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            host = server.stdout.readline().split("http://")[1].partition("/")[0]
            end = time.monotonic() + seconds
            at_once = [
                threading.Thread(target=client, args=(host, picture(side, index), end, spent, errors))
                for index in range(clients)
            ]
            for one in at_once:
                one.start()
            while time.monotonic() < end:
                time.sleep(min(1.0, seconds / 10))
                memory.append(metric(host, "resident_memory_bytes"))
            for one in at_once:
                one.join()
            batches, images = metric(host, "batches_total"), metric(host, "images_total")
        finally:
            server.terminate()
    third = max(1, len(memory) // 3)
    first, last = max(memory[:third]), max(memory[-third:])
    return {
        "requests": len(spent),
        "errors": errors[:10],
        "requests_per_second": round(len(spent) / seconds, 1),
        "median_ms": round(1e3 * statistics.median(spent), 1),
        "slowest_of_20_ms": round(1e3 * statistics.quantiles(spent, n=20)[-1], 1) if len(spent) > 1 else None,
        "images_per_batch": round(images / batches, 2),
        "memory_mib": [round(first / MIB, 1), round(last / MIB, 1)],
        "growth": round(last / first - 1, 4),
        "exit_code": server.returncode,
    }


def main() -> int:
    options = Options(__doc__)
    options.size("clients", 8, 2, "clients at once")
    options.size("seconds", 60, 2, "length")
    options.size("side", 128, 64, "side of an image in pixels", least=32)
    options.add_argument("--tolerance", type=float, default=0.05, help="accepted growth of the memory")
    given = options.parse()
    result = measure(given.clients, given.seconds, given.side, given.threads)
    print(
        f"{result['requests']} requests, {result['requests_per_second']} per second, {result['images_per_batch']} "
        f"images in a batch; median {result['median_ms']} ms, 1 of 20 above {result['slowest_of_20_ms']} ms; "
        f"memory {result['memory_mib'][0]} to {result['memory_mib'][1]} MiB; errors: {result['errors'] or 'none'}"
    )
    write({**result, "model": MODEL, **options.settings(given), "tolerance": given.tolerance}, given.json)
    grown = result["growth"] > given.tolerance and not given.smoke
    return 1 if grown or result["errors"] or result["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
