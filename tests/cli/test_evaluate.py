from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mistnn.cli.main import main
from mistnn.experiments import evaluate_stored
from mistnn.metrics.meanings import MEANINGS
from tests.cli.runs import only_line, read_config, write_config

Captured = pytest.CaptureFixture[str]


def test_table_and_json(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "metrics.json"
    assert main(["evaluate", str(trained), "--images", "3", "--json", str(path)]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    content = json.loads(path.read_text())
    expected = evaluate_stored(trained, 3)
    assert set(expected) <= set(MEANINGS), "a metric has no explanation"
    assert content == {**expected, "model": str(trained), "split": "test", "seed": 0, "images": 3, "objects": 6}
    assert isinstance(content["images"], int)
    for name in ("iou50", "both", "classified"):
        assert rows[name] == f"{content[name]:.4f}" and 0 <= content[name] <= 1
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_seed_and_split_choose_other_scenes(trained: Path, tmp_path: Path) -> None:
    found = []
    for index, more in enumerate(([], ["--seed", "5"], ["--split", "validation"], ["--seed", "0"])):
        path = tmp_path / f"{index}.json"
        assert main(["evaluate", str(trained), "--images", "60", "--json", str(path), *more]) == 0
        found.append(json.loads(path.read_text()))
    assert [one["seed"] for one in found] == [0, 5, 0, 0]
    assert [one["split"] for one in found] == ["test", "test", "validation", "test"]
    assert found[0] == found[3]
    measured = [tuple(one[name] for name in ("iou50", "classified", "both", "ap")) for one in found[:3]]
    assert len(set(measured)) == 3


def test_json_that_cannot_be_written(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    for path in (tmp_path, tmp_path / "gone" / "metrics.json"):
        assert main(["evaluate", str(trained), "--images", "1", "--json", str(path)]) == 2
        only_line(capsys.readouterr().err, f"--json={path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--json", "--record"])
def test_only_results_are_replaced(trained: Path, tmp_path: Path, capsys: Captured, option: str) -> None:
    """The user's table of counts was overwritten by a slip; annotations end in .json, too."""
    command = ["evaluate", str(trained), "--images", "1", option]
    for name, text in (("counts.csv", "file,count\na.png,3\n"), ("annotations.json", '{"images": []}')):
        path = tmp_path / name
        path.write_text(text)
        assert main([*command, str(path)]) == 2
        only_line(capsys.readouterr().err, f"{option} {path} is there already", "give another file")
        assert path.read_text() == text
    for _ in range(2):
        assert main([*command, str(tmp_path / "new-seed0.json")]) == 0


def _other_format(config: dict[str, Any]) -> None:
    config["format"] = 3


def _unknown_key(config: dict[str, Any]) -> None:
    config["model"]["depth"] = 3


def _other_shape(config: dict[str, Any]) -> None:
    config["model"]["heatmap"]["channels"] = 5


def _bad_value(config: dict[str, Any]) -> None:
    config["model"]["k"] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_format, ["format 3", "reads format 2"]),
        (_unknown_key, ["'depth'"]),
        (_other_shape, ["shape"]),
        (_bad_value, ["model.k=0"]),
    ],
)
def test_models_that_cannot_be_trusted(
    change: Callable[[dict[str, Any]], None], words: list[str], copy: Path, capsys: Captured
) -> None:
    config = read_config(copy)
    change(config)
    write_config(copy, config)
    assert main(["evaluate", str(copy), "--images", "1"]) == 2
    only_line(capsys.readouterr().err, *words)


def test_weights_cut_in_half(copy: Path, capsys: Captured) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["evaluate", str(copy)]) == 2
    only_line(capsys.readouterr().err, str(path), "truncated")


def test_missing_mnist_names_the_option(copy: Path, tmp_path: Path, capsys: Captured) -> None:
    config = read_config(copy)
    config["experiment"]["data"]["source"] = "mnist"
    write_config(copy, config)
    empty = tmp_path / "empty"
    empty.mkdir()
    for option in ("--data-root", "--data.root"):
        assert main(["evaluate", str(copy), option, str(empty)]) == 2
        only_line(capsys.readouterr().err, str(empty), "--data-root")
