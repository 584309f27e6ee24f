"""The labelling page over HTTP, and in a browser where one is installed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.data.folder.content import read_folder
from mistnn.errors import MistError
from mistnn.inference import Predictor
from mistnn.models.mist.config import MistConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.web.labels import Labels
from mistnn.web.server import LabelServer
from tests.web.browser import chromium

NAMES = ("a.png", "b.png", "sub/c.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    for index, name in enumerate(NAMES):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60 + index), 40 * index, np.uint8)).save(path)
    return root


@contextlib.contextmanager
def serving(labels: Labels) -> Iterator[LabelServer]:
    with LabelServer(labels, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: LabelServer, path: str, content: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    own = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if content is None:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    else:
        connection.request("POST", path, json.dumps(content), own)
    answer = connection.getresponse()
    code, body = answer.status, answer.read()
    connection.close()
    return code, body


def rows(folder: Path) -> list[list[str]]:
    with (folder / "counts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_counts_are_written_as_they_come(folder: Path) -> None:
    with serving(Labels(folder, ["cell", "area"])) as server:  # a column "area" would be no class
        state = json.loads(ask(server, "/state")[1])
        assert [one["name"] for one in state["images"]] == list(NAMES) and state["classes"] == ["cell", "area"]
        assert ask(server, "/count", {"name": "a.png", "counts": [12, 0]})[0] == 200
        assert rows(folder) == [["a.png", "cell", "12"], ["a.png", "area", "0"]]
        ask(server, "/count", {"name": "sub/c.png", "counts": [3, 1]})
        ask(server, "/count", {"name": "a.png", "counts": [13, 0]})
        assert rows(folder)[0] == ["a.png", "cell", "13"]
        assert json.loads(ask(server, "/undo", {})[1]) == {"name": "a.png"}
        assert rows(folder)[0] == ["a.png", "cell", "12"]
        ask(server, "/undo", {})
        assert len(rows(folder)) == 2
    content = read_folder(folder)  # what training reads
    assert content.class_names == ("area", "cell")
    assert {one.name: one.counts for one in content.images}["a.png"] == (0, 12)
    again = Labels(folder)
    assert again.class_names == ("area", "cell") and again.counts == {"a.png": (0, 12)}
    assert [one.name for one in again.headers] == ["b.png", "sub/c.png", "a.png"]  # those without counts first


def test_requests_from_elsewhere_are_refused(folder: Path) -> None:
    with serving(Labels(folder)) as server:
        assert server.server_address[0] == "127.0.0.1"
        body = {"name": "a.png", "counts": [1]}
        assert ask(server, "/state", Host="evil.example")[0] == 403
        assert ask(server, "/count", body, Host="evil.example")[0] == 403
        assert ask(server, "/count", body, Origin="http://evil.example")[0] == 403
        assert ask(server, "/count", body, Content_Type="text/plain")[0] == 403
        for path, content in (("/", None), ("/image/0", None), ("/count", body)):
            assert ask(server, path, content, Sec_Fetch_Site="cross-site")[0] == 403
        assert not (folder / "counts.csv").exists()
        assert ask(server, "/image/0", Sec_Fetch_Site="same-origin")[0] == 200
        assert ask(server, "/count", body, Origin=server.url.rstrip("/"))[0] == 200


def test_only_images_by_number_are_served(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    shutil.copy(folder / "images" / "a.png", secret)
    (folder / "images" / "link.png").symlink_to(secret)
    labels = Labels(folder)
    assert [one.name for one in labels.headers] == list(NAMES) and "link.png" in labels.notes[0]
    with serving(labels) as server:
        code, body = ask(server, "/image/2")
        assert code == 200 and body.startswith(b"\x89PNG")
        refused = ("/image/3", "/image/-1", "/image/../../secret.png", "/images/a.png", "/../secret.png", "/counts.csv")
        assert [ask(server, path)[0] for path in refused] == [404] * len(refused)
        page = ask(server, "/")[1] + ask(server, "/label.js")[1] + ask(server, "/label.css")[1]
        assert b"http" not in page.replace(b"http.", b"")


def test_answers_are_for_the_page_only(folder: Path) -> None:
    with serving(Labels(folder)) as server, urllib.request.urlopen(server.url + "image/0") as answer:
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_deeply_nested_json_is_refused(folder: Path) -> None:
    with serving(Labels(folder)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("POST", "/count", "[" * 99_000, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (400, {"error": "the JSON is nested too deeply"})
        connection.close()


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"name": "a.png"}, {"name": "x.png", "counts": [1]}, *({"name": "a.png", "counts": c} for c in
     ([], [1, 2], [-1], [1.5], ["1"], [True], [10**7]))],
)  # fmt: skip
def test_wrong_counts_change_nothing(folder: Path, content: Any) -> None:
    with serving(Labels(folder)) as server:
        code, body = ask(server, "/count", "x" if content is None else content)
        assert code == 400 and json.loads(body)["error"]
    assert not (folder / "counts.csv").exists()


def test_a_failed_write_keeps_the_old_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Labels(folder)
    labels.set("a.png", [2])

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mistnn.web.labels.replace_file", full)
    with serving(labels) as server:
        code, body = ask(server, "/count", {"name": "a.png", "counts": [3]})
        assert code == 500 and "No space left" in json.loads(body)["error"]
    assert labels.counts == {"a.png": (2,)} and rows(folder) == [["a.png", "object", "2"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,cell,area\na,1,7\nb,2,9\n", "would lose them"),
        ("file,class,count,note\na,cell,1,x\n", "would lose them"),
        ("file,class,count\na,dog,1\n", "also counts dog: add them to the classes"),
        ("", "is empty: delete it"),
    ],
)
def test_tables_that_would_be_damaged_are_refused(folder: Path, text: str, words: str) -> None:
    (folder / "counts.csv").write_text(text, encoding="utf-8")
    with pytest.raises(MistError, match=words):
        Labels(folder, ["cell"])
    assert (folder / "counts.csv").read_text(encoding="utf-8") == text


def test_classes_are_named_as_the_table_is_read(folder: Path) -> None:
    assert Labels(folder, ["ce\u200bll ", "dirt"]).class_names == ("cell", "dirt")
    with pytest.raises(MistError, match="distinct names"):
        Labels(folder, ["cell", "cell\u200b"])


def test_names_that_look_like_formulas_or_are_no_utf8(folder: Path) -> None:
    latin = os.fsdecode(b"\xe9.png")
    for name in ("=1.png", "-a.png", latin):
        shutil.copy(folder / "images" / "a.png", folder / "images" / name)
    labels = Labels(folder, ["+ve", "@x"])
    with serving(labels) as server:
        for name in ("=1.png", "-a.png"):
            assert ask(server, "/count", {"name": name, "counts": [1, 2]})[0] == 200
        assert rows(folder)[:2] == [["'-a.png", "'+ve", "1"], ["'-a.png", "'@x", "2"]]
        content = read_folder(folder)  # what training reads
        assert content.class_names == ("+ve", "@x")
        assert {one.name: one.counts for one in content.images}["=1.png"] == (1, 2)
        assert ask(server, "/count", {"name": latin, "counts": [3, 4]})[0] == 200
    assert b"\n\xe9.png,'+ve,3\n" in (folder / "counts.csv").read_bytes()
    assert Labels(folder).counts == {"=1.png": (1, 2), "-a.png": (1, 2), latin: (3, 4)}


def test_another_program_changes_the_table(folder: Path) -> None:
    labels = Labels(folder, ["cell", "dirt"])
    with serving(labels) as server:
        ask(server, "/count", {"name": "a.png", "counts": [1, 0]})
        other = "file,class,count\na.png,cell,5\nb.png,dirt,6\n"
        (folder / "counts.csv").write_text(other, encoding="utf-8")
        for path, content in (("/count", {"name": "sub/c.png", "counts": [2, 2]}), ("/undo", {})):
            code, body = ask(server, path, content)
            assert code == 500 and json.loads(body)["error"].endswith("nothing was saved: reload the page")
        assert (folder / "counts.csv").read_text(encoding="utf-8") == other
        images = {one["name"]: one["counts"] for one in json.loads(ask(server, "/state")[1])["images"]}
        assert images == {"a.png": [5, 0], "b.png": [0, 6], "sub/c.png": None}
        assert json.loads(ask(server, "/undo", {})[1]) == {"name": None}
        assert ask(server, "/count", {"name": "sub/c.png", "counts": [2, 2]})[0] == 200
        assert rows(folder)[:2] == [["a.png", "cell", "5"], ["a.png", "dirt", "0"]]
        (folder / "counts.csv").write_text("file,class,count\na.png,dog,5\n", encoding="utf-8")
        code, body = ask(server, "/state")
        assert code == 500 and "also counts dog" in json.loads(body)["error"]


def test_two_tabs(folder: Path) -> None:
    """Each sends the counts that it shows; one that shows others than are known saves nothing."""
    with serving(Labels(folder, ["red", "blue"])) as server:
        assert ask(server, "/count", {"name": "a.png", "counts": [5, 0], "before": None})[0] == 200
        code, body = ask(server, "/count", {"name": "a.png", "counts": [0, 0], "before": None})
        assert code == 400 and b"a.png was counted elsewhere meanwhile, so nothing was saved: reload" in body
        assert ask(server, "/count", {"name": "a.png", "counts": [6, 1], "before": [5, 0]})[0] == 200
    assert rows(folder) == [["a.png", "red", "6"], ["a.png", "blue", "1"]]


def test_undo_of_all_leaves_no_table(folder: Path) -> None:
    labels = Labels(folder)
    labels.set("a.png", [1])
    assert labels.undo() == "a.png" and not (folder / "counts.csv").exists()
    labels.set("a.png", [2])
    assert Labels(folder).counts == {"a.png": (2,)}


@pytest.mark.parametrize("name", ["counts.tsv", "counts.xlsx", "Counts.csv", "images/counts.csv"])
def test_counts_in_other_tables_are_not_replaced(folder: Path, name: str) -> None:
    if name == "Counts.csv" and (folder / "IMAGES").exists():
        pytest.skip("this file system ignores the case of names")
    (folder / name).write_text("file\tcount\na\t1\n", encoding="utf-8")
    with pytest.raises(MistError, match=rf"{name} holds the counts of this folder: save it as .*counts\.csv"):
        Labels(folder)
    if name != "Counts.csv":  # the others are not read beside counts.csv
        (folder / "counts.csv").write_text("file,count\nb,2\n", encoding="utf-8")
        assert Labels(folder).counts == {"b.png": (2,)}


def test_counts_of_annotations_are_not_replaced(folder: Path) -> None:
    (folder / "boxes.json").write_text('[{"file": "a.png", "boxes": [[1, 2, 3, 4]]}]', encoding="utf-8")
    with pytest.raises(MistError, match=r"come from boxes\.json .*move the annotations elsewhere"):
        Labels(folder)
    (folder / "boxes.json").unlink()
    (folder / "labels.csv").write_text("file,class\na,cell\n", encoding="utf-8")
    assert "labels.csv isn't used any more" in Labels(folder).notes[0]


def test_only_one_session(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"from mistnn.web.labels import session\nwith session(__import__('pathlib').Path({str(folder)!r})):"
    command = [sys.executable, "-c", code + "\n    print('open', flush=True)\n    input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert main(["label", str(folder), "--port", "0"]) != 0
        other.communicate("\n")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].endswith("is in use by another mist label, or another command: end that first")
    missing = folder / "missing"
    assert main(["label", str(missing)]) != 0 and not missing.exists()


def test_splits_stay(folder: Path) -> None:
    lines = "".join(f"{name},cell,1,{split}\n" for name, split in zip(NAMES, ("train", "test", "train"), strict=True))
    (folder / "counts.csv").write_text("file,class,count,split\n" + lines, encoding="utf-8")
    labels = Labels(folder)
    labels.set("b.png", [5])
    assert rows(folder)[1] == ["b.png", "cell", "5", "test"]
    assert {one.name: one.split for one in read_folder(folder).images}["b.png"] == "test"


def test_splits_of_images_without_counts_stay(folder: Path) -> None:
    """Rows without a number are kept, also when no image has counts any more; new images are for training."""
    table = folder / "counts.csv"
    table.write_text("file,count,split\na.png,,test\nb.png,,validation\n", encoding="utf-8")
    labels = Labels(folder, ["cell"])
    assert not labels.counts and "sub/c.png: they are for training" in labels.notes[0]
    labels.set("a.png", [3])
    expected = [["a.png", "cell", "3", "test"], ["b.png", "cell", "", "validation"], ["sub/c.png", "cell", "", "train"]]
    assert rows(folder) == expected
    again = read_folder(folder)
    assert {one.name: (one.split, one.counts) for one in again.images} == {
        "a.png": ("test", (3,)),
        "b.png": ("validation", None),
        "sub/c.png": ("train", None),
    }
    assert any("b.png, sub/c.png: no number in the row, so not counted" in note for note in again.notes)
    labels.undo()
    labels = Labels(folder, ["cell"])
    assert not labels.counts and labels.splits == {"a.png": "test", "b.png": "validation", "sub/c.png": "train"}


@pytest.mark.parametrize(
    "text",
    [
        "file,red,green,split\na.png,,,train\nb.png,,,test\nsub/c.png,,,train\n",
        "file,class,count\na.png,red,\na.png,green,\n",
        "file,red,green\na.png,,\n",
    ],
)
def test_classes_of_a_table_without_numbers_stay(folder: Path, text: str) -> None:
    (folder / "counts.csv").write_text(text, encoding="utf-8")
    labels = Labels(folder)
    assert set(labels.class_names) == {"red", "green"} and not labels.counts
    labels.set("a.png", [1, 2])
    labels.undo()
    if "split" in text:
        assert set(Labels(folder).class_names) == {"red", "green"}
        assert len(rows(folder)) == 6 and {row[3] for row in rows(folder) if row[0] == "b.png"} == {"test"}


def test_an_image_called_columns_is_no_lost_column(folder: Path) -> None:
    (folder / "images" / "a.png").rename(folder / "images" / "columns_1.png")
    (folder / "counts.csv").write_text("file,class,count\ncolumns_1.png,x,\nb.png,x,3\n", encoding="utf-8")
    assert Labels(folder).counts == {"b.png": (3,)}


class Model(Predictor):
    """A predictor that counts by brightness, or finds K objects in every image."""

    def __init__(self, names: tuple[str, ...] = ("cell", "dirt"), finds_k: bool = False) -> None:
        config = MistConfig(class_names=() if finds_k else names, k=4, patch_size=32, heatmap=HeatmapConfig(channels=2))
        super().__init__(dataclasses.replace(config, decoder=2 if finds_k else 0).build())

    def predict(self, image: Any, k: int | None = None) -> Any:
        n = round(float(image.mean()) * 10)
        return SimpleNamespace(counts={"cell": n, "dirt": 1}, count_intervals={"cell": (0, 2 * n), "dirt": (1, 1)})


def test_uncertain_images_come_first(folder: Path) -> None:
    labels = Labels(folder, ["dirt", "cell"])
    labels.guess_with(Model())
    assert [one.name for one in labels.headers] == ["sub/c.png", "b.png", "a.png"]
    assert labels.guesses["sub/c.png"].counts == (1, 3)
    assert not labels.counts  # a guess is no label until it is saved
    for wrong, words in ((Model(("x",)), "the same classes"), (Model(finds_k=True), "can't count")):
        with pytest.raises(MistError, match=words):
            labels.guess_with(wrong)


class Scores(Predictor):
    """A predictor without intervals; its scores depend on the brightness of the image."""

    scores = ((0.9, 0.8), (0.99, 0.51, 0.49, 0.26, 0.24, 0.01), (1.0, 0.3, 0.25, 0.2))

    def __init__(self) -> None:
        config = MistConfig(
            class_names=("object",), k=4, patch_size=32, threshold=0.5, heatmap=HeatmapConfig(channels=2, blocks=0)
        )
        super().__init__(config.build())

    def predict(self, image: Any, k: int | None = None) -> Any:
        of_image = torch.tensor(self.scores[round(float(image.mean()) * 255 / 40)])
        shown = of_image[of_image > self.model.threshold] if k is None else of_image[:k]
        return SimpleNamespace(counts={"object": len(shown)}, count_intervals={}, scores=shown)


def test_doubt_without_intervals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Scores()
    monkeypatch.setattr(predictor.model, "limit", lambda height, width: 6)
    labels = Labels(folder)
    labels.guess_with(predictor)  # scores strictly between 0.25 and 1 are near the threshold
    assert labels.guesses == {"a.png": ((2,), 2.0), "b.png": ((2,), 4.0), "sub/c.png": ((1,), 1.0)}
    assert [one.name for one in labels.headers] == ["b.png", "a.png", "sub/c.png"]


def until(page: Any, expression: str) -> None:
    """Waits until an expression is true; not by Playwright, whose way the page's security policy refuses."""
    end = time.monotonic() + 30
    while not page.evaluate(f"() => {expression}"):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


@pytest.mark.slow
def test_in_a_browser(folder: Path, tmp_path: Path) -> None:
    playwright, path = chromium()
    labels = Labels(folder, ["cell", "dirt"])
    with serving(labels) as server, playwright() as runner:
        browser = runner.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        until(page, "document.activeElement.tagName === 'INPUT'")
        page.keyboard.type("12")
        page.keyboard.press("ArrowDown")
        page.keyboard.type("3")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('name').textContent === 'b.png'")
        assert labels.counts == {"a.png": (12, 3)}
        assert rows(folder) == [["a.png", "cell", "12"], ["a.png", "dirt", "3"]]
        page.keyboard.type("7x")  # letters are no part of a number
        page.keyboard.press("Enter")
        until(page, "document.getElementById('name').textContent === 'sub/c.png'")
        assert labels.counts["b.png"] == (7, 0)
        assert page.text_content("#progress") == "Image 3 of 3; 2 counted"
        page.keyboard.press("u")
        until(page, "document.getElementById('name').textContent === 'b.png'")
        assert "b.png" not in labels.counts
        until(page, "document.getElementById('image').naturalWidth === 61")
        page.keyboard.press("z")
        assert page.get_attribute("#zoom", "aria-pressed") == "true"
        if folder_of_pictures := os.environ.get("MIST_SCREENSHOTS"):
            page.screenshot(path=str(Path(folder_of_pictures) / "label.png"))
        browser.close()
    assert not wrong
    assert all(url.startswith((server.url, "data:")) for url in asked)
