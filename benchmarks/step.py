"""Times the lifted step of MIST beside a plain twin that does the arithmetic as published.

    python -m benchmarks.step [--json FILE] [--threads N] [--rounds N] [--preset NAME ...]

Contract:
    * Both sides have the same networks, sizes, start weights and batches, in one process on one machine. Rounds
      alternate between the variants, and each round starts with another one, so that a machine that slows down slows
      all of them.
    * The first ``--warm-up`` rounds are dropped. What is reported is the median of a step and its interquartile range.
    * The twin differs in five things, no more: it classifies the patches at E_K for labels in every step, it
      differentiates the weights in the keypoint steps (``loss.backward()``), its Adam walks over single tensors, its
      tensors are packed channel by channel (NCHW), and it doesn't log. Samplers, softmax and networks are the same on
      both sides, so what they gained over the released code is not counted.
    * ``ratio`` = plain / lean in the preset's own precision; ``ratio_float32`` = plain / lean in float32.
    * Peak resident memory is of a process of its own for each variant.
    * The scenes show embedded digits, so that no data is needed; what they show doesn't change the time.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import alternate, in_own_process, peak_bytes, spread, write
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist, MistConfig
from mistnn.nn.mixed_precision import computed_in
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import class_proportion_loss, heatmap_loss, lifting_penalty, reconstruction_loss
from mistnn.presets import find_preset
from mistnn.records import Batch, collate

VARIANTS = ("plain-float32", "lean-float32", "lean-bfloat16")
PRESETS = ["mist-mnist-hard", "mist-mnist-hard-paper"]


class PlainStep:
    """Algorithm 1 with the arithmetic of the released code; weights and keypoints end where ``LiftedStep`` brings them.

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
        # The labels of the detections, wanted only by the log; like there, the graph is kept to the end of the step.
        labels = model.task_network(model.cut(images, anchors))

        keypoints = anchors.clone().requires_grad_()
        # One loss for the batch, so the mean over images is undone in the rate.
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
        """Shortens gradients that would move a keypoint beyond its reach (not in the released code)."""
        assert keypoints.grad is not None
        keypoints.grad[..., 2] = 0  # width and height are fixed, there and here
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
    """The step of a variant on a copy of the model."""
    precision = variant.rpartition("-")[2]
    config = dataclasses.replace(config, precision=precision, decay=1.0, heatmap_warmup=0)
    step = PlainStep if variant.startswith("plain") else LiftedStep
    return step(copy.deepcopy(model), config)


def settings_of(name: str) -> tuple[MistConfig, LiftedStepConfig, int, int, tuple[int, ...]]:
    """Model, step, canvas, batch size and objects an image of a preset."""
    experiment = find_preset(name).experiment
    return (
        experiment.model,
        experiment.step,
        experiment.data.canvas,
        experiment.train.batch_size,
        experiment.data.counts,
    )


def make_batches(canvas: int, size: int, counts: tuple[int, ...], number: int) -> list[Batch]:
    """Batches of scenes with embedded digits."""
    from mistnn.data import Scenes, ScenesConfig

    scenes = Scenes(ScenesConfig(source="embedded", canvas=canvas, counts=counts), "train", None)
    return [collate([scenes[batch * size + index] for index in range(size)]) for batch in range(number)]


def time_variants(name: str, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of every step by variant, the warm-up left out."""
    model_config, step_config, canvas, size, counts = settings_of(name)
    torch.manual_seed(0)
    model = Mist(model_config)
    steps = {variant: build(variant, model, step_config) for variant in VARIANTS}
    batches = make_batches(canvas, size, counts, min(4, rounds + warm_up))

    def turns(step: Callable[[Batch, int], object]) -> Callable[[], object]:
        """One step a call, each on the next batch."""
        count = itertools.count()

        def call() -> object:
            turn = next(count)
            return step(batches[turn % len(batches)], turn)

        return call

    return alternate({variant: turns(step) for variant, step in steps.items()}, rounds, warm_up)


def peak_memory(name: str, variant: str, threads: int) -> int:
    """Peak resident bytes of three steps in a process of their own."""
    return in_own_process("benchmarks.step", "--threads", threads, "--preset", name, "--peak-of", variant)


def print_peak(name: str, variant: str) -> None:
    """What ``peak_memory`` starts."""
    model_config, step_config, canvas, size, counts = settings_of(name)
    step = build(variant, Mist(model_config), step_config)
    for turn, batch in enumerate(make_batches(canvas, size, counts, 3)):
        step(batch, turn)
    print(peak_bytes())


def measure(name: str, threads: int, rounds: int, warm_up: int, memory: bool) -> dict[str, object]:
    """Everything about one preset."""
    model_config, step_config, canvas, size, counts = settings_of(name)
    results = {variant: {"seconds": spread(times)} for variant, times in time_variants(name, rounds, warm_up).items()}
    if memory:
        for variant in VARIANTS:
            results[variant]["peak_bytes"] = peak_memory(name, variant, threads)
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
    parser = argparse.ArgumentParser(description="Time the lifted step beside its plain twin.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each variant that count")
    parser.add_argument("--warm-up", type=int, default=3, help="steps of each variant that don't")
    parser.add_argument("--preset", nargs="+", default=PRESETS, help="the first gives the ratio")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.threads < 1 or asked.warm_up < 0:
        parser.error("--rounds and --threads must be 1 or more, --warm-up 0 or more")
    torch.set_num_threads(asked.threads)
    if asked.peak_of:
        print_peak(asked.preset[0], asked.peak_of)
        return
    runs = [measure(name, asked.threads, asked.rounds, asked.warm_up, not asked.no_memory) for name in asked.preset]
    for run in runs:
        print(f"{run['preset']}: ratio {run['ratio']:.2f} ({run['precision']}), {run['ratio_float32']:.2f} (float32)")
        for variant, result in run["variants"].items():
            second = result["seconds"]
            peak = f", peak {result['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in result else ""
            print(f"  {variant:14} median {second['median']:.3f} s, IQR {second['iqr']:.3f} s{peak}")
    if asked.json:
        result = {
            "ratio": runs[0]["ratio"],
            "ratio_float32": runs[0]["ratio_float32"],
            "runs": runs,
            "rounds": asked.rounds,
            "warm_up": asked.warm_up,
            "threads": asked.threads,
            "cores": os.cpu_count(),
        }
        write(result, asked.json)


if __name__ == "__main__":
    main()
