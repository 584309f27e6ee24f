"""The ledger: entries on disk, and the page that is made from them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from mistnn.errors import MistError
from mistnn.experiments import describe, read_log, train
from mistnn.presets import PRESETS, find_preset
from mistnn.reproduce.figures import FIGURES, Request
from mistnn.reproduce.ledger import Entry, entry_name, make_entry, read_ledger, validation_curve, write_entry
from mistnn.reproduce.protocol import stands
from mistnn.reproduce.results_page import results_page, runs_by_protocol, table_lines, verdict
from mistnn.reproduce.tables import TABLES, find_table
from mistnn.weights import TrainingRecord, commit, hardware, versions
from tests.experiments.tiny import TINY

ENTRY = Entry(
    name="mist-mnist-3",
    metrics={"iou50": 0.91234, "classified": 0.8125, "both": 0.75},
    images=1000,
    seed=5,
    train_seed=2,
    steps=2000,
    batch_size=32,
    train_seconds=754.3,
    peak_memory_mib=1234.5,
    hardware="a processor, 2 threads",
    versions={"python": "3.11", "torch": "2.6"},
    commit="0123456789ab",
    command="mist evaluate runs/three --images 1000",
    note="A remark.",
    reading="strength 10, window 5: the best of 12 on 300 validation images",
)


def with_metrics(train_seed: int, **metrics: float) -> Entry:
    return dataclasses.replace(ENTRY, train_seed=train_seed, metrics=metrics)


def row_of(page: str, system: str, data: str) -> list[str]:
    """The cells of the one table row of a system on a data set."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    found = [row for row in rows if row[:2] == [system, data]]
    assert found and all(row == found[0] for row in found)  # a row may stand in two tables
    return found[0]


def test_round_trip_in_the_order_of_the_files(tmp_path: Path) -> None:
    second = dataclasses.replace(ENTRY, name="other", train_seconds=10, note="")
    write_entry(second, tmp_path / "b.json")
    write_entry(ENTRY, tmp_path / "a.json")
    (tmp_path / "readme.txt").write_text("no entry")
    assert read_ledger(tmp_path) == [ENTRY, second]
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    assert json.loads((tmp_path / "a.json").read_text()) == dataclasses.asdict(ENTRY)
    assert read_ledger(tmp_path / "none") == []


def test_the_curve_of_a_training_is_kept_printed_and_drawn(tmp_path: Path) -> None:
    run, ledger = tmp_path / "run", tmp_path / "ledger"
    ledger.mkdir()
    loop = dataclasses.replace(TINY.train, steps=3, evaluate_every=1)
    train(dataclasses.replace(TINY, train=loop, evaluation_images=2), run)
    curve = validation_curve(run, ("iou50", "no such measure"))
    assert list(curve) == ["iou50"] and [step for step, _ in curve["iou50"]] == [1, 2, 3]
    assert curve["iou50"][-1][1] == pytest.approx(read_log(run)[-1]["evaluate/iou50"], abs=1e-5)
    assert validation_curve("mist-mnist-hard", ("iou50",)) == {}
    points = [(500.0 * step, 0.5 + 0.08 * step) for step in range(1, 6)]
    write_entry(dataclasses.replace(ENTRY, curve={"both": points}), ledger / "a.json")
    (entry,) = read_ledger(ledger)
    assert entry.curve == {"both": points}
    printed = "Last validation values of `both` (steps): 0.66 (1,000), 0.74 (1,500), 0.82 (2,000), 0.9 (2,500)."
    assert printed in results_page([entry])
    (axes,) = FIGURES["validation"](Request(ledger)).axes
    assert axes.get_ylabel() == "both"
    write_entry(ENTRY, ledger / "a.json")
    with pytest.raises(MistError, match="no run with a validation curve"):
        FIGURES["validation"](Request(ledger))
    with pytest.raises(MistError, match="is not a folder"):
        FIGURES["validation"](Request(tmp_path / "none"))


def test_the_measure_of_a_row() -> None:
    """The table's headline, or the last column where the paper has a number."""
    for table, measures in (("table1", {"rmse"}), ("table2", {"both"}), ("spair", {"ap50_ink"}), ("svhn", {"ap50"})):
        assert {find_table(table).measure(row) for row in find_table(table).rows} == measures


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no entry"),
        (b'{"name": ', "no entry"),
        (b"[1]", "no object|not an object"),
        (b"null", "not an object"),
        (b"\xff\xfe", "utf-8"),
        (json.dumps({**dataclasses.asdict(ENTRY), "extra": 1}).encode(), "unknown key 'extra'"),
        (json.dumps({**dataclasses.asdict(ENTRY), "steps": "many"}).encode(), "'many' is not a whole number at steps"),
        (json.dumps({"name": "x"}).encode(), "missing key 'metrics'"),
    ],
)
def test_a_broken_entry_is_named_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    write_entry(ENTRY, tmp_path / "good.json")
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(MistError, match=words) as caught:
        read_ledger(tmp_path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and "fix or remove" in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("part", "what"), [("metrics", "measure both"), ("curve", "curve of both")])
def test_measures_are_finite(part: str, what: str, value: float, tmp_path: Path) -> None:
    """Tables would print them, and averages over seeds would be no numbers."""
    path = tmp_path / "a.json"
    content: dict[str, Any] = {"iou50": 0.5, "both": value} if part == "metrics" else {"both": [(1, 0.5), (2, value)]}
    odd = dataclasses.replace(ENTRY, **{part: content})
    with pytest.raises(MistError, match=f"a.json is not written, because the {what} is {value}: "):
        write_entry(odd, path)
    assert not path.exists()
    path.write_text(json.dumps(dataclasses.asdict(odd)))
    with pytest.raises(MistError, match=rf"a.json: no entry of the ledger \(the {what} is {value}\): fix or remove"):
        read_ledger(tmp_path)


def test_an_entry_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(MistError, match="a.json.*no entry"):
        read_ledger(tmp_path)


def test_what_was_not_run_is_said_beside_the_papers_number() -> None:
    page = results_page([])
    for table in TABLES:
        for row in table.rows:
            papers = ["-" if number is None else f"{number:.{table.decimals}f}" for number in row.paper]
            expected = [cell for number in papers for cell in (number, "not run")]
            assert row_of(page, row.system, row.data) == [row.system, row.data, "0", *expected]
    assert "The demo" not in page and "The off-centre trap" not in page


def test_papers_numbers() -> None:
    """MIST (CVPR 2021), Tables 1 to 5 and supplement E: RMSE; IoU50, classified, both; F1; average precision."""
    errors, second, third, fifth = (find_table(f"table{number}") for number in (1, 2, 3, 5))
    photographs = {row.name: row.paper for command in ("table4", "voc07") for row in find_table(command).rows}
    assert find_table("table4").columns == ("precision", "recall", "f1")
    assert find_table("voc07").columns[0] == "f1"
    assert photographs["mist-pascal-coco"] == (0.874, 0.555, 0.679)
    assert photographs["xie20-pascal-coco"] == (0.727, 0.510, 0.600)
    assert photographs["mist-voc07"][0] == 0.338 and photographs["xie20-voc07"][0] == 0.298
    assert [row.paper[0] for row in fifth.rows] == 2 * [0.922, 0.901, 0.908]  # the network of the paper, then ours
    assert errors.columns[0] == "rmse" and second.columns == third.columns == ("iou50", "classified", "both")
    first = {(row.system.split(",")[0], row.data): row.paper[0] for row in errors.rows}
    assert (
        first["MIST", "MNIST easy"],
        first["MIST", "MNIST hard"],
        first["MIST", "Gabor (another noise, see docs/data.md)"],
    ) == (0.038, 0.053, 0.095)
    assert (first["Grid", "MNIST easy"], first["Grid", "MNIST hard"]) == (0.039, 0.062)
    assert (first["Zha18", "MNIST easy"], first["Zha18", "MNIST hard"]) == (0.169, 0.191)
    assert (first["Ch.-wise", "MNIST easy"], first["Ch.-wise", "MNIST hard"]) == (0.042, 0.128)
    papers = {(row.system.split(",")[0], row.data): row.paper for row in (*second.rows, *third.rows)}
    assert papers["MIST", "MNIST-hard"] == (0.978, 0.988, 0.975)
    assert papers["MIST", "MNIST-3 digits"] == (0.995, 0.969, 0.966)
    assert papers["Ch.-wise", "MNIST-hard"] == (0.254, 0.755, 0.248)
    assert papers["Supervised", "MNIST-hard"] == (0.996, 0.987, 0.986)
    assert papers["Xie20", "MNIST-hard"] == (0.727, 0.931, 0.713)
    assert papers["Xie20", "MNIST-3 digits"] == (0.954, 0.974, 0.922)


def test_ours_beside_the_papers() -> None:
    row = row_of(results_page([ENTRY]), "MIST, small classifier", "MNIST-3 digits")
    assert row[2:] == ["1", "0.995", "0.912", "0.969", "0.812", "0.966", "0.750"]


def test_several_seeds_are_a_mean_and_a_spread() -> None:
    entries = [with_metrics(0, iou50=0.9, both=0.8), with_metrics(1, iou50=0.6, both=0.7), with_metrics(2, iou50=0.9)]
    row = row_of(results_page(entries), "MIST, small classifier", "MNIST-3 digits")
    assert row[2:] == [
        "3", "0.995", "0.800 (0.600 - 0.900)", "0.969", "not run", "0.966", "0.750 (0.700 - 0.800)",
    ]  # fmt: skip


def test_every_table_is_a_table() -> None:
    demo = dataclasses.replace(ENTRY, name="demo", metrics={"iou50": 0.98, "both": 0.95, "seconds": 118.2})
    trap = dataclasses.replace(ENTRY, name="off-centre-eq9-random-plain", metrics={"iou50": 0.5, "offset": 3.25})
    page = results_page([ENTRY, demo, trap])
    widths = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    blocks = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    assert len(blocks) == 1 + len(TABLES) + 2 and len(widths) == sum(block.count("\n") for block in blocks)
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    assert "| demo | 2 | 2000 | 0.98 |  | 0.95 | 118.2 |" in page
    assert "| off-centre-eq9-random-plain | 2 | 2000 | 0.5 |  |  | 3.25 |" in page


def test_every_entry_has_its_facts() -> None:
    bare = dataclasses.replace(ENTRY, name="bare", images=0, steps=0, train_seconds=0.0, peak_memory_mib=0.0, note="")
    page = results_page([ENTRY, bare])
    first, second = page.split("## Every entry")[1].split("**bare**")
    facts = ("1000 test images of seed 5", "2000 steps of 32 images, weights of seed 2", "trained 754 s")
    for fact in (*facts, "peak memory 1234 MiB"):
        assert fact in first and fact not in second
    for fact in (ENTRY.hardware, "torch 2.6", "commit 0123456789ab", "`mist evaluate runs/three --images 1000`"):
        assert fact in first and fact in second
    assert "A remark." in first and "A remark." not in second
    assert page.endswith("\n") and not page.endswith("\n\n") and "None" not in page


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mist-mnist-hard-seed0.json", "mist-mnist-hard"),
        ("mist-mnist-hard-seed12.json", "mist-mnist-hard"),
        ("mist-mnist-3.json", "mist-mnist-3"),
        ("demo-seed.json", "demo-seed"),
        ("demo-seed1-long.json", "demo-seed1-long"),
    ],
)
def test_entry_name_leaves_the_seed_out(file: str, name: str) -> None:
    assert entry_name(Path("results") / file) == name


def test_an_entry_is_made_of_the_run_and_its_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(describe(TINY)))
    lines = [{"step": 1, "seconds": 2.04, "peak_memory_mib": 90.0}, {"step": 2, "seconds": 7.06, "peak_memory_mib": 80}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = make_entry(run, {"both": 0.123456789}, 40, 6, "mist evaluate run", "tiny", "why")
    assert (entry.name, entry.metrics, entry.images, entry.seed) == ("tiny", {"both": 0.12346}, 40, 6)
    assert (entry.train_seed, entry.steps, entry.batch_size) == (3, 2, 4), "the steps that were done"
    assert (entry.train_seconds, entry.peak_memory_mib) == (7.06, 90.0)
    assert entry.note.startswith("why The weights carry no record of their training: steps, time and memory are from")
    assert "hardware, versions and commit are those of the measurement" in entry.note
    assert (entry.hardware, entry.versions, entry.commit) == (hardware(), versions(), commit())
    (run / "metrics.jsonl").unlink()
    unknown = make_entry(run, {"both": 0.5}, 40, 6, "mist evaluate run", "tiny")
    assert unknown.train_seconds == unknown.peak_memory_mib == 0.0, "nothing tells"
    assert "no record of their training: the steps are those of the configuration" in unknown.note


RECORD = TrainingRecord(
    2, 7.06, 90.0, "a machine, 4 threads", {"python": "3.14", "torch": "9", "mistnn": "8"}, "c" * 12
)
LATER = TrainingRecord(4, 3.0, 80.0, "another", {"python": "3.15"}, "d" * 12, start_from="runs/a", before=RECORD)
LAST = dataclasses.replace(LATER, steps=8, start_from="runs/b", before=LATER)
UNTOLD = dataclasses.replace(LATER, before=None)


def entry_of(record: TrainingRecord, folder: Path) -> Entry:
    """Made of a shipped model: no log lies beside it."""
    experiment = dataclasses.replace(TINY, start_from=record.start_from)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(describe(experiment) | {"training": dataclasses.asdict(record)}))
    return make_entry(folder, {"both": 0.5}, 40, 6, "mist evaluate run", "tiny")


def test_the_record_of_the_training_goes_before_its_log(tmp_path: Path) -> None:
    entry = entry_of(RECORD, tmp_path / "a")
    assert (entry.steps, entry.train_seconds, entry.peak_memory_mib, entry.note) == (2, 7.06, 90.0, "")
    assert (entry.hardware, entry.versions, entry.commit) == (RECORD.hardware, RECORD.versions, RECORD.commit)
    assert entry.measured_by == commit()
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 9, "seconds": 99.0}\n')
    assert make_entry(tmp_path / "a", {"both": 0.5}, 40, 6, "mist evaluate run", "tiny") == entry


@pytest.mark.parametrize(
    ("record", "numbers", "words"),
    [
        (LATER, (6, 10.06, 90.0), "weights of runs/a (2 steps in 7 s); steps and time"),
        (LAST, (14, 13.06, 90.0), "weights of runs/b (4 steps in 3 s), which came from runs/a (2 steps in 7 s); steps"),
        (
            UNTOLD,
            (4, 3.0, 80.0),
            "weights of runs/a (no record); steps and time are of all trainings that are on record",
        ),
    ],
)
def test_trainings_before_it_are_counted(
    record: TrainingRecord, numbers: tuple[int, float, float], words: str, tmp_path: Path
) -> None:
    entry = entry_of(record, tmp_path / "a")
    assert (entry.steps, entry.train_seconds, entry.peak_memory_mib) == numbers
    assert words in entry.note
    assert (entry.hardware, entry.commit) == ("another", "d" * 12)


def test_an_entry_of_before_is_read(tmp_path: Path) -> None:
    old = {name: value for name, value in dataclasses.asdict(ENTRY).items() if name != "measured_by"}
    (tmp_path / "a.json").write_text(json.dumps(old))
    assert read_ledger(tmp_path) == [ENTRY]
    page = results_page([ENTRY, dataclasses.replace(ENTRY, name="b", measured_by="e" * 12)])
    assert page.count("measured by") == page.count("measured by eeeeeeeeeeee") == 1


def test_tables_name_presets_or_what_is_to_come() -> None:
    names = {row.name for table in TABLES for row in table.rows}
    assert {"mist-mnist-hard", "mist-mnist-3"} <= names & set(PRESETS)


def test_runs_that_failed_are_told() -> None:
    table = next(table for table in TABLES if table.command == "air")
    runs = [
        dataclasses.replace(ENTRY, name="air-original", train_seed=seed, metrics={"count_accuracy": value})
        for seed, value in enumerate((0.991, 0.98, 0.331))
    ]
    lines = table_lines(table, runs)
    assert lines[-1].endswith("`count_accuracy` of at least 0.98 in 2 of 3 runs; failed: seed 2 (0.331).")
    assert lines[-2] == "" and "0.767 (0.331 - 0.991)" in lines[2]
    assert table_lines(table, runs[:2])[-1].endswith("in 2 of 2 runs.")
    assert table_lines(table, [])[-1].startswith("|")
    spair = next(table for table in TABLES if table.command == "spair")
    half = [dataclasses.replace(ENTRY, name=name, metrics={"ap50_ink": 0.4}) for name in ("spair-1", "air-1")]
    told = [line for line in table_lines(spair, half) if "of at least" in line]
    assert len(told) == 1 and told[0].startswith("SPAIR, 48 x 48, 1 digit: ")


def test_quick_runs_have_no_table_on_the_page() -> None:
    quick = dataclasses.replace(ENTRY, name="xie20-mnist-3-quick", metrics={"iou50": 0.5, "both": 0.25})
    page = results_page([quick])
    assert "quick size" not in page and "0.500" not in page and page.count("xie20-mnist-3-quick") == 2


def test_a_run_of_another_protocol_stands_apart_and_is_not_compared() -> None:
    tuned = dataclasses.replace(ENTRY, reading="strength 1, window 5")
    other = dataclasses.replace(ENTRY, train_seed=1, differs="of other data", metrics={"both": 0.5})
    page = results_page([other])
    head = page[: page.index("## Table 1")]
    (line,) = [line for line in head.splitlines() if "Table 3: MIST, small classifier | MNIST-3" in line]
    assert line.endswith("| [0.500](#mist-mnist-3) | 1 | other protocol: of other data |")
    assert row_of(page, "MIST, small classifier", "MNIST-3 digits")[2] == "0"
    assert "**other protocol: of other data**" in page
    both = results_page([tuned, other])
    (line,) = [line for line in both.splitlines() if "Table 3: MIST, small classifier | MNIST-3" in line]
    assert "[0.750](#mist-mnist-3) | 1 | short by" in line, "only the run of the present protocol is compared"
    assert "read at strength 1, window 5" in both
    assert row_of(both, "MIST, small classifier (*other protocol: of other data*)", "MNIST-3 digits")[2] == "1"


def test_an_unknown_k_that_was_read_as_a_given_one_does_not_count() -> None:
    mist, grid = (find_preset(name).experiment.model for name in ("mist-mnist-3", "grid-mnist-easy"))
    older = dataclasses.replace(ENTRY, metrics={"ap50": 0.9, "ap50_free_k": 0.5})
    newer = dataclasses.replace(older, metrics=older.metrics | {"strength_free_k": 3.0})
    assert stands(mist, older, "ap50") and not stands(mist, older, "ap50_free_k") and stands(mist, newer, "ap50_free_k")
    assert stands(grid, older, "ap50_free_k"), "a grid has no strength"
    assert not stands(mist, newer, "count_error_free_k"), "not measured"


def test_the_ledger_of_the_repository_says_what_differs() -> None:
    """No row averages two protocols, and what was measured at quick size is in no table."""
    entries = read_ledger(Path(__file__).parents[2] / "results")
    for entry in entries:
        if "--budget quick" in entry.command or entry.name.startswith("search-"):
            assert "quick size" in entry.differs, entry.name
        assert not entry.differs or "Differs from the present protocol: " in entry.note, entry.name
    for table in (one for one in TABLES if one.tuned):
        for row in table.rows:
            groups = runs_by_protocol(table, row, entries)
            assert all(
                entry.reading for entry in groups.get("", []) if PRESETS[row.name].experiment.model.reading_strengths
            )


@pytest.mark.parametrize(
    ("measure", "paper", "values", "expected"),
    [
        ("both", 0.9, [0.95], "better"),
        ("both", 0.9, [0.9004], "equal"),
        ("both", 0.9, [0.88, 0.92], "equal"),
        ("both", 0.9, [0.88, 0.86], "short by 0.030"),
        ("rmse", 0.05, [0.04, 0.045], "better"),
        ("rmse", 0.05, [0.04, 0.06], "equal"),
        ("error", 0.05, [0.07], "short by 0.020"),
    ],
)
def test_verdicts(measure: str, paper: float, values: list[float], expected: str) -> None:
    assert verdict(measure, paper, values, 3) == expected


def test_the_page_begins_with_verdicts_that_link_to_entries() -> None:
    page = results_page([with_metrics(0, iou50=0.99, both=0.96), with_metrics(1, iou50=0.99, both=0.98)])
    head = page[: page.index("## Table 1")]
    (line,) = [line for line in head.splitlines() if "Table 3: MIST, small classifier | MNIST-3" in line]
    assert line.endswith("| `both` | 0.966 | [0.970 (0.960 - 0.980)](#mist-mnist-3) | 2 | equal |")
    assert page.count("### mist-mnist-3\n") == 1
    with_numbers = [row for table in TABLES for row in table.rows if any(one is not None for one in row.paper)]
    assert sum(line.startswith("| ") for line in head.splitlines()) == 1 + len(with_numbers)
    assert "0.095 | - | 0 | not comparable |" in head, "Gabor noise of our own"
    (summary,) = re.findall(r"^Of (\d+) rows: (.*)\.$", head, re.MULTILINE)
    assert int(summary[0]) == len(with_numbers) == sum(map(int, re.findall(r"\d+", summary[1])))
    assert summary[1].startswith("1 equal, 1 not comparable, ") and summary[1].endswith(" not run")
    assert "Xie20, stride 8, small classifier | MNIST-3 digits | `both` | 0.922 | - | 0 | not run |" in head
    assert "| PASCAL+COCO | `f1` | 0.679 | - | 0 | no data here |" in head
