"""The ledger: ``results/*.json``, one file for each measured run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cattrs

from mistnn.errors import MistError
from mistnn.experiments import Experiment, read_log, restore, system_of
from mistnn.training.runfolder import METRICS, write_atomically
from mistnn.training.runlog import EVALUATION
from mistnn.weights import TrainingRecord, commit, explain, hardware, read_config, resolve, strict_converter, versions


@dataclass(frozen=True)
class Entry:
    """One measured run.

    Attributes:
        name: of the preset or the study; results of one name differ in their seed.
        metrics: name -> finite value; shares are 0-1.
        images: test images.
        seed: of the test images.
        train_seed: of the weights.
        steps: iterations of the training and of those whose weights it started from; 0 if nothing was trained.
        batch_size: images per iteration of the last training.
        train_seconds: duration of the trainings, evaluations included; 0 if unknown.
        peak_memory_mib: peak resident memory of the training; 0 if unknown.
        hardware: processor and threads of the training.
        versions: of python, torch and mistnn in the training.
        commit: of the source that trained, with "+changes" if there were uncommitted changes.
        command: reproduces the number.
        note: what a reader should know.
        differs: what differs from the present protocol of the tables, in a few words; empty if nothing does. Tables
            show such runs in rows of their own and never average them with others.
        reading: how the heat map was read, if the search of `mist reproduce` chose that; else empty.
        curve: measure -> (step, value on validation images) during the training, by the reading of the training.
        measured_by: commit of the source that measured; empty if it is the one that trained.
        backbone: for photographs, the network of the features and the hash of its weights; else empty.
        split: hash of the list of files and their splits; empty where images are made on the fly.
    """

    name: str
    metrics: dict[str, float]
    images: int
    seed: int
    train_seed: int
    steps: int
    batch_size: int
    train_seconds: float
    peak_memory_mib: float
    hardware: str
    versions: dict[str, str]
    commit: str
    command: str
    note: str = ""
    measured_by: str = ""
    backbone: str = ""
    split: str = ""
    differs: str = ""
    reading: str = ""
    curve: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def make_entry(
    folder_or_name: Path | str,
    metrics: Mapping[str, float],
    images: int,
    seed: int,
    command: str,
    name: str,
    note: str = "",
    root: str | None = None,
    reading: str = "",
) -> Entry:
    """The entry of a model that was just evaluated.

    Duration, memory and hardware of the training are those of the record in the weights' configuration. Without a
    record they are those of the run's log, or unknown (0), and the note says so.

    Args:
        folder_or_name: the run folder or the shipped model.
        metrics, images, seed, command, name, note, reading: see ``Entry``.
        root: the folder of the images, if they are files.
    """
    experiment = restore(folder_or_name)
    record = read_config(folder_or_name).training
    if record is None:
        record, source = _record_of_log(resolve(folder_or_name), experiment)
    else:
        source = _starts_in_words(record)
    trainings = list(record.line())
    measured_by, split = commit(), "" if root is None else experiment.data.at(root).digest()
    return Entry(
        name=name,
        metrics={key: round(value, 5) for key, value in metrics.items()},
        images=images,
        seed=seed,
        train_seed=experiment.train.seed,
        steps=sum(one.steps for one in trainings),
        batch_size=experiment.train.batch_size,
        train_seconds=round(sum(one.seconds for one in trainings), 3),
        peak_memory_mib=round(max(one.peak_memory_mib for one in trainings), 1),
        hardware=record.hardware,
        versions=record.versions,
        commit=record.commit,
        command=f"{command} --data-root DIR" if split else command,
        note=" ".join(text for text in (note, source) if text),
        measured_by="" if measured_by == record.commit else measured_by,
        backbone=system_of(experiment.model).weights_used(experiment.model),
        split=split,
        reading=reading,
    )


def validation_curve(folder: Path | str, names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """The evaluations of a training, as ``Entry.curve``; nothing for a model without a log.

    Args:
        folder: the run folder, or a shipped model.
        names: measures; those that were not evaluated are left out.
    """
    log = read_log(Path(folder)) if (Path(folder) / METRICS).exists() else []
    curves = {
        name: [(line["step"], round(line[EVALUATION + name], 5)) for line in log if EVALUATION + name in line]
        for name in names
    }
    return {name: points for name, points in curves.items() if points}


def study_entry(
    name: str,
    metrics: Mapping[str, float],
    images: int,
    command: str,
    note: str,
    steps: int = 0,
    batch_size: int = 0,
    train_seconds: float = 0.0,
) -> Entry:
    """The entry of a study that keeps no run folder: several trainings of seeds from 0, or no training at all."""
    # Images and weights of seed 0; the peak memory is unknown.
    trained = (0, 0, steps, batch_size, train_seconds, 0.0)
    return Entry(name, dict(metrics), images, *trained, **_here(), command=command, note=note)


def _here() -> dict[str, Any]:
    """The machine and the versions of this process."""
    return {"hardware": hardware(), "versions": versions(), "commit": commit()}


def _starts_in_words(record: TrainingRecord) -> str:
    """A sentence on the trainings before the last one; empty if it began with fresh weights."""
    starts = [
        f"{one.start_from} "
        + ("(no record)" if one.before is None else f"({one.before.steps} steps in {one.before.seconds:.0f} s)")
        for one in record.line()
        if one.start_from is not None
    ]
    line = f"Trained from the weights of {', which came from '.join(starts)}; steps and time are of all trainings that "
    return f"{line}are on record." if starts else ""


def _record_of_log(folder: Path, experiment: Experiment) -> tuple[TrainingRecord, str]:
    """What is known of a training without a record, and a sentence on where that comes from."""
    log = read_log(folder) if (folder / METRICS).exists() else []
    record = TrainingRecord(
        steps=int(log[-1]["step"]) if log else experiment.train.steps,
        seconds=max((line.get("seconds", 0.0) for line in log), default=0.0),
        peak_memory_mib=max((line.get("peak_memory_mib", 0.0) for line in log), default=0.0),
        start_from=experiment.start_from,
        **_here(),
    )
    known = "steps, time and memory are from the run's log" if log else "the steps are those of the configuration"
    source = (
        f"The weights carry no record of their training: {known}; hardware, versions and commit are those of the "
        "measurement."
    )
    return record, f"{source} {_starts_in_words(record)}".strip()


def entry_name(path: Path) -> str:
    """The entry's name in a file name: without the ending and without "-seedN"."""
    return re.sub(r"-seed\d+$", "", path.stem)


def check_measures(entry: Entry, path: Path) -> None:
    """Raises ``MistError`` if a measure of an entry for a file is NaN or infinite: an average would be, too."""
    if odd := _not_finite(entry):
        raise MistError(f"{path} is not written, because {odd}: leave the measure out, or measure the run again")


def _not_finite(entry: Entry) -> str:
    """The first measure that is NaN or infinite, in words; empty if there is none."""
    values = [(f"the measure {name}", value) for name, value in entry.metrics.items()]
    values += [(f"the curve of {name}", value) for name, points in entry.curve.items() for _, value in points]
    return next((f"{what} is {value}" for what, value in values if not math.isfinite(value)), "")


def write_entry(entry: Entry, path: Path) -> None:
    """Writes one entry of the ledger. Raises ``MistError`` if a measure is NaN or infinite."""
    check_measures(entry, path)
    write_atomically(path, (json.dumps(asdict(entry), indent=2) + "\n").encode())


def read_ledger(folder: Path) -> list[Entry]:
    """All entries of a folder, sorted by file name. Raises ``MistError`` if a file is broken."""
    return [read_entry(path) for path in sorted(folder.glob("*.json"))]


def read_entry(path: Path) -> Entry:
    """One entry of the ledger. Raises ``MistError`` if the file is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object with keys")
        entry = strict_converter().structure(content, Entry)
        if odd := _not_finite(entry):
            raise ValueError(odd)
        return entry
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        raise MistError(f"{path}: no entry of the ledger ({explain(error)}): fix or remove the file") from error
