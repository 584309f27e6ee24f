"""The proof that no number has moved: equal sides are equal, and each kind of difference is reported."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import unchanged
from benchmarks.unchanged import ROOT, compare, compare_sides, main, renamed, run_sides

VALUES = {"a": torch.tensor([1.0, 2.0, math.nan]), "b": torch.zeros(2, dtype=torch.int64), "c": "False"}


def test_equal_values_are_equal() -> None:
    again = {name: value if isinstance(value, str) else value.clone() for name, value in VALUES.items()}
    for part in ("weights", "outputs", "log", "settings"):
        assert compare(part, VALUES, again) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a", torch.tensor([1.0, 2.0000002, math.nan]), r"^1 of 3 differ by at most 2.38e-07: a, float32 \(3,\)$"),
        ("a", torch.tensor([1.0, math.nan, math.nan]), r"^1 of 3 differ: a, float32 \(3,\)$"),
        ("a", torch.tensor([1.0, 2.0]), r"a, float32 \(3,\) -> float32 \(2,\)"),
        ("b", torch.zeros(2, dtype=torch.int32), r"b, int64 \(2,\) -> int32 \(2,\)"),
        ("c", "True", "^1 of 3 differ: c, False -> True$"),
        ("c", None, "1 names are missing, such as c"),
        ("d", torch.zeros(1), "1 names are new, such as d"),
    ],
)
def test_a_difference_is_described(name: str, value: torch.Tensor | str | None, words: str) -> None:
    after = {key: content for key, content in {**VALUES, name: value}.items() if content is not None}
    found = compare("weights", VALUES, after)
    assert found is not None and re.search(words, found), found
    assert (compare("log", VALUES, after) is None) == (name == "d"), "new scalars are no difference"


def test_names_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    assert renamed("old.weight", {"old.": "new."}) == "new.weight" and renamed("other", {"old.": "new."}) == "other"
    monkeypatch.setattr(unchanged, "RENAMED", {"weights": {"a": "z"}})
    after = {"z": VALUES["a"], "b": VALUES["b"], "c": VALUES["c"]}
    assert compare("weights", VALUES, after) is None and compare("log", VALUES, after) is not None


def test_failures_and_missing_cases(tmp_path: Path) -> None:
    parts = {"log": {"loss": torch.tensor(1.0)}}
    cases = {
        "same": (parts, parts),
        "fails on both": ("no data", "no data"),
        "fails now": (parts, "no data"),
        "is gone": (parts, None),
        "is new": (None, parts),
    }
    outs = {side: tmp_path / side for side in unchanged.SIDES}
    for number, out in enumerate(outs.values()):
        out.mkdir()
        for case, contents in cases.items():
            if contents[number] is not None:
                torch.save(contents[number], out / f"{case}.pt")
    result = compare_sides(outs)
    assert result["equal"] == 1
    assert result["different"] == ["fails now: works -> no data", "is gone: works -> there is no such case"]
    assert result["skipped"] == ["fails on both: no data", "is new: there is no such case before"]


def test_an_unknown_commit_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--before no-such-commit can't be checked out"):
        main(["--before", "no-such-commit"])


@pytest.mark.slow
def test_a_planted_difference_is_found(tmp_path: Path) -> None:
    """One side is a copy of the package in which every seed is another one: weights and log differ, settings do not."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "src" / "mistnn", copy / "mistnn", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "mistnn" / "__init__.py").open("a") as file:
        file.write("\nimport torch\n_seed = torch.manual_seed\ntorch.manual_seed = lambda seed: _seed(seed + 1)\n")
    for name, source, equal, different in (("same", ROOT / "src", 3, 0), ("planted", copy, 1, 2)):
        (tmp_path / name).mkdir()
        outs = run_sides({"before": ROOT / "src", "after": source}, tmp_path / name, "preset grid-mnist-easy")
        result = compare_sides(outs)
        assert (result["equal"], len(result["different"]), result["skipped"]) == (equal, different, []), result
    assert [line.partition(":")[0] for line in result["different"]] == [
        "preset grid-mnist-easy, weights",
        "preset grid-mnist-easy, log",
    ]
