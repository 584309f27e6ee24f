"""The study of photographs: splits by names, and a run on tiny images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.photos import main, with_known, with_test_images
from mistnn.data.folder.content import read_folder
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
    monkeypatch.setattr(sys, "argv", ["x", *given, "--test", "nothing"])
    with pytest.raises(SystemExit):
        main()
    assert "no test image has counts" in capsys.readouterr().err
