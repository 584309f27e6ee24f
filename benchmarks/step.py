"""The lifted step of MIST against a plain step with the arithmetic as published.

    python -m benchmarks.step [--json FILE] [--threads N] [--rounds N] [--clock wall|cpu] [--preset NAME ...]

Contract:
    * Both have the same networks, sizes, initial weights and batches, in one process.
    * The plain step differs in exactly five things: it classifies the patches at E_K for labels in every step; it
      differentiates the weights in the keypoint steps (``loss.backward()``); its Adam loops over single tensors; its
      tensors are in NCHW layout; it does not log. Samplers, softmax and networks are the same, so that their gain over
      the released code is not counted.
    * ``ratio`` = plain / lean in the preset's precision; ``ratio_float32`` = plain / lean in float32.
    * The single-pass step (ours) has the same networks, sizes and batches, but one pass gives the gradients of the
      keypoints and of the task network, as in the fast preset. ``ratio_single_pass`` = plain / single pass, in float32.
    * The fast preset of a preset (``FAST``) solves the same task with our network and arithmetic. ``ratio_preset`` =
      plain / fast, both in float32 on the same batches. The networks differ; their accuracy is in the ledger.
      Each measured step trains the heat map, also that of a preset which starts to do so later.
    * The scenes show embedded digits, so that no data is needed; their content does not change the time.
"""

import copy
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import CLOCKS, Clock, Options, alternate, in_own_process, peak_bytes, spread, write
from mistnn.data import ScenesConfig
from mistnn.models.mist import LiftedStep, LiftedStepConfig, Mist
from mistnn.nn.mixed_precision import computed_in
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import class_proportion_loss, heatmap_loss, lifting_penalty, reconstruction_loss
from mistnn.presets import find_preset
from mistnn.records import Batch, collate
from mistnn.training.memory import keep_freed_memory

VARIANTS = ("plain-float32", "lean-float32", "lean-bfloat16")
FAST = {"mist-mnist-hard": "mist-mnist-hard-fast", "demo-paper": "demo"}
"""Preset of the paper's networks -> preset of our own ones."""
FAST_VARIANT = "fast-float32"
SINGLE_PASS = "single-float32"
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
        adam = partial(torch.optim.Adam, foreach=False, fused=False)
        self.task = adam(model.task_network.parameters(), lr=config.task_rate)
        self.heatmap = adam(model.heatmap_network.parameters(), lr=config.heatmap_rate)

    def __call__(self, batch: Batch, iteration: int) -> Tensor:
        """One batch; returns the optimised keypoints."""
        model, config, images = self.model, self.config, batch.images
        height, width = images.shape[-2:]
        heatmaps = model.heatmaps(images)
        anchors = model.keypoints(heatmaps).keypoints
        # Labels of the detections, for the log only; as in the released code, the graph lives to the end of the step.
        labels = model.task_network(model.cut(images, anchors))

        keypoints = anchors.clone().requires_grad_()
        rate = config.keypoint_step * len(images)  # the loss is a mean over the images, which the rate undoes
        mover = torch.optim.SGD([keypoints], lr=rate, foreach=False, fused=False)
        for _ in range(config.inner_steps):
            mover.zero_grad(set_to_none=False)
            self.task.zero_grad(set_to_none=False)
            loss = self.losses(batch, keypoints)
            if config.penalty:
                loss = loss + config.penalty * lifting_penalty(keypoints, anchors)
            loss.mean().backward()
            assert keypoints.grad is not None
            keypoints.grad[..., 2] = 0  # the scale is fixed in both
            if config.keypoint_reach:  # not in the released code
                length = (rate * keypoints.grad).norm(dim=-1, keepdim=True).clamp(min=1e-12)
                keypoints.grad *= (config.keypoint_reach / length).clamp(max=1)
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


def variants_of(name: str) -> tuple[str, ...]:
    """What is measured of a preset; bfloat16 only where the hardware has instructions for it."""
    measured = [one for one in VARIANTS if not one.endswith("bfloat16") or computed_in("auto", "cpu") == "bfloat16"]
    return (*measured, SINGLE_PASS, FAST_VARIANT) if name in FAST else tuple(measured)


def experiment_of(name: str, variant: str) -> Any:
    """The experiment of a preset, or that of its fast preset, or the preset's with the passes of the fast one."""
    if variant == FAST_VARIANT:
        return find_preset(FAST[name]).experiment
    experiment: Any = find_preset(name).experiment
    if variant == SINGLE_PASS:
        fast: Any = find_preset(FAST[name]).experiment.step
        passes = {field: getattr(fast, field) for field in ("order", "inner_steps", "keypoint_step")}
        return dataclasses.replace(experiment, step=dataclasses.replace(experiment.step, **passes))
    return experiment


def build(variant: str, model: Mist, config: LiftedStepConfig) -> Callable[[Batch, int], object]:
    precision = variant.rpartition("-")[2]
    config = dataclasses.replace(config, precision=precision, decay=1.0, heatmap_start=0, heatmap_warmup=0)
    step = PlainStep if variant.startswith("plain") else LiftedStep
    return step(copy.deepcopy(model), config)


def make_batches(experiment: Any, number: int) -> list[Batch]:
    data, size = experiment.data, experiment.train.batch_size
    scenes = ScenesConfig(source="embedded", canvas=data.canvas, counts=data.counts).open("train", None)
    return [collate([scenes[batch * size + index] for index in range(size)]) for batch in range(number)]


def time_variants(name: str, rounds: int, warm_up: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each measured step, by variant, in a process that keeps freed memory as a training does."""
    keep_freed_memory()
    steps = {}
    for variant in variants_of(name):
        experiment = experiment_of(name, variant)
        torch.manual_seed(0)
        steps[variant] = build(variant, Mist(experiment.model), experiment.step)
    batches = make_batches(experiment_of(name, VARIANTS[0]), min(4, rounds + warm_up))

    def call(variant: str, turn: int) -> object:
        return steps[variant](batches[turn % len(batches)], turn)

    return alternate({variant: partial(call, variant) for variant in steps}, rounds, warm_up, clock)


def peak_memory(name: str, variant: str) -> int:
    """Peak resident bytes of three steps in this process, which keeps freed memory as a training does."""
    keep_freed_memory()
    experiment = experiment_of(name, variant)
    step = build(variant, Mist(experiment.model), experiment.step)
    for turn, batch in enumerate(make_batches(experiment, 3)):
        step(batch, turn)
    return peak_bytes()


def measure(name: str, rounds: int, warm_up: int, memory: bool, clock: Clock) -> dict[str, Any]:
    experiment: Any = find_preset(name).experiment
    model, step, data = experiment.model, experiment.step, experiment.data
    results = {way: {"seconds": spread(times)} for way, times in time_variants(name, rounds, warm_up, clock).items()}
    for variant in results if memory else ():
        results[variant]["peak_bytes"] = in_own_process(peak_memory, name, variant)
    medians = {variant: result["seconds"]["median"] for variant, result in results.items()}
    precision = computed_in(step.precision, "cpu")
    fast: dict[str, object] = {}
    if name in FAST:
        fast = {
            "fast_preset": FAST[name],
            "ratio_preset": medians["plain-float32"] / medians[FAST_VARIANT],
            "ratio_single_pass": medians["plain-float32"] / medians[SINGLE_PASS],
        }
    return {
        "preset": name,
        **fast,
        "ratio": medians["plain-float32"] / medians[f"lean-{precision}"],
        "ratio_float32": medians["plain-float32"] / medians["lean-float32"],
        "precision": precision,
        "variants": results,
        "sizes": {"batch": experiment.train.batch_size, "canvas": data.canvas, "objects": data.counts, "k": model.k},
        "model": dataclasses.asdict(model),
        "step": dataclasses.asdict(step),
    }


def main() -> None:
    options = Options(__doc__, os.cpu_count() or 1)
    options.size("preset", PRESETS, ["mist-mnist-3"], "presets; the first gives the ratio")
    options.size("rounds", 15, 1, "measured steps of each variant")
    options.size("warm-up", 3, 0, "steps before them", least=0)
    options.add_argument("--no-memory", action="store_true", help="skip the peak memory")
    options.clock()
    given = options.parse()
    runs = [
        measure(name, given.rounds, given.warm_up, not given.no_memory, CLOCKS[given.clock]) for name in given.preset
    ]
    for run in runs:
        print(f"{run['preset']}: ratio {run['ratio']:.2f} ({run['precision']}), {run['ratio_float32']:.2f} (float32)")
        if "ratio_preset" in run:
            print(f"  {run['fast_preset']}: ratio {run['ratio_preset']:.2f} (float32)")
            print(f"  single pass: ratio {run['ratio_single_pass']:.2f} (float32)")
        for variant, result in run["variants"].items():
            second = result["seconds"]
            peak = f", peak {result['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in result else ""
            print(f"  {variant:14} median {second['median']:.3f} s, IQR {second['iqr']:.3f} s{peak}")
    names = ("ratio", "ratio_float32", "ratio_single_pass", "ratio_preset")
    ratios = {name: runs[0][name] for name in names if name in runs[0]}
    settings = {name: getattr(given, name) for name in ("rounds", "warm_up", "threads", "clock")}
    write({**ratios, "runs": runs, **settings, "cores": os.cpu_count()}, given.json)


if __name__ == "__main__":
    main()
