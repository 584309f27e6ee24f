"""SOFT top-K by its scalar root, against autograd through unrolled Sinkhorn iterations: time and memory.

    python -m benchmarks.selection [--json FILE] [--n 6400] [--k 9] [--batch 32] [--iterations 200]

Both ways do forward and backward on the same scores in float32. Memory is the peak resident memory minus that of a
process that only imports and makes the scores. The unrolled way is the published pseudo-code in logarithms.
"""

import math
import statistics

import torch
from torch import Tensor

from benchmarks.measuring import Options, alternate, in_own_process, peak_bytes, print_and_write
from mistnn.ops import soft_topk

EPSILON = 0.1  # as in the official code


def unrolled(scores: Tensor, k: int, iterations: int) -> Tensor:
    """The mask by Sinkhorn iterations; autograd differentiates through all of them."""
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

    def step(_: int) -> None:
        mask = soft_topk(scores, k, epsilon=EPSILON).mask if variant == "root" else unrolled(scores, k, iterations)
        torch.autograd.grad((mask * scores.detach()).sum(), scores)

    seconds = 0.0 if variant == "nothing" else statistics.median(alternate({variant: step}, repeats)[variant])
    return {"seconds": seconds, "peak_mib": peak_bytes() / 2**20}


def main() -> None:
    options = Options(__doc__, torch.get_num_threads())
    options.size("batch", 32, 1, "images")
    options.size("n", 6400, 64, "candidate positions of an image")
    options.size("k", 9, 3, "selected positions")
    options.size("iterations", 200, 2, "Sinkhorn iterations")
    options.size("repeats", 5, 1, "measured calls")
    given = options.parse()
    sizes = (given.batch, given.n, given.k, given.iterations, given.repeats)
    found = {variant: in_own_process(measure, variant, *sizes) for variant in ("nothing", "root", "unrolled")}
    base = found["nothing"]["peak_mib"]
    memory = {name: max(0.0, found[name]["peak_mib"] - base) for name in ("root", "unrolled")}
    result = {
        "speed_ratio": found["unrolled"]["seconds"] / found["root"]["seconds"],
        "memory_ratio": memory["unrolled"] / memory["root"] if memory["root"] else None,
        "seconds": {name: found[name]["seconds"] for name in memory},
        "memory_mib": memory,
    }
    print_and_write(result, given, "batch", "n", "k", "iterations")


if __name__ == "__main__":
    main()
