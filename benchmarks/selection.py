"""SOFT top-K by its scalar root, against autograd through unrolled Sinkhorn iterations: time and memory.

    python -m benchmarks.selection [--json FILE] [--n 6400] [--k 9] [--batch 32] [--iterations 200]

Both do forward and backward on the same scores in float32, each in a process of its own, so that peaks of memory don't
mix. Time is the median of ``--repeats`` after one warm-up; memory is the peak resident memory of the process less that
of one which only imports and makes the scores. The unrolled way is the published pseudo-code in logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import in_own_process, write
from mistnn.ops import soft_topk
from mistnn.training.runlog import peak_memory_mib

EPSILON = 0.1
"""As in the official code."""


def unrolled(scores: Tensor, k: int, iterations: int) -> Tensor:
    """The mask by Sinkhorn iterations, differentiated by autograd through all of them."""
    n = scores.shape[1]
    cost = (scores[..., None] - scores.new_tensor([0.0, 1.0])).square()
    kernel = -cost / cost.detach().max() / EPSILON
    columns = scores.new_tensor([[(n - k) / n, k / n]]).log()
    right = torch.zeros(len(scores), 2)
    left = torch.zeros_like(scores)
    for _ in range(iterations):
        left = -math.log(n) - (kernel + right[:, None]).logsumexp(2)
        right = columns - (kernel + left[..., None]).logsumexp(1)
    return n * (kernel + left[..., None] + right[:, None])[..., 1].exp()


def measure(variant: str, batch: int, n: int, k: int, iterations: int, repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward, and the peak resident memory of this process in MiB."""
    scores = torch.rand(batch, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seconds = []
    for _ in range(0 if variant == "nothing" else repeats + 1):
        begun = time.perf_counter()
        mask = soft_topk(scores, k, epsilon=EPSILON).mask if variant == "root" else unrolled(scores, k, iterations)
        torch.autograd.grad((mask * scores.detach()).sum(), scores)
        seconds.append(time.perf_counter() - begun)
    return {"seconds": statistics.median(seconds[1:]) if seconds else 0.0, "peak_mib": peak_memory_mib()}


def main() -> None:
    """Measures both and prints how many times faster and smaller the root is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    for name, value in (("batch", 32), ("n", 6400), ("k", 9), ("iterations", 200), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = (given.batch, given.n, given.k, given.iterations, given.repeats)
    if given.variant:
        print(json.dumps(measure(given.variant, *sizes)))
        return
    found = {
        variant: in_own_process("benchmarks.selection", *sys.argv[1:], "--variant", variant)
        for variant in ("nothing", "root", "unrolled")
    }
    base = found["nothing"]["peak_mib"]
    memory = {name: found[name]["peak_mib"] - base for name in ("root", "unrolled")}
    result = {
        "speed_ratio": found["unrolled"]["seconds"] / found["root"]["seconds"],
        "memory_ratio": memory["unrolled"] / memory["root"],
        "seconds": {name: found[name]["seconds"] for name in memory},
        "memory_mib": memory,
        "settings": {"batch": given.batch, "n": given.n, "k": given.k, "iterations": given.iterations},
    }
    print(json.dumps(result, indent=2))
    write(result, given.json)


if __name__ == "__main__":
    main()
