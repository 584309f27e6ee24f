"""Proof that a redesign moved no number: two versions of the package compared bit by bit.

    python -m benchmarks.unchanged --before COMMIT [--data-root DIR] [--only WORD] [--json FILE]

Contract:
    * COMMIT is checked out into a temporary git worktree, which is removed at the end, also after an error. Its sources
      ("before") and the sources of this repository, uncommitted changes included ("after"), run the same code below:
      each in its own process with one thread, in float32, on the same data.
    * Case "shipped NAME": the weights of a shipped model, and its boxes, scores, labels and reconstructions for fixed
      images of several sizes and several K, in one piece and in tiles.
    * Case "preset NAME": the settings of a preset; its parameters and buffers after two training steps; the scalars of
      its log, including an evaluation. ``EVERYWHERE`` and ``OWN`` list what is changed in the preset to make it small.
    * Values are equal if their type, shape and every element are equal. Names may change, see ``RENAMED``. A setting or
      a scalar that only "after" has is ignored.
    * Each comparison that differs is printed in one line with its largest difference. A case that fails with the same
      error on both sides is skipped, and the error is printed. The exit code is 1 if anything differs or nothing was
      compared.

Without ``--data-root``, scikit-learn's digits replace MNIST. All other images are generated. Backbones have random
weights.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tiny_data import make_data

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("before", "after")
TILE = 96 * 96
"""Pixels above which an image goes through a shipped model in tiles too."""

EVERYWHERE: Mapping[str, object] = {
    "train.steps": 2,
    "train.batch_size": 2,
    "train.log_every": 1,
    "train.threads": 1,
    "train.device": "cpu",
    "step.precision": "float32",
    "step.decay_steps": 2,
    "step.heatmap_warmup": 2,
    "step.wheels": 1,
}
"""Field -> value, in all presets that have the field. The training wheels of SPAIR cover the first step only."""

OWN: Mapping[str, Mapping[str, object]] = {
    "*-svhn": {"data.root": "{data}/svhn"},
    "*-numbers": {"data.root": "{data}/numbers"},
    "*-pascal-coco*": {"data.root": "{data}/photographs"},
    "*-voc07": {"data.root": "{data}/photographs"},
    "stn-svhn-*": {"data.root": "{data}/svhn", "data.validation": 3, "model.units": 8, "step.rate": 1e-4},
    "stn-birds-*": {"data.root": "{data}/birds", "model.classes": 3, "step.rate": 1e-4},
    "stn-coloc-t*": {"start_from": "{out}/encoder"},
    "my-folder": {"data.root": "{data}/folder", "model.class_names": ("blue", "red"), "model.k": 3},
}
"""Pattern of a preset's name -> field -> value. ``{data}`` is the folder of ``make_data``, ``{out}`` of the results."""

ENCODER = "stn-coloc-encoder"
"""The preset that trains what ``stn-coloc-t...`` presets start from."""
RENAMED: Mapping[str, Mapping[str, str]] = {"weights": {}, "log": {}, "settings": {}}
"""Part of a case -> old prefix of a name -> new prefix."""

MISSING = "there is no such case"
UNTIMED = ("step", "seconds", "images_per_second", "peak_memory_mib")
"""Values of a log line that are not compared."""

Parts = dict[str, dict[str, Tensor | str]]
"""The result of a case: part -> name -> value. A comparison is one part of one case on both sides."""


def run_side(source: Path, out: Path, data: Path, only: str, mnist: str | None) -> None:
    """Runs all cases with the package in ``source``, and saves the result of each to a file in ``out``."""
    import mistnn
    from mistnn.presets import PRESETS
    from mistnn.weights import shipped_names

    assert Path(str(mistnn.__file__)).is_relative_to(source), f"mistnn was imported from {mistnn.__file__}"
    torch.set_num_threads(1)
    for case in (*(f"shipped {name}" for name in shipped_names()), *(f"preset {name}" for name in PRESETS)):
        if only not in case:
            continue
        kind, name = case.split()
        try:
            result: Any = shipped_parts(name, data) if kind == "shipped" else preset_parts(name, data, out, mnist)
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {error}".replace(str(out), "")
        torch.save(result, out / f"{case}.pt")


def shipped_parts(name: str, data: Path) -> Parts:
    """The weights and outputs of a shipped model."""
    from mistnn.inference import Predictor

    whole = Predictor.from_pretrained(name)
    model: Any = whole.model
    ways = {"whole": whole, "tiled": Predictor(model, max_pixels=TILE)}
    outputs: dict[str, Tensor | str] = {}
    for size, images in torch.load(data / "images.pt", weights_only=True).items():
        tiled = images[0].numel() > TILE
        for (way, predictor), k in itertools.product(ways.items() if tiled else [("whole", whole)], (None, 1, 3, 9)):
            found = predictor.predict_batch(images, k)
            for number, one in enumerate(found):
                values = {"boxes": one.boxes, "scores": one.scores, "labels": one.labels}
                named = {f"{size} {way} K={k} {part} {number}": value for part, value in values.items()}
                outputs |= {output: value for output, value in named.items() if value is not None}
            if predictor.reconstructs:
                outputs[f"{size} {way} K={k} reconstruction"] = predictor.reconstruct(images, found)
    return {"weights": dict(model.state_dict()), "outputs": outputs}


def preset_parts(name: str, data: Path, out: Path, mnist: str | None) -> Parts:
    """The settings of a preset, and the weights and the log of two training steps."""
    from mistnn.presets import PRESETS

    try:
        from mistnn.experiments import train
    except ImportError:  # before the redesign
        from mistnn.presets import train
    from safetensors.torch import load_file

    run = out / "run"
    shutil.rmtree(run, ignore_errors=True)
    preset = PRESETS[name].experiment
    if name.startswith("stn-coloc-t") and not (out / "encoder").exists():
        train(shortened(PRESETS[ENCODER].experiment, ENCODER, data, out, mnist), out / "encoder")
    train(shortened(preset, name, data, out, mnist), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    log: dict[str, Tensor | str] = {
        f"{key} at step {line['step']}": torch.tensor(math.nan if value is None else value, dtype=torch.float64)
        for line in lines
        for key, value in line.items()
        if key not in UNTIMED
    }
    return {"weights": dict(load_file(run / "model.safetensors")), "log": log, "settings": settings(preset)}


def shortened(experiment: Any, name: str, data: Path, out: Path, mnist: str | None) -> Any:
    """The experiment of a preset with two steps, a small batch and the generated data."""
    changes = {path: value for path, value in EVERYWHERE.items() if has(experiment, path)}
    changes["evaluation_images"] = min(2, experiment.evaluation_images)
    if has(experiment, "data.source"):
        changes |= {"data.source": "embedded"} if mnist is None else {"data.root": mnist}
    for own in (own for pattern, own in OWN.items() if fnmatch.fnmatch(name, pattern)):
        changes |= {key: new.format(data=data, out=out) if isinstance(new, str) else new for key, new in own.items()}
    for path, value in changes.items():
        experiment = changed(experiment, path, value)
    return experiment


def has(value: Any, path: str) -> bool:
    """Whether nested dataclasses have a field such as "step.decay"."""
    name, _, rest = path.partition(".")
    return any(field.name == name for field in dataclasses.fields(value)) and (
        not rest or has(getattr(value, name), rest)
    )


def changed(value: Any, path: str, new: object) -> Any:
    """Nested dataclasses with a new value of one field."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(value, **{name: changed(getattr(value, name), rest, new) if rest else new})


def settings(experiment: Any) -> dict[str, Tensor | str]:
    """All fields of an experiment. A decay over the whole run is the same whether its length is given or is None."""
    found = dict(fields(experiment))
    if found.get("step.decay_steps") in ("None", found["train.steps"]):
        found["step.decay_steps"] = "whole run"
    if found.get("step.decay") == "1.0":
        found["step.decay_steps"] = "no decay"
    return dict(found)


def fields(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of the fields of nested dataclasses."""
    for field in dataclasses.fields(value):
        name, own = prefix + field.name, getattr(value, field.name)
        yield from fields(own, f"{name}.") if dataclasses.is_dataclass(own) else [(name, repr(own))]


def compare_sides(outs: Mapping[str, Path]) -> dict[str, Any]:
    """Compares the results in the folder of each side.

    Returns:
        ``equal``, the number of equal comparisons; ``different`` and ``skipped``, a line for each of the others.
    """
    equal, different, skipped = 0, list[str](), list[str]()
    for file in sorted({path.name for out in outs.values() for path in out.glob("*.pt")}):
        case, paths = file.removesuffix(".pt"), [outs[side] / file for side in SIDES]
        before, after = (torch.load(path, weights_only=True) if path.exists() else MISSING for path in paths)
        if isinstance(before, str) or isinstance(after, str):
            words = [side if isinstance(side, str) else "works" for side in (before, after)]
            if words[0] in (words[1], MISSING):
                skipped.append(f"{case}: {words[0]}" + (" before" if before == MISSING else ""))
            else:
                different.append(f"{case}: {words[0]} -> {words[1]}")
            continue
        for part in before:
            found = compare(part, before[part], after[part])
            equal += found is None
            different += [] if found is None else [f"{case}, {part}: {found}"]
    return {"equal": equal, "different": different, "skipped": skipped}


def compare(part: str, before: Mapping[str, Tensor | str], after: Mapping[str, Tensor | str]) -> str | None:
    """How one part of a case differs, in words; ``None`` if it is equal."""
    before = {renamed(name, RENAMED.get(part, {})): value for name, value in before.items()}
    words = []
    if missing := sorted(before.keys() - after.keys()):
        words.append(f"{len(missing)} names are missing, such as {missing[0]}")
    if part in ("weights", "outputs") and (new := sorted(after.keys() - before.keys())):
        words.append(f"{len(new)} names are new, such as {new[0]}")
    found = {name: difference(before[name], after[name]) for name in before if name in after}
    if others := {name: value for name, value in found.items() if value > 0}:
        worst = max(others, key=others.__getitem__)
        most = f" by at most {others[worst]:.3g}" if math.isfinite(others[worst]) else ""
        change = " -> ".join(dict.fromkeys((described(before[worst]), described(after[worst]))))
        words.append(f"{len(others)} of {len(found)} differ{most}: {worst}, {change}")
    return "; ".join(words) or None


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """A name with the new prefix, where its prefix has changed."""
    return next((new + name[len(old) :] for old, new in prefixes.items() if name.startswith(old)), name)


def difference(before: Tensor | str, after: Tensor | str) -> float:
    """The largest difference between two values: 0 only if they are equal, infinite if they can't be subtracted."""
    if isinstance(before, str) or isinstance(after, str):
        return 0.0 if isinstance(before, str) and isinstance(after, str) and before == after else math.inf
    if before.dtype != after.dtype or before.shape != after.shape:
        return math.inf
    if torch.equal(before, after):
        return 0.0
    # NaN equals NaN; anything else that is not finite differs infinitely.
    apart = (before.double() - after.double()).abs().nan_to_num(math.inf, math.inf)
    return float(apart.masked_fill((before == after) | (before.isnan() & after.isnan()), 0.0).max())


def described(value: Tensor | str) -> str:
    """A setting, a scalar, or the type and shape of a tensor."""
    if isinstance(value, str):
        return value
    return repr(value.item()) if value.ndim == 0 else f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of a commit that is removed at the end."""
    git = ["git", "-C", str(ROOT), "worktree"]
    if subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit]).returncode != 0:
        raise SystemExit(f"--before {commit} can't be checked out: give a commit of this repository")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def run_sides(sources: Mapping[str, Path], folder: Path, only: str = "", mnist: str | None = None) -> dict[str, Path]:
    """Runs both sides at the same time, each in its own process with one thread.

    Args:
        sources: the folder of each side that holds the package.
        folder: for the generated data and the results.
        only: a word in the names of the cases to run.
        mnist: the folder that holds MNIST, if it is used.

    Returns:
        The folders of the results.
    """
    data, outs = folder / "data", {side: folder / f"{side}-results" for side in SIDES}
    make_data(data)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED"), "1")
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for side, out in outs.items():
            out.mkdir()
            words = ["--side", str(sources[side]), str(out), str(data), "--only", only]
            words += [] if mnist is None else ["--data-root", mnist]
            command = [sys.executable, "-m", "benchmarks.unchanged", *words]
            environment = {**os.environ, **one, "PYTHONPATH": str(sources[side])}
            with (out / "output.txt").open("wb") as output:
                processes[side] = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
        for side, process in processes.items():
            if process.wait() != 0:
                raise SystemExit(f"{side}: the process failed\n{(outs[side] / 'output.txt').read_text()[-3000:]}")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return outs


def main(arguments: list[str] | None = None) -> int:
    """Compares both sides, prints the result and returns the exit code."""
    parser = argparse.ArgumentParser(description="Compares two versions of the package bit by bit.")
    parser.add_argument("--before", metavar="COMMIT", help="the version to compare with")
    parser.add_argument("--data-root", metavar="DIR", help="folder of MNIST (default: scikit-learn's digits instead)")
    parser.add_argument("--only", default="", metavar="WORD", help="run only the cases with this word in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    parser.add_argument("--side", nargs=3, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    mnist = None if given.data_root is None else str(Path(given.data_root).resolve())
    if given.side is not None:
        source, out, data = given.side
        run_side(source, out, data, given.only, mnist)
        return 0
    if given.before is None:
        parser.error("--before COMMIT is needed")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name, worktree(given.before, Path(name).resolve() / "before") as before:
        outs = run_sides({"before": before / "src", "after": ROOT / "src"}, before.parent, given.only, mnist)
        result = compare_sides(outs)
    lines = [f"{kind}: {line}" for kind in ("different", "skipped") for line in result[kind]]
    lines += [f"renamed in {part}: {old} -> {new}" for part, names in RENAMED.items() for old, new in names.items()]
    total = f"{result['equal']} equal, {len(result['different'])} different, {len(result['skipped'])} skipped"
    print(*lines, f"{total}, {time.monotonic() - start:.0f} s", sep="\n")
    if given.json is not None:
        content = {"before": given.before, "torch": torch.__version__, "renamed": RENAMED, **result}
        given.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(bool(result["different"]) or not result["equal"])


if __name__ == "__main__":
    sys.exit(main())
