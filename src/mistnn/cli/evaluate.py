"""``mist evaluate``: the metrics of a trained model."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mistnn.cli.parsing import Device, Images, Model, NewFile, OptionalFolder, OptionalSeed, Options, parse, renamed
from mistnn.cli.screen import progress_bar, show_table
from mistnn.errors import MistError
from mistnn.files import replace_file

if TYPE_CHECKING:
    from mistnn.experiments import Experiment
    from mistnn.interfaces import DataConfig

ENTRY_KEYS = frozenset({"metrics", "train_seed", "command"})
"""Some of the keys of an entry of the ledger."""

DESCRIPTION = (
    "Measures a trained model on test images of the kind that it was trained on. A localiser of a common object "
    "(stn-coloc-...) is measured on its own hundred training images, since it never sees their labels. MODEL is a run "
    "folder or the name of a model that ships with the package, such as mist-mnist-hard. Shares are from 0 to 1."
)


@dataclass(frozen=True)
class Evaluate(Options):
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        images: how many images.
        seed: of the images; that of the training run if not given. Images of training, validation and test never share
            a digit, whatever the seed.
        split: test images, or the validation images, which are for choosing settings.
        json: also write the results to this file.
        record: write an entry of the ledger to this file: the results with seed, steps, time, hardware, versions and
            commit. The file's name, without its ending and "-seedN", is the entry's name; `mist results` makes a page
            of all entries.
        data_root: the folder that holds the images' files. For MNIST, the environment variable MIST_DATA also names it.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    model: Model
    images: Images = 1000
    seed: OptionalSeed = None
    split: Literal["test", "validation"] = "test"
    json: NewFile = None
    record: NewFile = None
    data_root: OptionalFolder = None
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Measures the model and prints its metrics."""
    request = parse(Evaluate, renamed(arguments, "--data.root", "--data-root"), "mist evaluate", DESCRIPTION)
    from mistnn.experiments import evaluate_stored, restore
    from mistnn.experiments.folder import seen_in_training
    from mistnn.metrics.meanings import COUNTS, MEANINGS
    from mistnn.training.runfolder import files_of_training

    check_replaceable(request.json, "--json", {"model", "split", "seed"})
    check_replaceable(request.record, "--record", ENTRY_KEYS)
    experiment = restore(request.model)
    data = experiment.data
    data = data if request.data_root is None else data.at(request.data_root)
    seed = data.seed if request.seed is None else request.seed
    data, note = data.for_measuring(files_of_training(Path(request.model)), request.split)
    with progress_bar("measuring") as progress:
        metrics = evaluate_stored(
            request.model, request.images, seed, None, request.split, progress, device=request.device, data=data
        )
    if request.json is not None:
        numbers = {name: int(value) if name in COUNTS else value for name, value in metrics.items()}
        _write_json(request.json, {"model": request.model, "split": request.split, "seed": seed, **numbers})
    if request.record is not None:
        _record(request, request.record, seed, metrics)
    # Shown last: a reader that closes the pipe, such as `head`, must not cost the files.
    shown = [name for name in MEANINGS if name in metrics] + sorted(metrics.keys() - MEANINGS.keys())
    texts = {name: f"{value:,.0f}" if name in COUNTS else f"{value:.4f}" for name, value in metrics.items()}
    rows = [(name, texts[name], MEANINGS.get(name, "")) for name in shown]
    notes = (note, seen_in_training(request.model, data, request.split), *_notes(request, experiment, data, metrics))
    for line in filter(None, notes):
        print(f"mist: {line}", file=sys.stderr)
    show_table(("metric", "value", "meaning"), rows, numbers=("value",))
    return 0


def check_replaceable(path: Path | None, option: str, keys: Collection[str]) -> None:
    """Raises ``MistError`` if there is a file at ``path`` that isn't a JSON object with these keys: results are.

    It may be the user's own, such as a table of counts.
    """
    if path is None or not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise MistError(f"{option} {path} is there already and holds no such results: give another file")


def _notes(request: Evaluate, experiment: Experiment, data: DataConfig, metrics: Mapping[str, float]) -> Iterator[str]:
    """What to know about the measurement."""
    yield from data.measuring_notes(metrics, seeded=request.seed is not None)
    from mistnn.experiments.folder import threshold_seen
    from mistnn.training.runfolder import files_of_training

    chosen = request.split == "validation" and getattr(experiment.model, "threshold", 0) > 0
    if chosen and threshold_seen(files_of_training(Path(request.model)), data):
        yield "the threshold was chosen on these images, so the counts may be too good: test images are independent"


def _record(request: Evaluate, path: Path, seed: int, metrics: dict[str, float]) -> None:
    from mistnn.reproduce.ledger import entry_name, make_entry, write_entry
    from mistnn.weights import shipped_names

    command = f"mist evaluate {shlex.quote(request.model)} --images {request.images}"
    command += "" if request.seed is None else f" --seed {request.seed}"
    command += "" if request.split == "test" else f" --split {request.split}"
    command += "" if request.data_root is None else f" --data-root {shlex.quote(str(request.data_root))}"
    measured = int(metrics.get("images", request.images))  # there may be fewer
    what = "the weights that ship with the package" if request.model in shipped_names() else "a run"
    note = f"The command measures {what} again and trains nothing."
    note += "" if request.split == "test" else " Measured on validation scenes."
    name = entry_name(path)
    write_entry(make_entry(request.model, metrics, measured, seed, command, name, note, request.data_root), path)


def _write_json(path: Path, content: Mapping[str, str | float]) -> None:
    try:
        replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise MistError(f"--json {path} can't be written ({error.strerror}): give another file") from error
