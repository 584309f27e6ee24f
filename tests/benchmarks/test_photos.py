"""The study of photographs: splits by names, and a run on tiny images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photos import chosen_images, drawing, main, with_known, with_test_images
from mistnn.data.folder.content import read_folder
from mistnn.errors import MistError
from mistnn.reproduce.ledger import read_ledger
from tests.experiments.test_photos import draw


def test_splits_by_name(tmp_path: Path) -> None:
    folder = read_folder(draw(tmp_path / "own", 30))
    splits = {image.name: image.split for image in with_test_images(folder, "2").images}
    assert {name for name, split in splits.items() if split == "test"} == {name for name in splits if "2" in name}
    assert {"train", "validation"} <= set(splits.values())
    assert splits == {image.name: image.split for image in with_test_images(folder, "2").images}


def test_only_some_images_are_known(tmp_path: Path) -> None:
    folder = read_folder(draw(tmp_path / "own", 30))
    few, more = with_known(folder, 5), with_known(folder, 12)
    names = [{image.name for image in one.images} for one in (few, more)]
    test = {image.name for image in folder.images if image.split == "test"}
    assert len(test) == 3 and all(test <= one for one in names)
    assert (len(names[0]), len(names[1])) == (8, 15) and names[0] < names[1]


def test_images_are_left_out_by_name(tmp_path: Path) -> None:
    root = str(draw(tmp_path / "own", 30))
    every, some = (chosen_images(root, None, None, word) for word in (None, "2"))
    assert {image.name for image in some.images} == {image.name for image in every.images if "2" not in image.name}
    with pytest.raises(MistError, match="--leave-out zebra: no file name holds it"):
        chosen_images(root, None, None, "zebra")


def test_a_run_becomes_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data-root", str(draw(tmp_path / "own")), "--ledger", str(tmp_path / "results"), "--name", "own"]
    given += ["--runs", str(tmp_path / "runs"), "--seeds", "1", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["x", *given])
    main()
    (entry,) = read_ledger(tmp_path / "results")
    assert entry.name == "photos-own" and entry.steps == 2 and entry.images == 3
    assert {"count_error", "count_error:disc", "count_error_mean", "objects"} <= entry.metrics.keys()
    assert "--name own --steps 2 --seeds 1" in entry.command and str(tmp_path) not in entry.command
    folder = read_folder(tmp_path / "own")
    with pytest.raises(MistError, match="no test image has boxes"):
        drawing(tmp_path / "runs" / "photos-own-seed0", folder)
    boxes, labels = np.array([[30.0, 30, 20, 20]]), np.array([1])
    boxed = folder._replace(images=tuple(one._replace(boxes=boxes, labels=labels) for one in folder.images))
    assert drawing(tmp_path / "runs" / "photos-own-seed0", boxed, 2).size[0] > 300
    monkeypatch.setattr(sys, "argv", ["x", *given, "--test", "nothing"])
    with pytest.raises(SystemExit):
        main()
    assert "no test image has counts" in capsys.readouterr().err
