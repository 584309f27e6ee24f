"""The pages about counting: of a folder with counts, and of a prediction without; whole, escaped, self-contained."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.inference.judged import JudgedScene, right_by_centre
from mistnn.records import Detections
from mistnn.reports.count_page import (
    LONGEST_SIDE,
    Compared,
    CountPage,
    Example,
    Table,
    compared_in_words,
    in_words,
    render_counts,
    shrunk,
    signed,
)
from tests.cli.runs import only_line
from tests.data.folders import make_folder
from tests.reports.test_demo_page import EVIL, Page

SMALL = (
    "--train.steps", "2", "--train.batch-size", "2", "--train.evaluate-every", "0", "--model.heatmap.channels", "4",
    "--model.heatmap.blocks", "1", "--model.encoder.width", "4", "--model.encoder.code", "8", "--model.decoder", "4",
)  # fmt: skip
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty scenes with counts, and boxes for some of them."""
    root = make_folder(tmp_path_factory.mktemp("own") / "digits", 24)
    boxes = [
        {"file": f"{index:03}.png", "boxes": [[0, 0, 96, 96]], "labels": ["zero"], "width": 96, "height": 96}
        for index in range(24)
    ]
    (root / "boxes.json").write_text(json.dumps(boxes))
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "my-folder", "--data-root", str(folder), "--out", str(out), *SMALL]) == 0
    return out


def _alone(text: str) -> Page:
    """The page, after it was checked that it needs nothing from elsewhere."""
    assert not re.search(r"(?:src|href|srcset)=\"(?!data:)", text) and "://" not in text and "url(" not in text
    page = Page(text)
    assert all(dict(attributes).get("alt") for tag, attributes in page.tags if tag == "img")
    return page


def test_a_folder(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--data-root", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "predicting the mean of the training images would give" in said
    page = _alone(out.read_text(encoding="utf-8"))
    assert page.headings == [
        "Predicted and true counts", "Examples", "Heat maps", "The numbers", "Are the boxes in the right places?",
        "Image by image", "How to repeat it",
    ]  # fmt: skip
    words = " ".join(page.text)
    assert "all classes" in words and "precision" in words and f"mist report {run} --data-root {folder}" in words
    with (folder / "counts.csv").open() as file:
        true = {(row["file"], row["class"]): row["count"] for row in csv.DictReader(file)}
    rows = re.findall(r'<th scope="row">(\d+\.png)</th>((?:<td class="value">[^<]*</td>)+)', out.read_text())
    assert rows
    for name, cells in rows:
        for label, cell in zip(("one", "two", "zero"), re.findall(r">(\d+ of \d+)<", cells), strict=True):
            assert cell.endswith(f" of {true[name, label]}"), "the counts of the table"


def test_it_falls_back_to_another_split(run: Path, tmp_path: Path, capsys: Captured) -> None:
    root = make_folder(tmp_path / "own", 8)
    lines = (root / "counts.csv").read_text().splitlines()
    for split, other, word in (("val", "train", "validation"), ("train", "train", "trained on these very images")):
        rows = [f"{line},{split if line < '004' else other}" for line in lines[1:]]
        (root / "counts.csv").write_text("\n".join([f"{lines[0]},split", *rows]))
        arguments = ["report", str(run), "--data-root", str(root), "--out", str(tmp_path / "a.html")]
        assert main(arguments) == 0
        assert "has no test images with counts" in (said := capsys.readouterr().out) and word in said
        assert "has no test images" in (tmp_path / "a.html").read_text()


def test_mistakes(run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    for arguments, words in (
        (["--data-root", str(folder), "--out", "x.png"], ["--out=x.png", ".html"]),
        (["--data-root", str(folder), "--out", "gone/x.html"], ["folder that exists"]),
        (["--out", str(tmp_path / "a.html")], ["--data-root", "must be given"]),
        (["--data-root", str(tmp_path / "gone")], ["no such folder"]),
        (["--data-root", str(folder), "--split", "train"], ["--split", "'train'"]),
    ):
        assert main(["report", str(run), *arguments]) == 2
        only_line(capsys.readouterr().err, *words)
    out = ["--out", str(tmp_path / "a.html")]
    assert main(["report", "mist-mnist-3", "--data-root", str(folder), *out]) == 2
    only_line(capsys.readouterr().err, "mist-mnist-3 was not trained on a folder")
    other = make_folder(tmp_path / "other", 6)
    (other / "counts.csv").write_text("file,cell\n000,1\n001,2\n002,2\n003,2\n004,2\n005,2\n")
    assert main(["report", str(run), "--data-root", str(other), *out]) == 2
    only_line(capsys.readouterr().err, "has the classes cell", "zero")
    (other / "counts.csv").rename(other / "labels.csv")
    (other / "labels.csv").write_text("file,class\n000,one\n001,two\n002,zero\n")
    assert main(["report", str(run), "--data-root", str(other), *out]) == 2
    only_line(capsys.readouterr().err, "no image has counts")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("model", ["folder", "mist-mnist-3", "mist-discover-mnist-hard"])
def test_a_prediction(model: str, run: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    out, images = tmp_path / "out", tmp_path / "images"
    images.mkdir()
    for path in (folder / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "broken.png").write_text("no image")
    name = str(run) if model == "folder" else model
    assert main(["predict", name, str(images), "--out", str(out), "--report", "--k", "3"]) == 1
    text = (out / "predicted.html").read_text(encoding="utf-8")
    page = _alone(text)
    words = " ".join(page.text)
    assert page.headings == [
        "Distribution of the counts", "Examples", "Heat maps", "Image by image", "How to repeat it"
    ]  # fmt: skip
    assert "72 objects in 24 images" in words and "broken.png was skipped" in words and "mist predict" in words
    assert len(re.findall(r'<th scope="row">\d+\.png</th>', text)) == 24
    assert main(["predict", name, str(images), "--out", str(out)]) == 2
    only_line(capsys.readouterr().err.splitlines()[-1], "predicted.html", "--force")
    assert main(["predict", name, str(images), "--out", str(out), "--force"]) == 1
    assert not (out / "predicted.html").exists(), "of the earlier run"


def test_a_prediction_of_one_image_and_of_none(run: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.radial_gradient("L").resize((90, 70)).save(image)
    assert main(["predict", str(run), str(image), "--out", str(tmp_path / "one"), "--report"]) == 0
    assert "All images" in (tmp_path / "one" / "predicted.html").read_text()
    image.write_text("no image")
    assert main(["predict", str(run), str(image), "--out", str(tmp_path / "none"), "--report"]) == 1
    assert "0 objects in 0 images" in (tmp_path / "none" / "predicted.html").read_text()


def test_everything_is_escaped() -> None:
    found = Detections(torch.tensor([[4.0, 4, 4, 4]]), torch.tensor([1.0]), torch.tensor([0]))
    example = Example(EVIL, JudgedScene(torch.rand(3, 8, 8), found), EVIL, EVIL, False, torch.rand(8, 8))
    page = CountPage(
        EVIL, EVIL, (EVIL,), (EVIL,), EVIL, {EVIL: Compared([1], [2], 1.5)}, {EVIL: {1: 2}}, {EVIL: [example]},
        [example], Table((EVIL,), [(EVIL,)]), Table((EVIL, EVIL), [(EVIL, EVIL)]), Table((EVIL,), [(EVIL,)]), 3, EVIL,
        {EVIL: EVIL},
    )  # fmt: skip
    text = render_counts(page)
    assert EVIL not in text and "<b>" not in text
    assert "3 more images are not shown" in " ".join(_alone(text).text)


def test_words() -> None:
    assert in_words([2, 0, 1], ["a", "b", "c"]) == "2 a, 1 c" and in_words([0], ["a"]) == "nothing"
    assert compared_in_words([2, 0, 1], [2, 3, 0], ["a", "b", "c"]) == "b: 3 too few, c: 1 too many"
    assert compared_in_words([2], [2], ["a"]) == "all correct"
    assert [signed(value) for value in (0.001, -0.001, 0.5, -2)] == ["0.00", "0.00", "+0.50", "-2.00"]


def test_right_by_centre() -> None:
    """The true box of two found ones counts once; another class and a centre outside don't."""
    found = Detections(
        torch.tensor([[10.0, 10, 4, 4], [12, 10, 4, 4], [30, 30, 4, 4], [50, 50, 4, 4]]),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([0, 0, 0, 1]),
    )
    boxes = torch.tensor([[11.0, 10, 8, 8], [38, 30, 10, 10], [50, 50, 10, 10]])
    right = right_by_centre(found, boxes, torch.tensor([0, 0, 0])).tolist()
    assert sum(right[:2]) == 1 and right[2:] == [False, False]
    assert right_by_centre(found, boxes, None).tolist()[3]
    assert right_by_centre(found, torch.zeros(0, 4), None).tolist() == [False] * 4


def test_large_pictures_are_shrunk_with_their_boxes() -> None:
    found = Detections(torch.tensor([[500.0, 1000, 20, 40]]), torch.tensor([1.0]))
    small = shrunk(JudgedScene(torch.rand(3, 4 * LONGEST_SIDE, 100), found, found.boxes))
    assert small.image.shape == (3, LONGEST_SIDE, 25)
    assert small.detections.boxes.tolist() == [[125.0, 250, 5, 10]] and small.boxes is not None
    assert shrunk(small) is small
