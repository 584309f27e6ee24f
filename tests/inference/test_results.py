"""The results of a prediction: the page is one of them, and none of them is ever taken for an image or a truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mistnn.cli.main import main
from mistnn.data.folder.content import read_folder
from mistnn.data.images import find_images, holds_results
from mistnn.errors import MistError
from mistnn.inference import Predictor, PredictSummary, predict_folder
from tests.cli.runs import only_line
from tests.inference.fakes import FakeDetector

PAGE = "predicted.html"


def pictures(root: Path, many: int = 3) -> Path:
    (root / "images").mkdir(parents=True)
    for index in range(many):
        image = Image.new("L", (24, 20))
        image.putpixel((index * 2, index), 255)
        image.save(root / "images" / f"{index}.png")
    return root


def page(results: Path, summary: PredictSummary) -> bytes:
    rows = (results / "detections.csv").read_text().count("\n") - 1
    assert rows == summary.detections and (results / "detections.json").exists()
    return f"{summary.images} images, {rows} objects".encode()


def test_the_page_comes_with_the_tables(tmp_path: Path) -> None:
    root, out = pictures(tmp_path / "in"), tmp_path / "out"
    predict_folder(Predictor(FakeDetector()), [root], out, 2, coco=True, report=page)
    assert (out / PAGE).read_text() == "3 images, 6 objects"
    predict_folder(Predictor(FakeDetector()), [root], out, 1, coco=True, force=True)
    assert not (out / PAGE).exists(), "an old page goes with the old results"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("a defect")])
def test_stopped_at_the_page(tmp_path: Path, error: BaseException) -> None:
    """Nothing is published; what was predicted is kept, and isn't predicted again."""

    def stopped(results: Path, summary: PredictSummary) -> bytes:
        raise error

    root, out = pictures(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(MistError if isinstance(error, OSError) else type(error)):
        predict_folder(Predictor(FakeDetector()), [root], out, 2, coco=True, report=stopped)
    assert [path.name for path in out.iterdir()] == [".predict.part"]
    with pytest.raises(MistError, match="--report was on at the start and is off now"):
        predict_folder(Predictor(FakeDetector()), [root], out, 2, coco=True, resume=True)
    model = FakeDetector()
    summary = predict_folder(Predictor(model), [root], out, 2, coco=True, resume=True, report=page)
    assert not model.seen and summary.images == 3
    whole = tmp_path / "whole"
    predict_folder(Predictor(FakeDetector()), [root], whole, 2, coco=True, report=page)
    for path in whole.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()


def test_results_below_the_images_are_no_images(tmp_path: Path) -> None:
    """Neither for a later prediction, nor for a training; a folder of the user's that is called alike is."""
    root = pictures(tmp_path / "in")
    for out in (root / "images" / "found", root / "images"):
        predict_folder(Predictor(FakeDetector()), [root / "images"], out, 2)
        assert holds_results(out) and (out / "overlays" / "0.png").exists()
    wanted = ["0.png", "1.png", "2.png"]
    assert [file.name for file in find_images([root / "images"])] == wanted
    assert predict_folder(Predictor(FakeDetector()), [root], tmp_path / "again", 2).images == 3
    assert not holds_results(root)
    (root / "images" / "counts.csv").unlink()
    assert [image.name for image in read_folder(root).images] == wanted
    mine = pictures(tmp_path / "mine") / "images"
    mine.rename(tmp_path / "mine" / "overlays")
    (tmp_path / "mine" / "detections.csv").write_text("my own table\n")
    assert len(find_images([tmp_path / "mine"])) == 3


def test_what_a_model_counted_is_noted(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in")
    predict_folder(Predictor(FakeDetector()), [root / "images"], root / "images", 2)
    assert any("counts that a model predicted are not ground truth" in note for note in read_folder(root).notes)


def test_counts_of_ones_own_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "in")
    (root / "counts.csv").write_text("file,count\n0.png,1\n")
    for force in ([], ["--force"]):
        words = ["predict", "mist-mnist-3", str(root / "images"), "--out", str(root), "--k", "2", *force]
        assert main(words) == 2
        only_line(capsys.readouterr().err, "--out", "counts.csv", "give another folder")
    assert (root / "counts.csv").read_text() == "file,count\n0.png,1\n"
    assert sorted(path.name for path in root.iterdir()) == ["counts.csv", "images"]
