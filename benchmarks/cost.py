"""What one lifted step of reconstruction costs, against K and against the size of the image.

    python -m benchmarks.cost [--json FILE] [--figure FILE] [--ks K ...] [--canvases N ...]

Contract:
    * One image per step, Gabor noise with K impulses; network, step and precision are those of the preset. The time of
      a step does not depend on the content of the image.
    * K varies at one canvas, the canvas at one K. The peak of resident memory before the first step (Python, libraries,
      network, image) is reported too.
    * A point that would probably need more than ``--max-memory-gib``, or more than ``--max-seconds`` for its steps, is
      left out, and the result says so. The estimate extrapolates the previous points linearly in K or in pixels. A
      process that still takes too long is stopped, and the larger points of its row are left out.
"""

import dataclasses
import functools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measuring import GIB, Options, alternate, in_own_process, peak_bytes, spread, write
from mistnn.data import GaborConfig
from mistnn.models.mist import LiftedStep, Mist
from mistnn.nn.mixed_precision import computed_in
from mistnn.presets import find_preset
from mistnn.records import collate
from mistnn.viz import CostPoint, draw_cost, figure_to_png

PRESET = "mist-discover-gabor"
KS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
CANVASES = [64, 96, 128, 192, 256, 384, 512, 768, 1024]


class Limits(NamedTuple):
    """Limits of a point: resident bytes, seconds for all of its steps."""

    peak_bytes: float
    seconds: float


def run_point(k: int, canvas: int, repeats: int, warm_up: int) -> dict[str, Any]:
    experiment: Any = find_preset(PRESET).experiment.resolved()
    torch.manual_seed(0)
    step = LiftedStep(Mist(dataclasses.replace(experiment.model, k=k)), experiment.step)
    batch = collate([GaborConfig(canvas=canvas, counts=(k,), min_distance=0.0).open("train", None)[0]])
    before = peak_bytes()
    seconds = alternate({"step": lambda turn: step(batch, turn)}, repeats + warm_up, warm_up=0)["step"]
    sizes, peaks = {"k": k, "canvas": canvas}, {"peak_bytes": peak_bytes(), "peak_bytes_before": before}
    return {**sizes, "seconds": spread(seconds[warm_up:]), **peaks, "total_seconds": sum(seconds)}


def expected(size: float, sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The value at a larger size, on the line through the last two points, or through 0 and the only point.

    ``None`` without a point. A falling line, caused by noise, is taken as constant.
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
    """The measured points of a row, and the points that were left out with the reason.

    Args:
        points: (K, canvas) of each, from small to large.
        size_of: the size with which the cost is assumed to grow linearly.
        limits: of a point.
        measure: measures one point.
        say: receives a line about each point.
    """
    done: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for k, canvas in points:
        sizes = [size_of(point["k"], point["canvas"]) for point in done]
        memory, seconds = (
            expected(size_of(k, canvas), sizes, [point[name] for point in done]) or 0.0
            for name in ("peak_bytes", "total_seconds")
        )
        reason = ""
        if skipped:
            reason = "a smaller one was left out"
        elif memory > limits.peak_bytes:
            reason = f"would need about {memory / GIB:.1f} GiB, --max-memory-gib is {limits.peak_bytes / GIB:g}"
        elif seconds > limits.seconds:
            reason = f"would take about {seconds:.0f} s, --max-seconds is {limits.seconds:g}"
        else:
            try:
                done.append(measure(k, canvas))
            except subprocess.TimeoutExpired:
                reason = f"took longer than --max-seconds {limits.seconds:g}"
            except subprocess.CalledProcessError as error:
                last = (error.stderr or "").strip().splitlines()[-1:]
                reason = f"its process ended with {error.returncode} {' '.join(last)}".strip()
        if reason:
            skipped.append({"k": k, "canvas": canvas, "reason": reason})
            say(f"K {k:3}, {canvas:4} px: left out: {reason}")
        else:
            second, peak = done[-1]["seconds"], done[-1]["peak_bytes"] / GIB
            words = f"median {second['median']:.3f} s, IQR {second['iqr']:.3f} s, peak {peak:.2f} GiB"
            say(f"K {k:3}, {canvas:4} px: {words}")
    return done, skipped


def curve(points: Sequence[dict[str, Any]], name: str) -> list[CostPoint]:
    found = []
    for point in points:
        seconds = (point["seconds"][part] for part in ("median", "quartile_1", "quartile_3"))
        found.append(CostPoint(point[name], *seconds, point["peak_bytes"], point["peak_bytes_before"]))
    return found


def main() -> None:
    options = Options(__doc__, os.cpu_count() or 1)
    options.add_argument("--figure", type=Path, help="draw time and memory into this PNG")
    options.size("ks", KS, [1], "values of K, at --at-canvas")
    options.size("canvases", CANVASES, [32], "sides in pixels, at --at-k")
    options.size("at-canvas", 256, 32, "side of the image while K varies")
    options.size("at-k", 32, 1, "K while the side of the image varies")
    options.size("repeats", 9, 1, "measured steps of a point")
    options.size("warm-up", 2, 0, "steps of a point before them", least=0)
    options.add_argument("--max-memory-gib", type=float, default=12.0, help="leave out points that would need more")
    options.add_argument("--max-seconds", type=float, default=600.0, help="leave out points whose steps take longer")
    given = options.parse()
    margin = 2 * GaborConfig().margin
    if min(*given.canvases, given.at_canvas) <= margin:
        options.error(f"--canvases and --at-canvas must be above {margin:g} pixels")
    if max(*given.ks, given.at_k) > min(*given.canvases, given.at_canvas) ** 2:
        options.error("--ks and --at-k must be at most the number of pixels")
    limits = Limits(given.max_memory_gib * GIB, given.max_seconds)

    @functools.cache  # the rows cross in one point
    def measure(k: int, canvas: int) -> dict[str, Any]:
        return in_own_process(run_point, k, canvas, given.repeats, given.warm_up, timeout=limits.seconds + 60)

    along_k = [(k, given.at_canvas) for k in sorted(set(given.ks))]
    along_canvas = [(given.at_k, canvas) for canvas in sorted(set(given.canvases))]
    ks, no_ks = measure_row(along_k, lambda k, _: k, limits, measure, print)
    canvases, no_canvases = measure_row(along_canvas, lambda _, canvas: canvas**2, limits, measure, print)
    if given.json:
        experiment: Any = find_preset(PRESET).experiment.resolved()
        result = {
            "preset": PRESET,
            "precision": computed_in(experiment.step.precision, "cpu"),
            "against_k": {"canvas": given.at_canvas, "points": ks, "left_out": no_ks},
            "against_canvas": {"k": given.at_k, "points": canvases, "left_out": no_canvases},
            "plan": {name: getattr(given, name) for name in ("repeats", "warm_up", "threads")},
            "max_memory_gib": given.max_memory_gib,
            "max_seconds": given.max_seconds,
            "batch": 1,
            "model": dataclasses.asdict(experiment.model),
            "step": dataclasses.asdict(experiment.step),
        }
        write(result, given.json)
    if given.figure:
        drawn = {
            f"K, at {given.at_canvas} x {given.at_canvas} px": curve(ks, "k"),
            f"side of the image in pixels, at K = {given.at_k}": curve(canvases, "canvas"),
        }
        given.figure.write_bytes(figure_to_png(draw_cost({name: row for name, row in drawn.items() if row})))


if __name__ == "__main__":
    main()
