"""What a training step costs against the number N of candidate places: MIST, SOFT top-K, perturbed top-K.

    python -m benchmarks.candidates [--json FILE] [--figure FILE] [--max-memory-gib 12]

All three have the paper's heat-map network and classifier, nine digits on 80 x 80 pixels, K = 9.

* MIST chooses among all pixels. N is varied by the size of the image.
* Xie20 masks the classification of every place of a heat map at a stride of 16, 8, 4, 2 pixels (equation 12).
* Perturbed: the mean mask of 500 noisy top-K, on the same heat maps and with the same loss; only the places that any
  sample chose are classified, since all others have a mask of exactly 0.

Each point is the median of ``--repeats`` steps after a first one, in a process of its own; memory is the peak of
resident memory less what is held before the first step. Beside each stands the memory that the sizes of saved
activations foretell: B (d H W + a K) for MIST, B (d H W + a N + 8 N) for masks, d = 2.7 kB a pixel, a = 0.88 MiB a
patch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import in_own_process, peak_bytes, resident_bytes, write
from mistnn.data import Scenes, ScenesConfig
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist
from mistnn.models.rivals import RivalStep, RivalStepConfig, Xie20, Xie20Config
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.ops import perturbed_topk
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import masked_class_proportions
from mistnn.presets.mist_digits import PAPER, PAPER_HEATMAP
from mistnn.records import Batch, collate
from mistnn.viz import CandidatePoint, draw_candidates, figure_to_png

K = 9
BYTES_A_PIXEL = 2.7e3
BYTES_A_PATCH = 0.88 * 2**20
POINTS = {
    "MIST": [(40, 1), (80, 1), (128, 1), (192, 1), (256, 1)],
    "Xie20": [(80, 16), (80, 8), (80, 4), (80, 2)],
    "Perturbed": [(80, 16), (80, 8), (80, 4), (80, 2)],
}
"""Side of the image and stride of the heat map."""


class Perturbed(Xie20):
    """Xie20's network with the perturbed mask."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 12, over the places that any sample chose."""
        assert batch.counts is not None
        mask = perturbed_topk(self.scores(batch.images), K).mask
        most = int((mask > 0).sum(1).max())
        chosen = mask.topk(most, dim=1)
        boxes = self.places(batch.images).gather(1, chosen.indices[..., None].expand(-1, -1, 4))
        patches = extract_patches(batch.images, boxes, self.config.patch_size)
        proportions = masked_class_proportions(self.task_network.classify(patches).softmax(-1), chosen.values, K)
        target = batch.counts / batch.counts.sum(1, keepdim=True)
        return {"task": (target - proportions).square().sum(1)}


def run_point(system: str, canvas: int, stride: int, batch: int, repeats: int) -> dict[str, float]:
    """Steps of one system at one size, in this process."""
    torch.manual_seed(0)
    # What an image shows costs nothing: digits may overlap, so that nine fit into small images.
    data = ScenesConfig(source="embedded", canvas=canvas, counts=(K,), min_distance=0.0)
    scenes = Scenes(data, "train", None)
    step: LiftedStep | RivalStep
    if system == "MIST":
        step = LiftedStep(Mist(PAPER), LiftedStepConfig())
    else:
        kind = Xie20 if system == "Xie20" else Perturbed
        config = Xie20Config(k=K, stride=stride, heatmap=HeatmapConfig(channels=PAPER_HEATMAP.channels, blocks=4))
        step = RivalStep(kind(config), RivalStepConfig())
    before = resident_bytes()
    seconds = []
    for turn in range(repeats + 1):
        images = collate([scenes[turn * batch + index] for index in range(batch)])
        start = time.perf_counter()
        step(images, turn)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "bytes": max(0, peak_bytes() - before)}


def candidates(canvas: int, stride: int) -> int:
    """N."""
    return (canvas // stride) ** 2


def formula(system: str, canvas: int, stride: int, batch: int) -> float:
    """Bytes that the sizes of saved activations foretell."""
    network = BYTES_A_PIXEL * canvas**2
    count = candidates(canvas, stride)
    return batch * (network + (BYTES_A_PATCH * K if system == "MIST" else (BYTES_A_PATCH + 8) * count))


def measure(system: str, canvas: int, stride: int, batch: int, repeats: int) -> dict[str, Any]:
    """One point in a process of its own."""
    settings = ("--batch", batch, "--repeats", repeats, "--threads", torch.get_num_threads())
    return in_own_process("benchmarks.candidates", "--point", system, canvas, stride, *settings)


def main() -> None:
    """Measures every point that fits into memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--figure", type=Path, help="draw the curves into this PNG")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--repeats", type=int, default=3, help="steps of a point that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--max-memory-gib", type=float, default=12.0, help="leave points out that would need more")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if min(asked.batch, asked.repeats, asked.threads) < 1:
        parser.error("--batch, --repeats and --threads must be 1 or more")
    torch.set_num_threads(asked.threads)
    if asked.point:
        system, canvas, stride = asked.point
        print(json.dumps(run_point(system, int(canvas), int(stride), asked.batch, asked.repeats)))
        return
    points: list[dict[str, Any]] = []
    for system, sizes in POINTS.items():
        for canvas, stride in sizes:
            foretold = formula(system, canvas, stride, asked.batch)
            point = {"system": system, "canvas": canvas, "stride": stride, "n": candidates(canvas, stride)}
            point |= {"formula_bytes": foretold}
            if foretold > asked.max_memory_gib * 2**30:
                print(f"{system}, N = {point['n']}: left out, would need {foretold / 2**30:.1f} GiB")
            else:
                point |= measure(system, canvas, stride, asked.batch, asked.repeats)
                print(
                    f"{system}, N = {point['n']}: {point['seconds']:.2f} s, {point['bytes'] / 2**30:.2f} GiB, "
                    f"formula {foretold / 2**30:.2f} GiB",
                    flush=True,
                )
            points.append(point)
    facts = {"batch": asked.batch, "repeats": asked.repeats, "k": K, "precision": "float32"}
    write({"points": points, **facts}, asked.json)
    if asked.figure:
        curves = {
            system: [
                CandidatePoint(point["n"], point.get("seconds"), point.get("bytes"), point["formula_bytes"])
                for point in points
                if point["system"] == system
            ]
            for system in POINTS
        }
        asked.figure.write_bytes(figure_to_png(draw_candidates(curves)))


if __name__ == "__main__":
    main()
