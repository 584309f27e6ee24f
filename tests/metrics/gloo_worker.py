"""One of several processes of test_stateful: python gloo_worker.py RANK PROCESSES RENDEZVOUS OUT.

Updates the metrics with its share of the images, and rank 0 writes what they compute together. Shares are uneven, and
the last process may have no image at all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.metrics.scenes import as_tensors, random_images, random_pictures


def metrics():
    from mistnn.metrics import AveragePrecision, CentreMetrics, DetectionMetrics, ReconstructionMetrics

    return {
        "detection": DetectionMetrics(),
        "precision": AveragePrecision(thresholds=(0.0, 0.5, 0.7)),
        "centre": CentreMetrics(background=0),
        "reconstruction": ReconstructionMetrics((1, 4, 5)),
    }


def results(cases, pictures, start, stop):
    """Updates in batches of 3 and computes."""
    made = metrics()
    for first in range(start, stop, 3):
        last = min(first + 3, stop)
        batch = as_tensors(cases[first:last])
        for name in ("detection", "precision", "centre"):
            made[name].update(*batch)
        made["reconstruction"].update(pictures[0][first:last], pictures[1][first:last])
    return {name: metric.compute() for name, metric in made.items()}


def run(rank: int, processes: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    cases, pictures = random_images(17, seed=5), random_pictures(17, seed=5)
    for name, border in (("uneven", 11), ("idle", 17)):
        start, stop = (0, border) if rank == 0 else (border, 17)
        found = results(cases, pictures, start, stop)
        if rank == 0:
            Path(out, f"{name}.json").write_text(json.dumps(found))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort a process that ends by itself, after all is written


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
