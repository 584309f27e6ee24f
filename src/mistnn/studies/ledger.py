"""The ledger: ``results/*.json``, one file a measured run, and ``docs/results.md`` made from them."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cattrs
import torch

from mistnn.errors import MistError
from mistnn.presets import restore
from mistnn.presets.experiment import read_log
from mistnn.training.runfolder import METRICS, write_atomically
from mistnn.weights import explain, package_version, resolve, strict_converter


@dataclass(frozen=True)
class Entry:
    """One measured run.

    Attributes:
        name: of the preset or the study; results of one name differ in their seed.
        metrics: name -> value; shares are 0-1.
        images: test images.
        seed: of the test images.
        train_seed: of the weights.
        steps: iterations of the training.
        batch_size: images an iteration.
        train_seconds: how long the training took, evaluations included; 0 where it is not known.
        peak_memory_mib: peak resident memory of the training; 0 where it is not known.
        hardware: processor and threads.
        versions: of python, torch and mistnn.
        commit: of the source, with "+changes" where it was not committed.
        command: what makes the number again.
        note: what a reader should know.
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


class Row(NamedTuple):
    """A row of a table of the paper.

    Attributes:
        system: as the paper prints it.
        data: the data set.
        name: of the ledger entries that repeat it.
        paper: the paper's numbers, in the order of ``SHOWN``.
    """

    system: str
    data: str
    name: str
    paper: tuple[float, float, float]


TABLES: dict[str, tuple[Row, ...]] = {
    "Table 2 and 3: detection and classification of digits (MIST, CVPR 2021)": (
        Row("MIST, small classifier", "MNIST-hard", "mist-mnist-hard", (0.978, 0.988, 0.975)),
        Row("MIST, classifier of the paper", "MNIST-hard", "mist-mnist-hard-paper", (0.978, 0.988, 0.975)),
        Row("MIST, both networks as released", "MNIST-hard", "mist-mnist-hard-released", (0.978, 0.988, 0.975)),
        Row("MIST, small classifier", "MNIST-3 digits", "mist-mnist-3", (0.995, 0.969, 0.966)),
    ),
}
SHOWN = ("iou50", "classified", "both")


def make_entry(
    folder_or_name: Path | str,
    metrics: dict[str, float],
    images: int,
    seed: int,
    command: str,
    name: str,
    note: str = "",
) -> Entry:
    """The entry of a model that was just evaluated.

    Args:
        folder_or_name: the run folder or the shipped model.
        metrics: as measured.
        images: test images.
        seed: of the test images.
        command: what makes the number again.
        name: of the entry.
        note: what a reader should know.
    """
    experiment = restore(folder_or_name)
    if experiment.start_from is not None:
        note = f"{note} Trained from the weights of {experiment.start_from}; the steps are those after it.".strip()
    folder = resolve(folder_or_name)
    log = read_log(folder) if (folder / METRICS).exists() else []
    return Entry(
        name=name,
        metrics={key: round(value, 5) for key, value in metrics.items()},
        images=images,
        seed=seed,
        train_seed=experiment.train.seed,
        steps=int(log[-1]["step"]) if log else experiment.train.steps,
        batch_size=experiment.train.batch_size,
        train_seconds=round(max((line.get("seconds", 0.0) for line in log), default=0.0), 1),
        peak_memory_mib=round(max((line.get("peak_memory_mib", 0.0) for line in log), default=0.0), 1),
        hardware=hardware(),
        versions=versions(),
        commit=commit(),
        command=command,
        note=note,
    )


def entry_name(path: Path) -> str:
    """The entry's name in a file name: without the ending and without "-seedN"."""
    return re.sub(r"-seed\d+$", "", path.stem)


def hardware() -> str:
    """The processor and how many threads torch uses on it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Of python, torch and mistnn."""
    return {"python": platform.python_version(), "torch": torch.__version__, "mistnn": package_version()}


def commit() -> str:
    """The commit of the source, "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def write_entry(entry: Entry, path: Path) -> None:
    """Writes one entry of the ledger."""
    write_atomically(path, (json.dumps(asdict(entry), indent=2) + "\n").encode())


def read_ledger(folder: Path) -> list[Entry]:
    """All entries of a folder, by file name.

    Raises:
        MistError: if a file is broken; nothing is changed.
    """
    entries = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not an object with keys")
            entries.append(strict_converter().structure(content, Entry))
        except (OSError, ValueError, cattrs.BaseValidationError) as error:
            why = explain(error) if isinstance(error, cattrs.BaseValidationError) else str(error)
            raise MistError(f"{path}: no entry of the ledger ({why}); mend or remove it") from error
    return entries


def results_page(entries: list[Entry]) -> str:
    """``docs/results.md``: ours beside the paper's, then every entry."""
    lines = [
        "# Results",
        "",
        "Made by `mist results` from `results/*.json`; every number has the command that makes it again. Shares are",
        "0-1; where several seeds were run: mean (least - greatest). `classified` is strict, see `mistnn.metrics`.",
    ]
    for title, rows in TABLES.items():
        heads = " | ".join(f"{name}: paper | ours" for name in SHOWN)
        lines += ["", f"## {title}", "", f"| system | data | runs | {heads} |", "|" + "---|" * (3 + 2 * len(SHOWN))]
        lines += [_table_row(row, [entry for entry in entries if entry.name == row.name]) for row in rows]
    lines += _plain_table("The demo", "demo", entries, ("iou50", "classified", "both", "seconds"))
    lines += _plain_table("The off-centre trap", "off-centre-", entries, ("iou50", "iou50_worst", "both", "offset"))
    lines += ["", "## Every entry", ""]
    for entry in entries:
        lines += _paragraph(entry)
    return "\n".join(lines).rstrip("\n") + "\n"


def _table_row(row: Row, ours: list[Entry]) -> str:
    cells = [row.system, row.data, str(len(ours))]
    for name, paper in zip(SHOWN, row.paper, strict=True):
        cells += [f"{paper:.3f}", _spread([entry.metrics[name] for entry in ours if name in entry.metrics])]
    return f"| {' | '.join(cells)} |"


def _plain_table(title: str, prefix: str, entries: list[Entry], names: tuple[str, ...]) -> list[str]:
    chosen = [entry for entry in entries if entry.name.startswith(prefix)]
    if not chosen:
        return []
    lines = ["", f"## {title}", "", f"| run | seed | steps | {' | '.join(names)} |", "|" + "---|" * (3 + len(names))]
    for entry in chosen:
        values = " | ".join(f"{entry.metrics[name]:.4g}" if name in entry.metrics else "" for name in names)
        lines.append(f"| {entry.name} | {entry.train_seed} | {entry.steps} | {values} |")
    return lines


def _spread(values: list[float]) -> str:
    if not values:
        return "not run"
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} - {max(values):.3f})"


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
    ]
    text = [f"**{entry.name}** (`{entry.command}`): {metrics}.", "; ".join(fact for fact in facts if fact) + "."]
    return [*text, entry.note, ""] if entry.note else [*text, ""]
