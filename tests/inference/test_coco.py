from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from mistnn.cli.main import main
from mistnn.inference.coco import NOTHING_YET, coco_file
from mistnn.records import Detections
from tests.data.folders import make_folder


def test_the_official_reader_understands_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    found = Detections(torch.tensor([[10.0, 20, 8, 6], [1, 2, 2, 2]]), torch.tensor([0.9, 0.5]), torch.tensor([1, 0]))
    with coco_file(tmp_path / "a.json", ("cell", "dust")) as writer:
        writer.add('ü "1".png', 64, 48, found)
        writer.add("empty.png", 32, 32, Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)))
    read = COCO(tmp_path / "a.json")
    assert read.loadImgs(1)[0] == {"id": 1, "file_name": 'ü "1".png', "width": 64, "height": 48}
    assert len(read.getImgIds()) == 2 and len(read.getAnnIds(imgIds=[2])) == 0
    first = read.loadAnns(read.getAnnIds(imgIds=[1]))[0]
    assert first["bbox"] == [6, 17, 8, 6] and read.loadCats(first["category_id"])[0]["name"] == "dust"


def test_nothing_found_without_classes(tmp_path: Path) -> None:
    with coco_file(tmp_path / "a.json", ()):
        pass
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {"categories": [{"id": 1, "name": "object"}], "images": [], "annotations": []}


def test_an_error_leaves_no_file_and_one_can_go_on(tmp_path: Path) -> None:
    found = Detections(torch.tensor([[10.0, 20, 8, 6]]), torch.tensor([0.9]), torch.tensor([1]))
    names = ["a.png", "b.png", "c.png"]
    for path, stops in ((tmp_path / "whole.json", (3,)), (tmp_path / "parts.json", (1, 3))):
        begun = NOTHING_YET
        for stop in stops:
            with contextlib.suppress(RuntimeError), coco_file(path, ("x", "y"), begun) as writer:
                for name in names[begun.images : stop]:
                    writer.add(name, 64, 48, found)
                begun = writer.counts
                assert begun == (stop, stop)
                if stop < 3:
                    raise RuntimeError
            assert path.exists() == (stop == 3)
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "parts.json").read_bytes()


def test_the_command_writes_the_same_as_the_table(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", 3, 1) / "images"
    out = tmp_path / "out"
    assert main(["predict", "mist-mnist-3", str(folder), "--out", str(out), "--coco"]) == 0
    content = json.loads((out / "detections.json").read_text())
    assert len(content["annotations"]) == len((out / "detections.csv").read_text().splitlines()) - 1 == 9
    assert [one["file_name"] for one in content["images"]] == ["000.png", "001.png", "002.png"]
    assert main(["predict", "mist-mnist-3", str(folder), "--out", str(out), "--force"]) == 0
    assert not (out / "detections.json").exists(), "of an earlier run"
