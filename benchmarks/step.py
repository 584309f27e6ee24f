"""The lifted step of MIST against a plain step with the arithmetic as published.

    python -m benchmarks.step [--json FILE] [--threads N] [--rounds N] [--preset NAME ...]

Contract:
    * Both have the same networks, sizes, initial weights and batches, in one process. Rounds alternate between the
      variants and begin with another one each, so that a machine that slows down slows all of them.
    * The first ``--warm-up`` rounds are dropped. Reported are the median of a step and its interquartile range.
    * The plain step differs in exactly five things: it classifies the patches at E_K for labels in every step; it
      differentiates the weights in the keypoint steps (``loss.backward()``); its Adam loops over single tensors; its
      tensors are in NCHW layout; it does not log. Samplers, softmax and networks are the same, so that their gain over
      the released code is not counted.
    * ``ratio`` = plain / lean in the preset's precision; ``ratio_float32`` = plain / lean in float32.
    * Peak resident memory is measured in a separate process for each variant.
    * The scenes show embedded digits, so that no data is needed; their content does not change the time.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

if not __package__:  # run as a file: import from the repository's root, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.measuring import Options, alternate, in_own_process, peak_bytes, spread, write
from mistnn.data import Scenes, ScenesConfig
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist, MistConfig
from mistnn.nn.mixed_precision import computed_in
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import class_proportion_loss, heatmap_loss, lifting_penalty, reconstruction_loss
from mistnn.presets import find_preset
from mistnn.records import Batch, collate

VARIANTS = ("plain-float32", "lean-float32", "lean-bfloat16")
PRESETS = ["mist-mnist-hard", "mist-mnist-hard-paper"]


class PlainStep:
    """Algorithm 1 with the arithmetic of the released code, to the same weights and keypoints as ``LiftedStep``.

    Convention: float32, the order keypoints, task, heat map; constant rates, so ``decay`` 1 and no ``heatmap_warmup``.
    """

    def __init__(self, model: Mist, config: LiftedStepConfig) -> None:
        if len(model.config.scales) > 1:
            raise ValueError(f"the plain step has one scale, as the released code, got {model.config.scales}")
        if config.order != "keypoints-first" or config.decay != 1.0 or config.heatmap_warmup:
            raise ValueError(f"the plain step has the released order and constant rates, got {config}")
        self.model, self.config = model, config
        plain = {"foreach": False, "fused": False}
        self.task = torch.optim.Adam(model.task_network.parameters(), lr=config.task_rate, **plain)
        self.heatmap = torch.optim.Adam(model.heatmap_network.parameters(), lr=config.heatmap_rate, **plain)

    def __call__(self, batch: Batch, iteration: int) -> Tensor:
        """One batch; returns the optimised keypoints."""
        model, config, images = self.model, self.config, batch.images
        height, width = images.shape[-2:]
        heatmaps = model.heatmaps(images)
        anchors = model.keypoints(heatmaps).keypoints
        # Labels of the detections, for the log only; as in the released code, the graph lives to the end of the step.
        labels = model.task_network(model.cut(images, anchors))

        keypoints = anchors.clone().requires_grad_()
        # The loss is a mean over the images, which the rate undoes.
        mover = torch.optim.SGD([keypoints], lr=config.keypoint_step * len(images), foreach=False, fused=False)
        for _ in range(config.inner_steps):
            mover.zero_grad(set_to_none=False)
            self.task.zero_grad(set_to_none=False)
            loss = self.losses(batch, keypoints)
            if config.penalty:
                loss = loss + config.penalty * lifting_penalty(keypoints, anchors)
            loss.mean().backward()
            self.cap(keypoints, config.keypoint_step * len(images))
            mover.step()
            with torch.no_grad():
                keypoints[..., 0].clamp_(0, width)
                keypoints[..., 1].clamp_(0, height)
        keypoints = keypoints.detach()

        self.task.zero_grad(set_to_none=False)
        losses = self.losses(batch, keypoints)
        losses.mean().backward()
        self.task.step()

        self.heatmap.zero_grad(set_to_none=False)
        weight = torch.exp(-config.confidence * losses.detach())
        (weight * heatmap_loss(heatmaps, ideal_heatmaps(keypoints, (1.0,), height, width))).mean().backward()
        self.heatmap.step()
        del labels
        return keypoints

    def cap(self, keypoints: Tensor, rate: float) -> None:
        """Limits gradients that would move a keypoint beyond its reach (not in the released code)."""
        assert keypoints.grad is not None
        keypoints.grad[..., 2] = 0  # the scale is fixed in both
        if self.config.keypoint_reach:
            length = (rate * keypoints.grad).norm(dim=-1, keepdim=True).clamp(min=1e-12)
            keypoints.grad *= (self.config.keypoint_reach / length).clamp(max=1)

    def losses(self, batch: Batch, keypoints: Tensor) -> Tensor:
        """The task loss of each image."""
        images = batch.images
        task = self.model.task_network(self.model.cut(images, keypoints))
        total = images.new_zeros(len(images))
        if task.logits is not None and batch.counts is not None:
            total = total + class_proportion_loss(F.softmax(task.logits, -1), batch.counts)
        if task.decoded is not None and self.config.reconstruction:
            rebuilt = self.model.rebuild(task.decoded, keypoints, images)
            energy = images.square().flatten(1).sum(1).clamp(min=1.0)
            total = total + self.config.reconstruction * reconstruction_loss(images, rebuilt) / energy
        return total


def build(variant: str, model: Mist, config: LiftedStepConfig) -> Callable[[Batch, int], object]:
    precision = variant.rpartition("-")[2]
    config = dataclasses.replace(config, precision=precision, decay=1.0, heatmap_warmup=0)
    step = PlainStep if variant.startswith("plain") else LiftedStep
    return step(copy.deepcopy(model), config)


def settings_of(name: str) -> tuple[MistConfig, LiftedStepConfig, int, int, tuple[int, ...]]:
    """Model, step, canvas, batch size and objects per image of a preset."""
    experiment = find_preset(name).experiment
    return (
        experiment.model,
        experiment.step,
        experiment.data.canvas,
        experiment.train.batch_size,
        experiment.data.counts,
    )


def make_batches(canvas: int, size: int, counts: tuple[int, ...], number: int) -> list[Batch]:
    scenes = Scenes(ScenesConfig(source="embedded", canvas=canvas, counts=counts), "train", None)
    return [collate([scenes[batch * size + index] for index in range(size)]) for batch in range(number)]


def time_variants(name: str, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each measured step, by variant."""
    model_config, step_config, canvas, size, counts = settings_of(name)
    torch.manual_seed(0)
    model = Mist(model_config)
    steps = {variant: build(variant, model, step_config) for variant in VARIANTS}
    batches = make_batches(canvas, size, counts, min(4, rounds + warm_up))

    def turns(step: Callable[[Batch, int], object]) -> Callable[[], object]:
        """One step per call, each on the next batch."""
        count = itertools.count()

        def call() -> object:
            turn = next(count)
            return step(batches[turn % len(batches)], turn)

        return call

    return alternate({variant: turns(step) for variant, step in steps.items()}, rounds, warm_up)


def peak_memory(name: str, variant: str) -> int:
    """Peak resident bytes of three steps in this process."""
    model_config, step_config, canvas, size, counts = settings_of(name)
    step = build(variant, Mist(model_config), step_config)
    for turn, batch in enumerate(make_batches(canvas, size, counts, 3)):
        step(batch, turn)
    return peak_bytes()


def measure(name: str, rounds: int, warm_up: int, memory: bool) -> dict[str, object]:
    model_config, step_config, canvas, size, counts = settings_of(name)
    results = {variant: {"seconds": spread(times)} for variant, times in time_variants(name, rounds, warm_up).items()}
    if memory:
        for variant in VARIANTS:
            results[variant]["peak_bytes"] = in_own_process(peak_memory, name, variant)
    medians = {variant: result["seconds"]["median"] for variant, result in results.items()}
    return {
        "preset": name,
        "ratio": medians["plain-float32"] / medians[f"lean-{computed_in(step_config.precision, 'cpu')}"],
        "ratio_float32": medians["plain-float32"] / medians["lean-float32"],
        "precision": computed_in(step_config.precision, "cpu"),
        "variants": results,
        "sizes": {"batch": size, "canvas": canvas, "objects": counts, "k": model_config.k},
        "model": dataclasses.asdict(model_config),
        "step": dataclasses.asdict(step_config),
    }


def main() -> None:
    options = Options(__doc__, os.cpu_count() or 1)
    options.size("preset", PRESETS, ["mist-mnist-3"], "presets; the first gives the ratio")
    options.size("rounds", 15, 1, "measured steps of each variant")
    options.size("warm-up", 3, 0, "steps before them", least=0)
    options.add_argument("--no-memory", action="store_true", help="skip the peak memory")
    given = options.parse()
    runs = [measure(name, given.rounds, given.warm_up, not given.no_memory) for name in given.preset]
    for run in runs:
        print(f"{run['preset']}: ratio {run['ratio']:.2f} ({run['precision']}), {run['ratio_float32']:.2f} (float32)")
        for variant, result in run["variants"].items():
            second = result["seconds"]
            peak = f", peak {result['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in result else ""
            print(f"  {variant:14} median {second['median']:.3f} s, IQR {second['iqr']:.3f} s{peak}")
    result = {"ratio": runs[0]["ratio"], "ratio_float32": runs[0]["ratio_float32"], "runs": runs}
    settings = {name: getattr(given, name) for name in ("rounds", "warm_up", "threads")}
    write({**result, **settings, "cores": os.cpu_count()}, given.json)


if __name__ == "__main__":
    main()
