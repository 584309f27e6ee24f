"""What a training step costs against the number N of candidate positions: MIST, SOFT top-K, perturbed top-K.

    python -m benchmarks.candidates [--json FILE] [--figure FILE] [--max-memory-gib 12]

All three have the paper's heat-map network and classifier, nine digits on 80 x 80 pixels, and K = 9.

* MIST selects among all pixels. N varies with the size of the image.
* Xie20 masks the classification of every position of a heat map at a stride of 16, 8, 4 or 2 pixels (equation 12).
* Perturbed: the mean mask of 500 noisy top-K, on the same heat maps and with the same loss; only positions that some
  sample chose are classified, since all others have a mask of exactly 0.

Memory is the peak minus what is held before the first step. Beside it stands the memory predicted from the sizes of
saved activations: B (d H W + a K) for MIST, B (d H W + a N + 8 N) for masks, with d = 2.7 kB per pixel and a = 0.88 MiB
per patch.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import GIB, Options, cost_of, in_own_process, write
from mistnn.data import Scenes, ScenesConfig
from mistnn.interfaces import Step
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist
from mistnn.models.rivals import RivalStep, RivalStepConfig, Xie20, Xie20Config
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.ops import perturbed_topk
from mistnn.ops.sampling import extract_patches
from mistnn.ops.selection import masked_class_proportions
from mistnn.presets.mist.digits import PAPER, PAPER_HEATMAP
from mistnn.records import Batch, collate
from mistnn.viz import CandidatePoint, draw_candidates, figure_to_png

K = 9
BYTES_PER_PIXEL = 2.7e3
BYTES_PER_PATCH = 0.88 * 2**20
POINTS = {
    "MIST": [(40, 1), (80, 1), (128, 1), (192, 1), (256, 1)],
    "Xie20": [(80, 16), (80, 8), (80, 4), (80, 2)],
    "Perturbed": [(80, 16), (80, 8), (80, 4), (80, 2)],
}
"""Side of the image and stride of the heat map."""


class Perturbed(Xie20):
    """Xie20's network with the perturbed mask."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 12, over the positions that any sample chose."""
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
    torch.manual_seed(0)
    # The content of an image does not change the cost: digits may overlap, so that nine fit into small images.
    data = ScenesConfig(source="embedded", canvas=canvas, counts=(K,), min_distance=0.0)
    scenes = Scenes(data, "train", None)
    if system == "MIST":
        step: Step = LiftedStep(Mist(PAPER), LiftedStepConfig())
    else:
        network = Xie20 if system == "Xie20" else Perturbed
        # With MIST's own heat-map network below it, so that what differs is the selection alone.
        heatmap = HeatmapConfig(channels=PAPER_HEATMAP.channels, blocks=4)
        config = Xie20Config(k=K, stride=stride, heatmap=heatmap, head="pooled")
        step = RivalStep(network(config), RivalStepConfig())
    batches = [collate([scenes[turn * batch + index] for index in range(batch)]) for turn in range(repeats + 1)]
    return cost_of(step, batches)


def candidates(canvas: int, stride: int) -> int:
    return (canvas // stride) ** 2


def formula(system: str, canvas: int, stride: int, batch: int) -> float:
    """Bytes predicted from the sizes of saved activations."""
    count = candidates(canvas, stride)
    selected = BYTES_PER_PATCH * K if system == "MIST" else (BYTES_PER_PATCH + 8) * count
    return batch * (BYTES_PER_PIXEL * canvas**2 + selected)


def main() -> None:
    options = Options(__doc__, torch.get_num_threads())
    options.add_argument("--figure", type=Path, help="draw the curves into this PNG")
    options.add_argument("--max-memory-gib", type=float, default=12.0, help="leave out points that would need more")
    options.size("batch", 4, 1, "images per step")
    options.size("repeats", 3, 1, "measured steps of a point")
    options.size("points", max(map(len, POINTS.values())), 1, "points of a system, from the smallest N")
    given = options.parse()
    points: list[dict[str, Any]] = []
    for system, sizes in POINTS.items():
        for canvas, stride in sizes[: given.points]:
            predicted = formula(system, canvas, stride, given.batch)
            n = candidates(canvas, stride)
            points.append({"system": system, "canvas": canvas, "stride": stride, "n": n, "formula_bytes": predicted})
            if predicted > given.max_memory_gib * GIB:
                print(f"{system}, N = {n}: left out, would need {predicted / GIB:.1f} GiB")
                continue
            found = in_own_process(run_point, system, canvas, stride, given.batch, given.repeats)
            points[-1] |= found
            words = f"{found['seconds']:.2f} s, {found['bytes'] / GIB:.2f} GiB, formula {predicted / GIB:.2f} GiB"
            print(f"{system}, N = {n}: {words}", flush=True)
    write({"points": points, "k": K, "precision": "float32", **options.settings(given)}, given.json)
    if given.figure:
        curves: dict[str, list[CandidatePoint]] = {system: [] for system in POINTS}
        for point in points:
            drawn = CandidatePoint(point["n"], point.get("seconds"), point.get("bytes"), point["formula_bytes"])
            curves[point["system"]].append(drawn)
        given.figure.write_bytes(figure_to_png(draw_candidates(curves)))


if __name__ == "__main__":
    main()
