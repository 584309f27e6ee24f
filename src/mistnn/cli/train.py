"""``mist train``: trains a preset, with any of its settings changed, or resumes a run."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from mistnn.cli.main import INTERRUPTED
from mistnn.cli.parsing import INLINE, Folder, options_of, parse, places_of_words, renamed, takes
from mistnn.errors import MistError
from mistnn.experiments import Experiment, restore, system_of, train
from mistnn.presets import PRESETS, find_preset
from mistnn.training import FitResult

DESCRIPTION = """\
Trains a preset and writes a run folder: config.json, model.safetensors, metrics.jsonl and checkpoint/.

  mist train mist-mnist-3                     the preset unchanged, into runs/mist-mnist-3
  mist train mist-mnist-3 --train.steps 1000  any setting below can be changed
  mist train --resume runs/mist-mnist-3       continues a run that was stopped, with its own settings

Ctrl-C saves a checkpoint and stops. `mist presets` lists the presets. --data-root is short for --data.root, \
--k for --model.k."""

EXAMPLE = "mist-mnist-3"
UNNAMED = f"""

The options and defaults below are those of {EXAMPLE}; `mist train PRESET --help` shows a preset's own."""

Settings = Annotated[Experiment, INLINE, tyro.conf.AvoidSubcommands]


@dataclass(frozen=True)
class Train:
    """The arguments of a new run.

    Attributes:
        experiment: everything that the run depends on.
        out: the run folder.
        force: remove an earlier run from that folder first.
    """

    experiment: Settings
    out: Folder
    force: bool = False

    @classmethod
    def of(cls, name: str) -> Train:
        """The arguments of a preset as it is."""
        return cls(PRESETS[name].experiment, Path("runs") / name)


@dataclass(frozen=True)
class Resume:
    """The arguments of a run that continues; settings that are not given stay as they were.

    Attributes:
        experiment: everything that the run depends on.
        resume: the run folder to continue.
    """

    experiment: Settings
    resume: Folder


def run(arguments: Sequence[str]) -> int:
    """Trains, and prints how it ended."""
    given = renamed(renamed(arguments, "--data-root", "--data.root"), "--k", "--model.k")
    helped = takes(given, "-h", "--help")
    if takes(given, "--resume") and not helped:
        return _resume(given)
    place = _place_of_preset(given)
    if place is None and helped:
        parse(Train, ["--help"], "mist train PRESET", DESCRIPTION + UNNAMED, Train.of(EXAMPLE))
    if place is None:
        if given and not given[0].startswith("-"):
            find_preset(given[0])
        raise MistError("no preset was named: `mist train PRESET`, and `mist presets` lists them")
    preset = PRESETS[given.pop(place)]
    k_given = takes(given, "--model.k")
    if k_given and not helped and "k" not in {one.name for one in dataclasses.fields(preset.experiment.model)}:
        raise MistError(f"{preset.name} has no --k: its model decides how many objects an image holds")

    def parsed(default: Train) -> Train:
        return parse(Train, given, f"mist train {preset.name}", f"{preset.summary}.\n\n{DESCRIPTION}", default)

    default = Train.of(preset.name)
    request = parsed(default)
    model: Any = request.experiment.model
    data: Any = request.experiment.data
    # What follows from the length, the folder and K are new defaults, which single options may still change.
    experiment = preset.experiment.with_steps(request.experiment.train.steps)
    if preset.plan is not None:
        experiment, reasons = preset.plan(experiment.at(data.root), model.k if k_given else None)
        print("\n".join(f"mist: {reason}" for reason in reasons))
    if experiment != default.experiment:
        request = parsed(dataclasses.replace(default, experiment=experiment))
    result = train(request.experiment, request.out, force=request.force, on_note=_note)
    return _report(result, request.experiment, request.out)


def _place_of_preset(given: Sequence[str]) -> int | None:
    """Where a preset is named. The value of an option names none: `--out demo`."""
    for place, argument in enumerate(given):
        if argument in PRESETS and place in places_of_words(given, options_of(Train, Train.of(argument))):
            return place
    return None


def _resume(given: list[str]) -> int:
    place = next(index for index, argument in enumerate(given) if takes([argument], "--resume"))
    folder = given[place].partition("=")[2] or next(iter(given[place + 1 :]), "")
    if not folder or folder.startswith("-"):
        raise MistError("--resume needs the folder of a run: `mist train --resume DIR`")
    if takes(given, "--out", "--force"):
        raise MistError(f"--resume {folder} continues in its own folder: leave out --out and --force")
    preset = _place_of_preset(given)
    if preset is not None:
        raise MistError(f"--resume {folder} takes its settings from the run: leave out the preset {given[preset]}")
    default = Resume(restore(folder), Path(folder))
    request = parse(Resume, given, "mist train --resume DIR", DESCRIPTION, default)
    notes = _rates_note(request.experiment, default.experiment.train.steps)

    def once_begun(*_: object) -> None:
        """Prints the notes with the first line of the log: a run that can't be resumed ends in one line only."""
        while notes:
            _note(notes.pop())

    result = train(request.experiment, request.resume, resume=True, on_log=once_begun, on_note=_note)
    return _report(result, request.experiment, request.resume)


def _rates_note(experiment: Experiment, steps_before: int) -> list[str]:
    """Says that a run continues after its learning rates have decayed, if it does."""
    steps, end = experiment.train.steps, experiment.step.rates_end
    if end is None or steps <= max(end, steps_before):
        return []
    how = " with --start-from and the run's folder" if experiment.start_from is None else ""
    return [
        f"the learning rates decay until step {end} (step.decay_steps) and keep their last value up to "
        f"train.steps={steps}; to decay them over all steps, start a new run{how}"
    ]


def _note(text: str) -> None:
    print(f"mist: {text}", file=sys.stderr)


def _report(result: FitResult, experiment: Experiment, out: Path) -> int:
    if result.interrupted:
        steps = experiment.train.steps
        root = getattr(experiment.data, "root", None)  # a run doesn't store where files are
        again = f"mist train --resume {out}" + (f" --data-root {shlex.quote(root)}" if root else "")
        print(f"Stopped after {result.steps} of {steps} steps; `{again}` continues.")
        return INTERRUPTED
    print(f"Trained {result.steps} steps in {result.seconds:.0f} s; the run is in {out}.")
    shown = [name for name in system_of(experiment.model).shown if name in result.metrics]
    if shown:
        metrics = ", ".join(f"{name} {result.metrics[name]:.3f}" for name in shown)
        print(f"Last evaluation: {metrics}. `mist evaluate {out}` prints all metrics.")
    return 0
