"""The ledger: ``results/*.json``, one file a measured run, and ``docs/results.md`` made from them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import cattrs

from mistnn.errors import MistError
from mistnn.presets import Experiment, find_preset, restore
from mistnn.presets.experiment import read_log
from mistnn.presets.sources import backbone_of, split_digest
from mistnn.presets.systems import at_root
from mistnn.studies.generative_tables import GENERATIVE_TABLES
from mistnn.studies.house_numbers import HOUSE_NUMBERS
from mistnn.studies.natural_tables import NATURAL_TABLES
from mistnn.studies.paper_table import Least, Row, Table
from mistnn.studies.stn_tables import STN_TABLES
from mistnn.training.runfolder import METRICS, write_atomically
from mistnn.weights import TrainingRecord, commit, explain, hardware, read_config, resolve, strict_converter, versions


@dataclass(frozen=True)
class Entry:
    """One measured run.

    Attributes:
        name: of the preset or the study; results of one name differ in their seed.
        metrics: name -> value; shares are 0-1.
        images: test images.
        seed: of the test images.
        train_seed: of the weights.
        steps: iterations of the training, and of those whose weights it started from.
        batch_size: images an iteration, of the last training.
        train_seconds: how long they took, evaluations included; 0 where it is not known.
        peak_memory_mib: peak resident memory of the training; 0 where it is not known.
        hardware: processor and threads of the training.
        versions: of python, torch and mistnn in the training.
        commit: of the source that trained, with "+changes" where it was not committed.
        command: what makes the number again.
        note: what a reader should know.
        measured_by: commit of the source that measured; empty where it is that of the training.
        backbone: of photographs, the network that gives the features and the hash of its weights; else empty.
        split: hash of the list that says which image is for what; empty where images are made on the fly.
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


QUICK = "-quick"
"""At the end of an entry's name: a run of ``mist reproduce --budget quick``, smaller than the paper's."""

MIST_HARD = (0.978, 0.988, 0.975)
XIE20_HARD = (0.727, 0.931, 0.713)
READING = ("iou50", "classified", "both")
TABLES = (
    Table(
        "table1",
        "Table 1: reconstruction error without labels (MIST, CVPR 2021)",
        ("rmse", "rmse_black", "iou50"),
        (
            Row("MIST, small auto-encoder", "MNIST easy", "mist-discover-mnist-easy", (0.038, None, None)),
            Row("Grid, small auto-encoder", "MNIST easy", "grid-mnist-easy", (0.039, None, None)),
            Row("Ch.-wise, small auto-encoder", "MNIST easy", "channelwise-mnist-easy", (0.042, None, None)),
            Row("Esl16 (AIR)", "MNIST easy", "esl16-mnist-easy", (0.100, None, None)),
            Row("Zha18", "MNIST easy", "zha18-mnist-easy", (0.169, None, None)),
            Row("MIST, small auto-encoder", "MNIST hard", "mist-discover-mnist-hard-one-scale", (0.053, None, None)),
            Row("Grid, small auto-encoder", "MNIST hard", "grid-mnist-hard", (0.062, None, None)),
            Row("Ch.-wise, small auto-encoder", "MNIST hard", "channelwise-mnist-hard", (0.128, None, None)),
            Row("Esl16 (AIR)", "MNIST hard", "esl16-mnist-hard", (0.154, None, None)),
            Row("Zha18", "MNIST hard", "zha18-mnist-hard", (0.191, None, None)),
            Row("MIST, paper's auto-encoder", "MNIST hard", "mist-discover-mnist-hard-paper", (0.053, None, None)),
            Row(
                "MIST, small auto-encoder",
                "Gabor (another noise, see docs/data.md)",
                "mist-discover-gabor",
                (0.095, None, None),
            ),
            Row("MIST with scale", "MNIST hard, 14-28 px", "mist-discover-mnist-hard", (None, None, None)),
        ),
    ),
    Table(
        "table2",
        "Table 2: detection and classification of nine digits (MIST, CVPR 2021)",
        READING,
        (
            Row("MIST, small classifier", "MNIST-hard", "mist-mnist-hard", MIST_HARD),
            Row("MIST, classifier of the paper", "MNIST-hard", "mist-mnist-hard-paper", MIST_HARD),
            Row("MIST, both networks as released", "MNIST-hard", "mist-mnist-hard-released", MIST_HARD),
            Row("Ch.-wise, small classifier", "MNIST-hard", "channelwise-read-mnist-hard", (0.254, 0.755, 0.248)),
            Row("Supervised, small classifier", "MNIST-hard", "supervised-mnist-hard", (0.996, 0.987, 0.986)),
        ),
    ),
    Table(
        "table3",
        "Table 3: lifting and SOFT top-K (MIST, CVPR 2021)",
        READING,
        (
            Row("MIST, small classifier", "MNIST-3 digits", "mist-mnist-3", (0.995, 0.969, 0.966)),
            Row("Xie20, stride 8, small classifier", "MNIST-3 digits", "xie20-mnist-3", (0.954, 0.974, 0.922)),
            Row("MIST, small classifier", "MNIST-hard", "mist-mnist-hard", MIST_HARD),
            Row("Xie20, stride 8, small classifier", "MNIST-hard", "xie20-mnist-hard", XIE20_HARD),
            Row("Xie20, stride 4, small classifier", "MNIST-hard", "xie20-stride4-mnist-hard", XIE20_HARD),
        ),
    ),
    Table(
        "table5",
        "Table 5: how much the K of the training matters (MIST, CVPR 2021)",
        ("ap50", "ap50_fixed_k", "ap50_free_k", "count_error_free_k"),
        (
            Row("MIST, trained with K = 9", "MNIST-hard, 9 digits", "mist-mnist-hard", (0.922, None, None, None)),
            Row("MIST, trained with K = 6", "6 to 9 digits", "mist-mnist-6-9", (0.901, None, None, None)),
            Row("MIST, trained with K = 6", "3 to 9 digits", "mist-mnist-3-9", (0.908, None, None, None)),
        ),
        unknown_k=True,
        note=(
            "The paper marks a K in bold and says both that it was used in training (text) and for testing (caption). "
            "`ap50` follows the text: trained with this K, tested with each image's true number. `ap50_fixed_k` "
            "follows the caption: tested with this K too. `ap50_free_k` is not told K: a threshold, chosen by the "
            "numbers of objects in training images, takes its place; `count_error_free_k` is how far its number is "
            "off, in objects an image. The paper does not define its average precision; ours is the mean over classes "
            "of the area under the interpolated curve, a detection being right at IoU 0.5 and above."
        ),
    ),
    HOUSE_NUMBERS,
    *GENERATIVE_TABLES,
    *NATURAL_TABLES,
    *STN_TABLES,
)

QUICK_NOTE = (
    "Far smaller than the paper's runs: the steps and images a step are with each entry below. Same steps, batch and "
    "test scenes for every system; the paper's numbers are of its own size."
)

PLAIN_TABLES = (
    ("The demo", "demo", ("iou50", "classified", "both", "seconds")),
    ("The demo without labels", "demo-discover", ("iou50", "rmse", "rmse_black", "r2", "seconds")),
    (
        "Red cells of blood smears from counts alone, test images (BCCD)",
        "blood-cells-",
        ("count_error", "f1", "precision", "recall"),
    ),
    ("Search for learning rates at quick size, on validation scenes", "search-", READING),
    ("Precision of the heat-map network's convolutions", "precision-", ("iou50", "classified", "both", "both_worst")),
    ("The off-centre trap", "off-centre-", ("iou50", "iou50_worst", "both", "offset")),
    ("Choices that the papers leave open, without labels", "choices-", ("iou50", "iou50_worst", "rmse", "rmse_black")),
)
"""Title, name of the entries (or, ending in "-", the beginning of their names), metrics."""


def make_entry(
    folder_or_name: Path | str,
    metrics: dict[str, float],
    images: int,
    seed: int,
    command: str,
    name: str,
    note: str = "",
    root: str | None = None,
) -> Entry:
    """The entry of a model that was just evaluated.

    What the training took, and where it ran, is what the record in the weights' configuration says. Weights without one
    may lie beside the log of their run; what neither says is 0, or that of this process, and the note tells so.

    Args:
        folder_or_name: the run folder or the shipped model.
        metrics: as measured.
        images: test images.
        seed: of the test images.
        command: what makes the number again.
        name: of the entry.
        note: what a reader should know.
        root: where its images lie, if they are a folder's.
    """
    experiment = restore(folder_or_name)
    record = read_config(folder_or_name).training
    if record is None:
        record, told = _record_of_the_log(resolve(folder_or_name), experiment)
    else:
        told = _told_of_the_start(record)
    measured_by, split = commit(), "" if root is None else split_digest(at_root(experiment.data, root))
    return Entry(
        name=name,
        metrics={key: round(value, 5) for key, value in metrics.items()},
        images=images,
        seed=seed,
        train_seed=experiment.train.seed,
        steps=sum(one.steps for one in record.line()),
        batch_size=experiment.train.batch_size,
        train_seconds=round(sum(one.seconds for one in record.line()), 3),
        peak_memory_mib=round(max(one.peak_memory_mib for one in record.line()), 1),
        hardware=record.hardware,
        versions=record.versions,
        commit=record.commit,
        command=f"{command} --data-root DIR" if split else command,
        note=" ".join(text for text in (note, told) if text),
        measured_by="" if measured_by == record.commit else measured_by,
        backbone=backbone_of(experiment.model),
        split=split,
    )


def _told_of_the_start(record: TrainingRecord) -> str:
    """A sentence on the trainings before the last one; empty if it began with fresh weights."""
    starts = [
        f"{one.start_from} "
        + ("(no record)" if one.before is None else f"({one.before.steps} steps in {one.before.seconds:.0f} s)")
        for one in record.line()
        if one.start_from is not None
    ]
    if not starts:
        return ""
    return (
        f"Trained from the weights of {', which came from '.join(starts)}; steps and time are of all trainings that "
        "are on record."
    )


def _record_of_the_log(folder: Path, experiment: Experiment) -> tuple[TrainingRecord, str]:
    """What is known of a training whose weights carry no record, and a sentence that says where it comes from."""
    log = read_log(folder) if (folder / METRICS).exists() else []
    record = TrainingRecord(
        steps=int(log[-1]["step"]) if log else experiment.train.steps,
        seconds=max((line.get("seconds", 0.0) for line in log), default=0.0),
        peak_memory_mib=max((line.get("peak_memory_mib", 0.0) for line in log), default=0.0),
        hardware=hardware(),
        versions=versions(),
        commit=commit(),
        start_from=experiment.start_from,
    )
    known = "steps, time and memory are from the run's log" if log else "the steps are those of the configuration"
    told = (
        f"The weights carry no record of their training: {known}; hardware, versions and commit are those of the "
        "measurement."
    )
    return record, f"{told} {_told_of_the_start(record)}".strip()


def entry_name(path: Path) -> str:
    """The entry's name in a file name: without the ending and without "-seedN"."""
    return re.sub(r"-seed\d+$", "", path.stem)


def write_entry(entry: Entry, path: Path) -> None:
    """Writes one entry of the ledger."""
    write_atomically(path, (json.dumps(asdict(entry), indent=2) + "\n").encode())


def read_ledger(folder: Path) -> list[Entry]:
    """All entries of a folder, by file name.

    Raises:
        MistError: if a file is broken; nothing is changed.
    """
    return [read_entry(path) for path in sorted(folder.glob("*.json"))]


def read_entry(path: Path) -> Entry:
    """One entry of the ledger.

    Raises:
        MistError: if the file is broken.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object with keys")
        return strict_converter().structure(content, Entry)
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        why = explain(error) if isinstance(error, cattrs.BaseValidationError) else str(error)
        raise MistError(f"{path}: no entry of the ledger ({why}); mend or remove it") from error


def results_page(entries: list[Entry]) -> str:
    """``docs/results.md``: ours beside the paper's, then every entry."""
    lines = [
        "# Results",
        "",
        "Made by `mist results` from `results/*.json`; every number has the command that makes it again. Shares are",
        "0-1; where several seeds were run: mean (least - greatest). `classified` is strict, see `mistnn.metrics`.",
    ]
    for table in TABLES:
        lines += ["", f"## {table.title}", "", *([table.note, ""] if table.note else []), *table_lines(table, entries)]
        if any(entry.name == row.name + QUICK for row in table.rows for entry in entries):
            lines += ["", f"### {table.title.partition(':')[0]} at quick size", "", QUICK_NOTE, ""]
            lines += table_lines(table, entries, QUICK)
    for title, prefix, names in PLAIN_TABLES:
        lines += _plain_table(title, prefix, entries, names)
    lines += ["", "## Every entry", ""]
    for entry in entries:
        lines += _paragraph(entry)
    return "\n".join(lines).rstrip("\n") + "\n"


def table_lines(table: Table, entries: list[Entry], ending: str = "") -> list[str]:
    """A table of the paper in Markdown, ours beside theirs; with ``ending`` QUICK, our runs of that size."""
    heads = " | ".join(f"{name}: paper | ours" for name in table.columns)
    cost = " seconds a run | hours at full size, estimated |" if ending else ""
    told: list[str] = []
    columns = 3 + 2 * len(table.columns) + (2 if ending else 0)
    lines = [f"| system | data | runs | {heads} |{cost}", "|" + "---|" * columns]
    for row in table.rows:
        ours = [entry for entry in entries if entry.name == row.name + ending]
        lines.append(_table_row(table, row, ours) + (_cost(table, row, ours) if ending else ""))
        asked = table.least is not None and row.system.startswith(table.least.system)
        if table.least is not None and asked and any(table.least.metric in entry.metrics for entry in ours):
            told += ["", f"{row.system}, {row.data}: {_failures(table.least, ours)}"]
    return lines + told


def _failures(least: Least, entries: list[Entry]) -> str:
    """How many runs reach what they must, and which don't."""
    failed = [
        f"seed {entry.train_seed} ({entry.metrics[least.metric]:.3f})"
        for entry in entries
        if not entry.metrics.get(least.metric, 0.0) >= least.value
    ]
    reached = f"`{least.metric}` of at least {least.value:g} in {len(entries) - len(failed)} of {len(entries)} runs"
    return f"{reached}; failed: {', '.join(failed)}." if failed else f"{reached}."


def _cost(table: Table, row: Row, ours: list[Entry]) -> str:
    """Time of a run, and what the same pace makes of the full steps and images a step."""
    timed = [entry for entry in ours if entry.train_seconds]
    if not timed:
        return " - | - |"
    loop = find_preset(row.name).experiment.train
    paces = [entry.train_seconds / (entry.steps * entry.batch_size) for entry in timed]
    full = table.size.full if table.size is not None else None
    hours = sum(paces) / len(paces) * math.prod(full or (loop.steps, loop.batch_size)) / 3600
    return f" {sum(entry.train_seconds for entry in timed) / len(timed):.0f} | {hours:.1f} |"


def _table_row(table: Table, row: Row, ours: list[Entry]) -> str:
    cells = [row.system, row.data, str(len(ours))]
    for name, paper in zip(table.columns, row.paper, strict=True):
        cells += [
            "-" if paper is None else f"{paper:.{table.decimals}f}",
            _spread([entry.metrics[name] for entry in ours if name in entry.metrics], table.decimals),
        ]
    return f"| {' | '.join(cells)} |"


def _plain_table(title: str, prefix: str, entries: list[Entry], names: tuple[str, ...]) -> list[str]:
    chosen = [e for e in entries if e.name == prefix or (prefix.endswith("-") and e.name.startswith(prefix))]
    if not chosen:
        return []
    lines = ["", f"## {title}", "", f"| run | seed | steps | {' | '.join(names)} |", "|" + "---|" * (3 + len(names))]
    for entry in chosen:
        values = " | ".join(f"{entry.metrics[name]:.4g}" if name in entry.metrics else "" for name in names)
        lines.append(f"| {entry.name} | {entry.train_seed} | {entry.steps} | {values} |")
    return lines


def _spread(values: list[float], decimals: int) -> str:
    if not values:
        return "not run"
    mean, least, greatest = (f"{value:.{decimals}f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({least} - {greatest})"


def _paragraph(entry: Entry) -> list[str]:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in entry.metrics.items())
    facts = [
        f"{entry.images} test images of seed {entry.seed}" if entry.images else "",
        f"{entry.steps} steps of {entry.batch_size} images, weights of seed {entry.train_seed}" if entry.steps else "",
        f"trained {entry.train_seconds:.0f} s" if entry.train_seconds else "",
        f"peak memory {entry.peak_memory_mib:.0f} MiB" if entry.peak_memory_mib else "",
        entry.hardware,
        ", ".join(f"{name} {version}" for name, version in entry.versions.items()),
        f"commit {entry.commit}",
        f"measured by {entry.measured_by}" if entry.measured_by else "",
        f"backbone {entry.backbone}" if entry.backbone else "",
        f"split of SHA-256 {entry.split}" if entry.split else "",
    ]
    text = [f"**{entry.name}** (`{entry.command}`): {metrics}.", "; ".join(fact for fact in facts if fact) + "."]
    return [*text, entry.note, ""] if entry.note else [*text, ""]
