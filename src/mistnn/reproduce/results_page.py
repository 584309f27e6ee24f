"""``docs/results.md``, made from the ledger: a verdict on each row of the papers, their tables, then every entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from mistnn.presets import find_preset
from mistnn.reproduce.ledger import Entry
from mistnn.reproduce.protocol import difference, stands
from mistnn.reproduce.table import Least, Row, Table
from mistnn.reproduce.tables import TABLES

PLAIN_TABLES = (
    ("The demo", "demo", ("iou50", "classified", "both", "seconds")),
    ("The demo without labels", "demo-discover", ("iou50", "rmse", "rmse_black", "r2", "seconds")),
    (
        "Red cells of blood smears from counts alone, test images (BCCD)",
        "blood-cells-",
        ("count_error", "f1", "precision", "recall"),
    ),
    (
        "Photographs from counts alone, by pretrained features, test images",
        "photos-",
        ("count_error", "count_error_mean", "f1", "precision", "recall"),
    ),
    ("Precision of the heat-map network's convolutions", "precision-", ("iou50", "classified", "both", "both_worst")),
    ("The off-centre trap", "off-centre-", ("iou50", "iou50_worst", "both", "offset")),
    ("Choices that the papers leave open, without labels", "choices-", ("iou50", "iou50_worst", "rmse", "rmse_black")),
)
"""Title, name of the entries (a prefix if it ends in "-") and metrics."""

CURVE_POINTS = 4
"""Values of a training's curve that are printed; `mist figure validation` draws them all."""
LOWER_IS_BETTER = ("rmse", "rmse_black", "error", "count_error", "count_error_free_k")


def results_page(entries: Sequence[Entry]) -> str:
    """The content of ``docs/results.md``."""
    lines = [
        "# Results",
        "",
        "Made by `mist results` from `results/*.json`; every entry has the command that reproduces it. Shares are 0-1;",
        "several seeds are shown as mean (minimum - maximum). `classified` is strict, see `mistnn.metrics`.",
        *verdict_lines(entries),
    ]
    for table in TABLES:
        lines += ["", f"## {table.title}", "", *([table.note, ""] if table.note else []), *table_lines(table, entries)]
    for title, prefix, names in PLAIN_TABLES:
        lines += _plain_table(title, prefix, entries, names)
    lines += ["", "## Every entry", ""]
    for name, runs in groupby(entries, key=lambda entry: entry.name):
        lines += [f"### {name}", ""]
        for entry in runs:
            lines += _paragraph(entry)
    return "\n".join(lines).rstrip("\n") + "\n"


VERDICTS = {
    "better": "better than the paper",
    "equal": "equal",
    "short": "short of it",
    "other protocol": "measured by another protocol",
    "not comparable": "not comparable",
    "no data here": "without data here",
    "not run": "not run",
}
"""How a verdict begins, and how it is counted."""


def verdict_lines(entries: Sequence[Entry]) -> list[str]:
    """One line for each row of a paper for which the paper has a number, at the size of the paper's runs."""
    rows, verdicts = list[str](), Counter[str]()
    head = [
        "",
        "## Is it as good as in the papers?",
        "",
        "One measure of each row. Equal: the paper's number lies within the spread of our runs, or a single run prints",
        "the same number. Other protocol: the only runs were measured otherwise than the table now asks, and are not",
        "compared. The tables below have the other measures, and what differs from the paper.",
        "",
    ]
    for table in TABLES:
        for row in table.rows:
            measure = table.measure(row)
            paper = row.paper[table.columns.index(measure)]
            if paper is None:
                continue
            measured = [entry for entry in entries if measure in entry.metrics]
            # Runs of the present protocol, or those of one other: they are never mixed.
            other, runs = next(iter(runs_by_protocol(table, row, measured).items()), ("", []))
            values = [entry.metrics[measure] for entry in runs]
            ours = f"[{_spread(values, table.decimals)}](#{anchor(row.name)})" if values else "-"
            needs = table.photographs or row.holds_data is not None
            said = verdict(measure, paper, values, table.decimals) if values else "not run"
            said = f"other protocol: {other}" if other else said
            said = "no data here" if needs and not values else said
            said = said if row.comparable else "not comparable"
            cells = (f"{table.title.partition(':')[0].partition(' (')[0]}: {row.system}", row.data, f"`{measure}`")
            shown = f"{paper:.{table.decimals}f}"
            rows.append(f"| {' | '.join(cells)} | {shown} | {ours} | {len(values)} | {said} |")
            verdicts[said.partition(":")[0].partition(" by ")[0]] += 1
    of_each = ", ".join(f"{verdicts[name]} {words}" for name, words in VERDICTS.items() if verdicts[name])
    columns = ("| row | data | measure | paper | ours | runs | verdict |", "|---|---|---|---|---|---|---|")
    return [*head, f"Of {len(rows)} rows: {of_each}.", "", *columns, *rows]


def verdict(measure: str, paper: float, values: Sequence[float], decimals: int) -> str:
    """Whether our runs are better than the paper's number, equal to it, or short of it, and by how much."""
    sign = -1 if measure in LOWER_IS_BETTER else 1
    gained = [round(sign * (value - paper), decimals) for value in values]
    if min(gained) > 0:
        return "better"
    if max(gained) >= 0:
        return "equal"
    return f"short by {-sum(gained) / len(gained):.{decimals}f}"


def anchor(heading: str) -> str:
    """The anchor that Markdown makes of a heading: lower case, hyphens for spaces, no other punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def runs_by_protocol(table: Table, row: Row, entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    """The entries of a row by what differs from the table's present protocol; "" for nothing, which comes first."""
    model, groups = find_preset(row.name).experiment.model, dict[str, list[Entry]]()
    for entry in entries:
        if entry.name == row.name:
            groups.setdefault(difference(table, model, entry), []).append(entry)
    return {other: groups[other] for other in sorted(groups)}


def table_lines(table: Table, entries: Sequence[Entry]) -> list[str]:
    """A table of a paper in Markdown, with our numbers beside the paper's.

    Runs of another protocol than the present one stand in a row of their own, which says what differs.
    """
    heads = " | ".join(f"{name}: paper | ours" for name in table.columns)
    failures: list[str] = []
    head = f"| system | data | runs | {heads} |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row in table.rows:
        groups = runs_by_protocol(table, row, entries)
        ours = groups.get("", [])
        lines.append(_table_row(table, row, ours))
        for other, runs in groups.items():
            if other:
                lines.append(_table_row(table, row._replace(system=f"{row.system} (*other protocol: {other}*)"), runs))
        least = table.least
        if least and row.system.startswith(least.system) and any(least.metric in entry.metrics for entry in ours):
            failures += ["", f"{row.system}, {row.data}: {_failures(least, ours)}"]
    return lines + failures


def _failures(least: Least, entries: Sequence[Entry]) -> str:
    """How many runs reach the minimum, and which do not."""
    below = [entry for entry in entries if not entry.metrics.get(least.metric, 0.0) >= least.value]
    failed = [f"seed {entry.train_seed} ({entry.metrics[least.metric]:.3f})" for entry in below]
    reached = f"`{least.metric}` of at least {least.value:g} in {len(entries) - len(failed)} of {len(entries)} runs"
    return f"{reached}; failed: {', '.join(failed)}." if failed else f"{reached}."


def _table_row(table: Table, row: Row, ours: Sequence[Entry]) -> str:
    cells, model = [row.system, row.data, str(len(ours))], find_preset(row.name).experiment.model
    for name, paper in zip(table.columns, row.paper, strict=True):
        values = [entry.metrics[name] for entry in ours if stands(model, entry, name)]
        cells += ["-" if paper is None else f"{paper:.{table.decimals}f}", _spread(values, table.decimals)]
    return f"| {' | '.join(cells)} |"


def _plain_table(title: str, prefix: str, entries: Sequence[Entry], names: Sequence[str]) -> list[str]:
    chosen = [e for e in entries if e.name == prefix or (prefix.endswith("-") and e.name.startswith(prefix))]
    if not chosen:
        return []
    lines = ["", f"## {title}", "", f"| run | seed | steps | {' | '.join(names)} |", "|" + "---|" * (3 + len(names))]
    for entry in chosen:
        values = " | ".join(f"{entry.metrics[name]:.4g}" if name in entry.metrics else "" for name in names)
        lines.append(f"| {entry.name} | {entry.train_seed} | {entry.steps} | {values} |")
    return lines


def _spread(values: Sequence[float], decimals: int) -> str:
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
        f"read at {entry.reading}" if entry.reading else "",
        f"**other protocol: {entry.differs}**" if entry.differs else "",
        f"split of SHA-256 {entry.split}" if entry.split else "",
    ]
    text = [f"**{entry.name}** (`{entry.command}`): {metrics}.", "; ".join(fact for fact in facts if fact) + "."]
    text += [entry.note] if entry.note else []
    for name, points in entry.curve.items():
        shown = ", ".join(f"{value:.3g} ({step:,.0f})" for step, value in points[-CURVE_POINTS:])
        text.append(f"Last validation values of `{name}` (steps): {shown}.")
    return [*text, ""]
