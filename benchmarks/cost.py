"""What one lifted step of reconstruction costs, against K and against the size of the image.

    python -m benchmarks.cost [--json FILE] [--figure FILE] [--ks K ...] [--canvases N ...]

Contract:
    * One image a step, a field of Gabor noise with as many impulses as K, and the preset's network, choices of the step
      and precision. The time of a step doesn't depend on what the image shows.
    * K varies at one canvas, the canvas at one K. Every point is measured in a fresh process of its own, so that its
      peak of resident memory is its own. The peak before the first step is told beside it: Python, the libraries, the
      network and the image.
    * The first ``--warm-up`` steps are dropped. What is reported is the median of a step and its interquartile range.
    * A point that would probably need more than ``--max-memory-gib``, or more than ``--max-seconds`` for its steps, is
      left out and said so, in the result too. The estimate is a straight line through the points before, in K or in
      pixels; a process that takes too long nevertheless is ended, and so are the larger points of its row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import in_own_process, peak_bytes, spread, write
from mistnn.data import GaborConfig, GaborNoise
from mistnn.models.mist import LiftedStep, Mist
from mistnn.nn.mixed_precision import computed_in
from mistnn.presets import find_preset
from mistnn.records import collate
from mistnn.viz import CostPoint, draw_cost, figure_to_png

PRESET = "mist-discover-gabor"
KS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
CANVASES = [64, 96, 128, 192, 256, 384, 512, 768, 1024]
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """What a point may take: resident bytes, seconds for all of its steps."""

    peak_bytes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """How each point is measured."""

    repeats: int
    warm_up: int
    threads: int

    @property
    def steps(self) -> int:
        return self.repeats + self.warm_up


def run_point(k: int, canvas: int, plan: Plan) -> dict[str, Any]:
    """The steps of one point, in this process."""
    experiment = find_preset(PRESET).experiment
    torch.manual_seed(0)
    model = Mist(dataclasses.replace(experiment.model, k=k))
    step = LiftedStep(model, experiment.step)
    noise = GaborNoise(GaborConfig(canvas=canvas, counts=(k,), min_distance=0.0), "train", None)
    batch = collate([noise[0]])
    before = peak_bytes()
    seconds = []
    for turn in range(plan.steps):
        start = time.perf_counter()
        step(batch, turn)
        seconds.append(time.perf_counter() - start)
    return {
        "k": k,
        "canvas": canvas,
        "seconds": spread(seconds[plan.warm_up :]),
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "total_seconds": sum(seconds),
    }


def measure_point(k: int, canvas: int, plan: Plan, limit: float) -> dict[str, Any]:
    """One point in a process of its own.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than the limit and a minute for its start.
        subprocess.CalledProcessError: if it fails, for example for want of memory.
    """
    settings = ("--repeats", plan.repeats, "--warm-up", plan.warm_up, "--threads", plan.threads)
    return in_own_process("benchmarks.cost", "--point", k, canvas, *settings, timeout=limit + 60)


def expected(size: float, sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """A value at a larger size, in a straight line through the last two points; one point stands for a line through 0.

    None without a point. A line that falls, as noise may make it, is taken as level.
    """
    if not sizes:
        return None
    if len(sizes) == 1:
        return values[0] * size / sizes[0]
    slope = max(0.0, (values[-1] - values[-2]) / (sizes[-1] - sizes[-2]))
    return values[-1] + slope * (size - sizes[-1])


def measure_row(
    points: Sequence[tuple[int, int]],
    size_of: Callable[[int, int], float],
    limits: Limits,
    measure: Callable[[int, int], dict[str, Any]],
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The points of a row, from small to large, and those that were left out with the reason.

    Args:
        points: (K, canvas) of each, rising.
        size_of: what the cost is taken to grow with.
        limits: of a point.
        measure: measures one.
        say: hears a line about each.
    """
    done: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for k, canvas in points:
        sizes = [size_of(point["k"], point["canvas"]) for point in done]
        size = size_of(k, canvas)
        memory = expected(size, sizes, [point["peak_bytes"] for point in done])
        seconds = expected(size, sizes, [point["total_seconds"] for point in done])
        reason = None
        if skipped:
            reason = "a smaller one was left out"
        elif memory is not None and memory > limits.peak_bytes:
            reason = f"would need about {memory / GIB:.1f} GiB, --max-memory-gib is {limits.peak_bytes / GIB:g}"
        elif seconds is not None and seconds > limits.seconds:
            reason = f"would take about {seconds:.0f} s, --max-seconds is {limits.seconds:g}"
        else:
            try:
                done.append(measure(k, canvas))
            except subprocess.TimeoutExpired:
                reason = f"took longer than --max-seconds {limits.seconds:g}"
            except subprocess.CalledProcessError as error:
                last = (error.stderr or "").strip().splitlines()[-1:]
                reason = f"its process ended with {error.returncode} {' '.join(last)}".strip()
        if reason is None:
            second = done[-1]["seconds"]
            say(
                f"K {k:3}, {canvas:4} px: median {second['median']:.3f} s, IQR {second['iqr']:.3f} s, "
                f"peak {done[-1]['peak_bytes'] / GIB:.2f} GiB"
            )
        else:
            skipped.append({"k": k, "canvas": canvas, "reason": reason})
            say(f"K {k:3}, {canvas:4} px: left out: {reason}")
    return done, skipped


def curve(points: Sequence[dict[str, Any]], name: str) -> list[CostPoint]:
    """What is drawn of a row."""
    return [
        CostPoint(
            point[name],
            point["seconds"]["median"],
            point["seconds"]["quartile_1"],
            point["seconds"]["quartile_3"],
            point["peak_bytes"],
            point["peak_bytes_before"],
        )
        for point in points
    ]


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Measure what a lifted step of reconstruction costs.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--figure", type=Path, help="draw time and memory into this PNG")
    parser.add_argument("--ks", type=int, nargs="+", default=KS, help="values of K, at --at-canvas")
    parser.add_argument("--canvases", type=int, nargs="+", default=CANVASES, help="sides in pixels, at --at-k")
    parser.add_argument("--at-canvas", type=int, default=256, help="side of the image while K varies")
    parser.add_argument("--at-k", type=int, default=32, help="K while the image's side varies")
    parser.add_argument("--repeats", type=int, default=9, help="steps of a point that count")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of a point that don't")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    parser.add_argument("--max-memory-gib", type=float, default=12.0, help="leave points out that would need more")
    parser.add_argument(
        "--max-seconds", type=float, default=600.0, help="leave points out whose steps would take longer"
    )
    parser.add_argument("--point", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.repeats < 1 or asked.threads < 1 or asked.warm_up < 0:
        parser.error("--repeats and --threads must be 1 or more, --warm-up 0 or more")
    margin = 2 * GaborConfig().margin
    if min(*asked.canvases, asked.at_canvas) <= margin:
        parser.error(f"--canvases and --at-canvas must be above {margin:g} pixels")
    if not 1 <= min(*asked.ks, asked.at_k) or max(*asked.ks, asked.at_k) > min(*asked.canvases, asked.at_canvas) ** 2:
        parser.error("--ks and --at-k must be from 1 to the number of pixels")
    return asked


def main() -> None:
    asked = arguments()
    plan = Plan(asked.repeats, asked.warm_up, asked.threads)
    torch.set_num_threads(plan.threads)
    if asked.point:
        print(json.dumps(run_point(*asked.point, plan)))
        return
    limits = Limits(asked.max_memory_gib * GIB, asked.max_seconds)
    measured: dict[tuple[int, int], dict[str, Any]] = {}

    def measure(k: int, canvas: int) -> dict[str, Any]:
        if (k, canvas) not in measured:  # the rows cross in one point
            measured[k, canvas] = measure_point(k, canvas, plan, limits.seconds)
        return measured[k, canvas]

    along_k = [(k, asked.at_canvas) for k in sorted(set(asked.ks))]
    along_canvas = [(asked.at_k, canvas) for canvas in sorted(set(asked.canvases))]
    ks, no_ks = measure_row(along_k, lambda k, _: k, limits, measure, print)
    canvases, no_canvases = measure_row(along_canvas, lambda _, canvas: canvas**2, limits, measure, print)
    if asked.json:
        experiment = find_preset(PRESET).experiment
        result = {
            "preset": PRESET,
            "precision": computed_in(experiment.step.precision, "cpu"),
            "against_k": {"canvas": asked.at_canvas, "points": ks, "left_out": no_ks},
            "against_canvas": {"k": asked.at_k, "points": canvases, "left_out": no_canvases},
            "plan": dataclasses.asdict(plan),
            "max_memory_gib": asked.max_memory_gib,
            "max_seconds": asked.max_seconds,
            "batch": 1,
            "model": dataclasses.asdict(experiment.model),
            "step": dataclasses.asdict(experiment.step),
        }
        write(result, asked.json)
    if asked.figure:
        drawn = {
            f"K, at {asked.at_canvas} x {asked.at_canvas} px": curve(ks, "k"),
            f"side of the image in pixels, at K = {asked.at_k}": curve(canvases, "canvas"),
        }
        asked.figure.write_bytes(figure_to_png(draw_cost({name: row for name, row in drawn.items() if row})))


if __name__ == "__main__":
    main()
