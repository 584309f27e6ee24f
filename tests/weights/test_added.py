"""Folders written before a field existed are read with what was done then; nothing else may be missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.presets import Experiment, restore
from mistnn.training.checkpoint import first_difference
from mistnn.weights import load_model, shipped_folder
from mistnn.weights.added import ADDED, is_added
from mistnn.weights.strict import completed, strict_converter
from tests.cli.runs import only_line, read_config, train_tiny, write_config

OF_0_1_0 = {
    "model": ("scales", "background", "threshold", "preparation"),
    "step": ("scale_step", "objects_only"),
    "data": ("warp",),
}
"""What the configuration of a model of 0.1.0 lacks."""


def classes_of(kind: Any) -> Iterator[type]:
    """A configuration class and all that it holds."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for inner in get_type_hints(kind).values():
            yield from classes_of(inner)
    for part in get_args(kind):
        yield from classes_of(part)


def as_of_0_1_0(folder: Path) -> None:
    config = read_config(folder)
    for part, names in OF_0_1_0.items():
        content = config["model"] if part == "model" else config["experiment"][part]
        for name in names:
            del content[name]
    del config["training"]
    write_config(folder, config)


def test_the_table_names_fields_that_there_are() -> None:
    classes = {kind.__name__: kind for kind in classes_of(Experiment)}
    for name, added in ADDED.items():
        fields = {field.name for field in dataclasses.fields(classes[name])}
        assert set(added) <= fields, name


def test_an_old_model_is_what_it_was(tmp_path: Path) -> None:
    shutil.copytree(shipped_folder() / "mist-mnist-3", tmp_path / "old")
    as_of_0_1_0(tmp_path / "old")
    assert restore(tmp_path / "old") == restore("mist-mnist-3")
    old, new = load_model(tmp_path / "old"), load_model("mist-mnist-3")
    image = torch.rand(1, 1, 40, 40)
    with torch.inference_mode():
        for ours, theirs in zip(old.detect(image), new.detect(image), strict=True):
            assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.scores, theirs.scores)


def test_an_old_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Its checkpoint holds the configuration without the fields too."""
    from mistnn.training import loop

    whole = loop.save_checkpoint

    def of_then(path: Path, step: Any, progress: Any, config: dict[str, Any]) -> None:
        plain = json.loads(json.dumps(config))
        for part, names in OF_0_1_0.items():
            content = plain["config"]["model"] if part == "model" else plain["config"]["experiment"][part]
            for name in names:
                del content[name]
        whole(path, step, progress, plain)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", of_then)
        assert train_tiny(tmp_path / "run") == 0
    as_of_0_1_0(tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run"), "--train.steps", "3"]) == 0
    capsys.readouterr()
    # With another value it is another training.
    assert train_tiny(tmp_path / "other") == 0
    words = ["train", "--resume", str(tmp_path / "other"), "--train.steps", "3", "--data.warp", "0.1"]
    assert main(words) == 2
    only_line(capsys.readouterr().err, "warp was 0.0 and is now 0.1")


def test_only_what_was_added_may_be_missing(tmp_path: Path) -> None:
    shutil.copytree(shipped_folder() / "mist-mnist-3", tmp_path / "old")
    config = read_config(tmp_path / "old")
    del config["experiment"]["step"]["objects_only"], config["experiment"]["step"]["inner_steps"]
    write_config(tmp_path / "old", config)
    with pytest.raises(MistError, match=r"missing key 'step.inner_steps'"):
        restore(tmp_path / "old")


def test_every_choice_of_systems_is_completed() -> None:
    """Read from its fields as they were, a configuration is of the same class as now."""
    converter = strict_converter()
    hints = get_type_hints(Experiment)
    for name in ("model", "data", "step"):
        for kind in get_args(hints[name]):
            content = json.loads(json.dumps(converter.unstructure(kind())))
            for field in ADDED.get(kind.__name__, {}):
                del content[field]
            assert converter.structure(completed(content, hints[name]), hints[name]) == kind()


def test_differences() -> None:
    old, new = {"step": {"order": "x"}}, {"step": {"order": "x", "objects_only": False}}
    assert first_difference(old, new) is None
    assert first_difference(old, {"step": {"order": "x", "objects_only": True}}) is not None
    assert first_difference(new, old) is not None, "a field that goes is a difference"
    assert is_added("scales", (1.0,)) and is_added("scales", [1.0]) and not is_added("scales", [1.0, 2.0])
    assert not is_added("order", "x")
