"""``mist train``: trains a preset, any of its settings changed, or goes on with a run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mistnn.cli.main import INTERRUPTED
from mistnn.cli.parsing import Folder, parse, renamed, takes
from mistnn.data import CommonObjectConfig
from mistnn.errors import MistError
from mistnn.models.air import AirStepConfig
from mistnn.models.conncomp import ConnCompConfig, ConnCompStepConfig
from mistnn.models.rivals import Zha18StepConfig
from mistnn.models.spair import SpairConfig
from mistnn.presets import PRESETS, Experiment, find_preset, restore, train
from mistnn.presets.my_folder import MY_FOLDER
from mistnn.training import FitResult

if TYPE_CHECKING:
    from mistnn.data.folder.content import OwnFolder

DESCRIPTION = """\
Trains a preset and writes a run folder: config.json, model.safetensors, metrics.jsonl and checkpoint/.

  mist train mist-mnist-3                     as the preset has it, into runs/mist-mnist-3
  mist train mist-mnist-3 --train.steps 1000  any setting below can be changed
  mist train --resume runs/mist-mnist-3       goes on where a run was stopped, with its own settings

Ctrl-C saves a checkpoint and stops. `mist presets` lists the presets. --data-root is short for --data.root, \
--k for --model.k."""

UNNAMED = """

The defaults below are the package's own; `mist train PRESET --help` shows a preset's."""

CONSTANT = AirStepConfig | ConnCompStepConfig
"""Steps without a learning rate that falls."""

# An empty name leaves the prefix out: the fields of the experiment are the options.
Settings = Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


@dataclass(frozen=True)
class Train:
    """The arguments of a new run.

    Attributes:
        experiment: everything that makes the run.
        out: the run folder.
        force: remove an earlier run from that folder first.
    """

    experiment: Settings
    out: Folder
    force: bool = False


@dataclass(frozen=True)
class Resume:
    """The arguments of a run that goes on: its own settings, where none is given.

    Attributes:
        experiment: everything that makes the run.
        resume: the run folder to go on with.
    """

    experiment: Settings
    resume: Folder


def run(arguments: Sequence[str]) -> int:
    """Trains, and says how it ended."""
    given = renamed(renamed(arguments, "--data-root", "--data.root"), "--k", "--model.k")
    helped = bool({"-h", "--help"} & set(given))
    if takes(given, "--resume") and not helped:
        return _resume(given)
    place = _place_of_preset(given)
    if place is None and given and not given[0].startswith("-"):
        find_preset(given[0])  # which says what is the matter
    if place is None and not helped:
        raise MistError("no preset was named: `mist train PRESET`, and `mist presets` lists them")
    if place is None:
        default = Train(Experiment(), Path("runs/PRESET"))
        parse(Train, ["--help"], "mist train PRESET", DESCRIPTION + UNNAMED, default)
        raise AssertionError("a help page ends the command")
    name = given.pop(place)
    preset = PRESETS[name]
    base = preset.experiment
    if name == MY_FOLDER.name and not helped:
        base, reasons = _planned(given, base)
        print("\n".join(f"mist: {reason}" for reason in reasons))
    if takes(given, "--model.k") and isinstance(base.model, SpairConfig | ConnCompConfig) and not helped:
        raise MistError(f"{name} says itself how many objects an image holds, so there is no --k to train it with")
    default = Train(base, Path("runs") / name)
    request = parse(Train, given, f"mist train {name}", f"{preset.summary}.\n\n{DESCRIPTION}", default)
    experiment = request.experiment
    if not takes(given, "--step.decay-steps"):
        experiment = follow_steps(experiment, preset.experiment)
    return _report(train(experiment, request.out, force=request.force, on_note=_note), experiment, request.out)


def _planned(given: Sequence[str], preset: Experiment) -> tuple[Experiment, tuple[str, ...]]:
    """The preset for a folder of one's own, as that folder needs it, and why."""
    root = _value(given, "--data.root")
    if root is None:
        raise MistError(f"{MY_FOLDER.name} needs your folder: `mist train {MY_FOLDER.name} --data.root DIR`")
    from mistnn.data.folder.content import read_folder
    from mistnn.presets.own_folder import plan_folder

    k = _value(given, "--model.k")
    if k is not None and (not k.isdecimal() or int(k) < 1):
        raise MistError(f"--k {k} is no number of objects: give 1 or more")
    folder = read_folder(root)
    plan = plan_folder(root, preset.train.steps, None if k is None else int(k), folder=folder)
    return dataclasses.replace(preset, model=plan.model, data=plan.data, step=plan.step), (
        *plan.reasons,
        *_looks_wrong(folder),
    )


def _looks_wrong(folder: OwnFolder) -> list[str]:
    """What a user who didn't inspect the folder should know of."""
    notes = list(folder.notes)
    if not notes:
        return []
    more = f"; more to look at: {len(notes) - 1}" if len(notes) > 1 else ""
    return [f"{notes[0]}{more}: see `mist inspect {folder.root}`"]


def _value(given: Sequence[str], option: str) -> str | None:
    for place, argument in enumerate(given):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and place + 1 < len(given):
            return given[place + 1]
    return None


FLAGS = ("--force", "--no-force", "--train.tensorboard", "--train.no-tensorboard")
"""Options without a value."""


def _place_of_preset(given: Sequence[str]) -> int | None:
    """Where a preset is named. The value of an option is no such place: `--out demo` names none."""
    for place, argument in enumerate(given):
        before = given[place - 1] if place else ""
        is_value = before.startswith("--") and "=" not in before and before not in FLAGS
        if argument in PRESETS and not is_value:
            return place
    return None


def follow_steps(changed: Experiment, preset: Experiment) -> Experiment:
    """Lets the learning rates fall until the end of a run whose length was changed.

    A preset whose rates fall over all of its steps means "over the whole run": with fewer steps they would else end
    half way down, with more they would stay at the bottom.

    Args:
        changed: the preset with what was given; its ``step.decay_steps`` was not.
        preset: as it was.
    """
    if isinstance(preset.step, CONSTANT) or isinstance(changed.step, CONSTANT):
        return changed
    if preset.step.decay_steps != preset.train.steps:
        return changed
    return dataclasses.replace(changed, step=dataclasses.replace(changed.step, decay_steps=changed.train.steps))


def _resume(given: list[str]) -> int:
    place = next(index for index, argument in enumerate(given) if takes([argument], "--resume"))
    folder = given[place].partition("=")[2] or next(iter(given[place + 1 :]), "")
    if not folder or folder.startswith("-"):
        raise MistError("--resume needs the folder of the run to go on with: `mist train --resume DIR`")
    if takes(given, "--out") or takes(given, "--force"):
        raise MistError(f"--resume {folder} goes on in its own folder: leave --out and --force away")
    preset = _place_of_preset(given)
    if preset is not None:
        raise MistError(f"--resume {folder} takes its settings from the run: leave the preset {given[preset]} away")
    default = Resume(restore(folder), Path(folder))
    request = parse(Resume, given, "mist train --resume DIR", DESCRIPTION, default)
    notes = [note for note in (constant_rates_note(request.experiment, default.experiment.train.steps),) if note]

    def once_begun(*_: object) -> None:
        """Says it when the first line of the log shows that the run goes on; what is refused is one line only."""
        while notes:
            _note(notes.pop())

    result = train(request.experiment, request.resume, resume=True, on_log=once_begun, on_note=_note)
    return _report(result, request.experiment, request.resume)


def constant_rates_note(experiment: Experiment, steps_before: int) -> str | None:
    """What to say of a run that goes on beyond the fall of its learning rates.

    Args:
        experiment: as it goes on.
        steps_before: ``train.steps`` until now.
    """
    step, steps = experiment.step, experiment.train.steps
    if isinstance(step, Zha18StepConfig | CONSTANT):
        return None
    if step.decay == 1 or steps <= steps_before or steps <= step.decay_steps:
        return None
    anew = "" if isinstance(experiment.data, CommonObjectConfig) else " with --start-from and the run's folder"
    return (
        f"the learning rates fall until step {step.decay_steps} (step.decay_steps) and stay at {step.decay:g} of their "
        f"start up to train.steps={steps}; for a new fall, train anew{anew}"
    )


def _note(text: str) -> None:
    print(f"mist: {text}", file=sys.stderr)


def _report(result: FitResult, experiment: Experiment, out: Path) -> int:
    steps = experiment.train.steps
    if result.interrupted:
        print(f"Stopped after {result.steps} of {steps} steps; `mist train --resume {out}` goes on.")
        return INTERRUPTED
    print(f"Trained {result.steps} steps in {result.seconds:.0f} s; the run is in {out}.")
    shown = [
        f"{name} {result.metrics[name]:.3f}"
        for name in ("iou50", "classified", "both", "f1", "count_accuracy", "error")
        if name in result.metrics
    ]
    if shown and isinstance(experiment.data, CommonObjectConfig):
        print(f"On its own images: {', '.join(shown)}.")
    elif shown:
        print(f"On validation images: {', '.join(shown)}. `mist evaluate {out}` measures it on test images.")
    return 0
