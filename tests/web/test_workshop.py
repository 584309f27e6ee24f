"""What the page of ``mist app`` works on, without the page."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mistnn.data import read_folder
from mistnn.errors import MistError
from mistnn.experiments import describe
from mistnn.presets import find_preset
from mistnn.web.trainings import time_left
from mistnn.web.workshop import Workshop
from tests.web.squares import draw


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path / "mine", tmp_path / "results")
    shop.images.add([draw(tmp_path / "up" / f"{index}.png", 1 + index % 4, index) for index in range(12)])
    return shop


def counted(shop: Workshop, number: int = 10) -> None:
    shop.images.save_rows([[f"{index}.png", 1 + index % 4] for index in range(number)])


def on_disk(shop: Workshop) -> list[dict[str, str]]:
    with (shop.images.root / "counts.csv").open() as file:
        return list(csv.DictReader(file))


def test_an_empty_folder_is_made_and_says_what_to_do(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "new", tmp_path / "results")
    assert (
        shop.images.root.is_dir()
        and shop.images.rows() == []
        and shop.training.progress().state == "none"
        and shop.training.watch() == []
    )
    for action in (
        shop.train,
        shop.training.go_on,
        shop.training.stop,
        lambda: shop.predict(True),
        lambda: shop.images.save_rows([]),
    ):
        with pytest.raises(MistError):
            action()
    with pytest.raises(MistError, match="elsewhere"):
        Workshop(tmp_path / "new", tmp_path / "new" / "results")


def test_uploads(shop: Workshop, tmp_path: Path) -> None:
    text, broken = tmp_path / "up" / "notes.txt", tmp_path / "up" / "broken.png"
    text.write_text("notes")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    other = draw(tmp_path / "others" / "0.png", 9)
    found = "\n".join(shop.images.add([text, broken, other, tmp_path / "up" / "1.png"]))
    assert "notes.txt was not added: it is neither" in found and "broken.png was not added" in found
    assert "0.png was not added: another image has this name" in found and "1.png was not added: it is there" in found
    assert len(shop.images.rows()) == 12
    assert (shop.images.root / "0.png").read_bytes() == (tmp_path / "up" / "0.png").read_bytes()


def test_of_two_files_of_one_name_the_first_is_kept(shop: Workshop, tmp_path: Path) -> None:
    first, second = draw(tmp_path / "a" / "new.png", 3), draw(tmp_path / "b" / "new.png", 7)
    said = shop.images.add([first, second])
    assert said == ["1 image added", "new.png was not added: another image has this name: rename it"]
    assert (shop.images.root / "new.png").read_bytes() == first.read_bytes()


def test_a_table_that_cannot_be_read_keeps_nothing_else_back(shop: Workshop, tmp_path: Path) -> None:
    wrong, right = tmp_path / "wrong.csv", tmp_path / "right.csv"
    wrong.write_text("foo,bar\n1,2\n")
    right.write_text("file,cells\n0.png,3\nnew.png,5\n")
    said = shop.images.add([wrong, right, draw(tmp_path / "new.png", 5)])
    assert said[0] == "1 image added" and said[1].startswith("no counts were read: wrong.csv, row 1: no column")
    assert said[2] == "counts of 2 images read from right.csv" and len(shop.images.rows()) == 13
    alone = Workshop(tmp_path / "empty", tmp_path / "elsewhere")
    assert alone.images.add([right]) == [
        "no counts were read: add the images first, and then the table of their counts"
    ]


def test_tables_are_joined(shop: Workshop, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("file,cells\n0.png,3\n1.png,4\n")
    assert "counts of 2 images read" in "".join(shop.images.add([table]))
    assert shop.images.class_names == ("cells",)
    table.write_text("file;dirt\n1.png;2\n2.png;1\n")
    shop.images.add([table])
    assert shop.images.class_names == ("cells", "dirt")
    assert {row[0]: row[1:] for row in shop.images.rows() if row[1] != ""} == {
        "0.png": [3, 0],
        "1.png": [4, 2],
        "2.png": [0, 1],
    }
    again = Workshop(shop.images.root, shop.out)
    assert again.images.rows() == shop.images.rows()


@pytest.mark.parametrize("wrong", ["many", "-1", "2.5", "1e400", "1e9", "nan", "1e2", "1_000"])
def test_what_is_no_count_is_refused_and_nothing_is_changed(shop: Workshop, wrong: str) -> None:
    counted(shop)
    before = on_disk(shop)
    with pytest.raises(MistError, match=r"3\.png"):
        shop.images.save_rows([["0.png", 7], ["3.png", wrong]])
    assert on_disk(shop) == before


def test_rows(shop: Workshop) -> None:
    shop.images.name_classes("cell, dirt")
    with pytest.raises(MistError, match=r"0\.png: no number for dirt: write 0 if there is none"):
        shop.images.save_rows([["0.png", 3.0, None]])
    shop.images.save_rows([["0.png", 3.0, 0], ["1.png", "", ""], ["2.png", " 4 ", "1"]])
    rows = {row[0]: row[1:] for row in shop.images.rows()}
    assert rows["0.png"] == [3, 0] and rows["1.png"] == ["", ""] and rows["2.png"] == [4, 1]
    shop.images.save_rows([["0.png", "", ""]])
    assert {row["file"] for row in on_disk(shop)} == {"2.png"}
    with pytest.raises(MistError, match="no image is called"):
        shop.images.save_rows([["../0.png", 1, 1]])
    for wrong, why in {"cell": "also counts dirt: add them to the classes", "dirt, dirt": "distinct"}.items():
        with pytest.raises(MistError, match=why) as error:
            shop.images.name_classes(wrong)
        assert "--" not in str(error.value)  # the page has no options
    with pytest.raises(MistError):
        shop.images.name_classes(" , ")
    assert shop.images.picture("0.png").size == (64, 64)
    with pytest.raises(MistError):
        shop.images.picture("../../secret.png")


def test_splits_of_a_table_that_is_added_stay(shop: Workshop, tmp_path: Path) -> None:
    table = tmp_path / "up" / "counts.csv"
    table.write_text("file,count,split\n0.png,2,test\n1.png,1,train\n2.png,,validation\n")
    shop.images.add([table])
    shop.images.save_rows([["1.png", 5]])
    found = {image.name: (image.split, image.counts) for image in read_folder(shop.images.root).images}
    assert found["0.png"] == ("test", (2,)) and found["1.png"] == ("train", (5,))
    assert found["2.png"] == ("validation", None) and found["3.png"] == ("train", None)
    more = draw(tmp_path / "up" / "12.png", 2)
    assert shop.images.add([more]) == ["1 image added"], "a folder with splits takes more images"
    assert {row["split"] for row in on_disk(shop) if row["file"] == "0.png"} == {"test"}


def test_nothing_of_a_refused_table_stays(shop: Workshop, tmp_path: Path) -> None:
    counted(shop, 2)
    before = on_disk(shop)
    table = tmp_path / "up" / "counts.csv"
    table.write_text("file,class,count,split\n3.png,blue,1234567,test\n")
    assert "3.png: a count above 999,999" in shop.images.add([table])[0]
    shop.images.save_rows([["0.png", before[0]["count"]]])
    assert on_disk(shop) == before and shop.images.class_names == ("object",)


def test_only_changed_rows_are_saved(shop: Workshop) -> None:
    """Two tabs show the same rows, and each changes another one."""
    counted(shop, 2)
    first, second = shop.images.rows(), shop.images.rows()
    first[0][1], second[1][1] = 5, "3"
    shop.images.save_rows(first, shop.images.rows())
    shop.images.save_rows(second, [["0.png", 1], ["1.png", 2]])
    assert [row["count"] for row in on_disk(shop)] == ["5", "3"]


def test_a_new_class_is_said_to_be_0(shop: Workshop, tmp_path: Path) -> None:
    counted(shop, 2)
    shop.images.name_classes("object, dirt")
    assert shop.images.labels is not None
    assert (
        "dirt: taken as 0 in the images that have counts already (0.png, 1.png): check them" in shop.images.labels.notes
    )
    table = tmp_path / "more.csv"
    table.write_text("file,dirt\n1.png,2\n2.png,1\n")
    said = shop.images.read_counts(table)
    assert "object: taken as 0 in 2.png, since more.csv has no such column" in said


def predicted(shop: Workshop, classes: list[str], rows: list[list[Any]]) -> None:
    """The tables of a prediction."""
    (shop.out / "predictions" / "overlays").mkdir(parents=True)
    lines = [
        f"{name},{label},{count},0,,,0" for name, *counts in rows for label, count in zip(classes, counts, strict=True)
    ]
    text = "\n".join(["file,class,count,at_limit,low,high,unlike", *lines])
    (shop.out / "predictions" / "counts.csv").write_text(text + "\n")


def test_corrected_counts_are_those_of_the_class_of_their_column(shop: Workshop) -> None:
    """The page has the classes as they were typed, a model as they stand in the table: by name."""
    shop.images.name_classes("white, red, dirt")
    shop.images.save_rows([["0.png", 1, 2, 3]])
    predicted(shop, ["red", "white"], [["0.png", 7, 8], ["1.png", 5, 6]])
    rows = shop.results().rows
    with pytest.raises(MistError, match=r"1\.png: the model does not count dirt"):
        shop.correct(rows)
    shop.correct([rows[0], ["1.png", "", "", "look"]])
    assert {row[0]: row[1:] for row in shop.images.rows()[:2]} == {"0.png": [8, 7, 3], "1.png": ["", "", ""]}
    predicted_again = shop.out / "predictions" / "counts.csv"
    predicted_again.write_text(predicted_again.read_text().replace("red", "green"))
    with pytest.raises(MistError, match="green, which is no class"):
        shop.correct(shop.results().rows)


def test_only_corrected_counts_are_saved(shop: Workshop) -> None:
    """Those that a model found are true only if the user says so, and never instead of the user's own."""
    shop.images.name_classes("white, red")
    shop.images.save_rows([["0.png", 1, 2]])
    predicted(shop, ["red", "white"], [["0.png", 7, 8], ["1.png", 5, 6], ["2.png", 3, 4]])
    found = shop.results()
    assert found.header == ["file", "white", "red", "how sure"], "the order of the folder"
    assert found.rows[0][:3] == ["0.png", 8, 7]
    with pytest.raises(MistError, match="no count was corrected"):
        shop.correct(found.rows, found.rows)
    shown = [[name, *map(str, counts)] for name, *counts in found.rows]  # as a browser sends them
    shown[1][1] = "9"
    assert shop.correct(shown, found.rows).startswith("1 image saved; 2 of 12 images")
    rows = {row[0]: row[1:] for row in shop.images.rows()}
    assert (rows["0.png"], rows["1.png"], rows["2.png"]) == ([1, 2], [9, 5], ["", ""])
    assert shop.correct(shown, found.rows, agreed=True).startswith("2 images saved")
    rows = {row[0]: row[1:] for row in shop.images.rows()}
    assert (rows["0.png"], rows["1.png"], rows["2.png"]) == ([1, 2], [9, 5], [4, 3])


def test_how_sure_counts_are(shop: Workshop) -> None:
    predicted(shop, ["red", "white"], [["0.png", 7, 8], ["1.png", 5, 6]])
    table = shop.out / "predictions" / "counts.csv"
    text = table.read_text().replace("0.png,red,7,0,,,0", "0.png,red,7,1,6,9,1")
    table.write_text(text.replace("0.png,white,8,0,,,0", "0.png,white,8,0,8,8,1"))
    rows = shop.results().rows
    assert rows[0][-1] == "red 6 to 9, white 8 to 8; as many as it can report, unlike the training images"
    assert rows[1][-1] == ""
    predicted_once = [line for line in table.read_text().splitlines() if "white" not in line]
    table.write_text("\n".join(predicted_once) + "\n")
    assert shop.results().rows[0] == ["0.png", 7, "6 to 9; as many as it can report, unlike the training images"]


def test_the_models_to_choose_from(shop: Workshop) -> None:
    for name, done in (("model-1", 30), ("model-2", 10)):
        (shop.out / name).mkdir()
        (shop.out / name / "model.safetensors").touch()
        config = find_preset("demo").experiment.with_seed_and_steps(0, 30)
        (shop.out / name / "config.json").write_text(json.dumps(describe(config)))
        (shop.out / name / "metrics.jsonl").write_text(json.dumps({"step": done}) + "\n")
    training = shop.training
    said = [training.describe(one) for one in training.all_usable()]
    assert said == ["model-2, which was trained for 10 of 30 steps", "model-1"]
    counted(shop)
    with pytest.raises(MistError, match="model-7 is gone"):
        shop.predict(everything=True, model_name="model-7")


def wait(shop: Workshop, state: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while shop.training.progress().state != state:
        assert time.monotonic() < end, shop.training.progress()
        time.sleep(0.1)


def test_train_stop_go_on_count_correct_and_train_on(shop: Workshop) -> None:
    counted(shop)
    lines, sheet = shop.inspection()
    assert any(line.split()[:2] == ["images", "12,"] for line in lines), lines
    assert any(line.startswith("training     about ") for line in lines), lines
    assert sheet.exists()
    shop.train(4000)
    with pytest.raises(MistError, match="running"):
        shop.train()
    end = time.monotonic() + 300
    while shop.training.progress().step == 0:
        assert time.monotonic() < end and shop.training.running, shop.training.progress()
        time.sleep(0.1)
    again = Workshop(shop.images.root, shop.out)  # a page that is opened again
    assert again.training.progress().steps == 4000
    shop.training.stop()
    wait(shop, "stopped")
    reached = shop.training.progress().step
    assert 0 < reached < 4000 and "Go on continues" in shop.training.progress().message
    shop.training.go_on()
    assert "continues" not in shop.training.progress().message
    while shop.training.progress().step <= reached:
        assert shop.training.running, shop.training.progress()
        time.sleep(0.1)
    shop.training.close()
    assert not shop.training.running and shop.training.progress().state == "stopped"

    shutil.rmtree(shop.out / "model-1")
    shop.train(20)
    wait(shop, "trained")
    pictures = shop.training.watch()
    assert pictures and shop.training.watch() is pictures
    draw(shop.images.root / "more" / "0.png", 2)  # without a count, unlike 0.png
    shop.images.reload()
    found = shop.predict(everything=False)
    assert found.header == ["file", "object", "how sure"]
    assert [row[0] for row in found.rows] == ["10.png", "11.png", "more/0.png"]
    shutil.rmtree(shop.images.root / "more")
    shop.images.reload()
    found = shop.predict(everything=False)
    assert [row[0] for row in found.rows] == ["10.png", "11.png"]
    assert {path.name for path in found.files} == {"counts.csv", "detections.csv", "detections.json", "predicted.html"}
    assert len(found.pictures) == 2
    assert Workshop(shop.images.root, shop.out).results().rows == found.rows
    shop.correct([["10.png", 3, ""], ["11.png", "4", "as many as it can report"]])
    assert {row["file"]: row["count"] for row in on_disk(shop)}["11.png"] == "4"
    with pytest.raises(MistError, match="count already"):
        shop.predict(everything=False)
    shop.train(3, from_last=True)
    wait(shop, "trained")
    assert [one.name for one in shop.training.models()] == ["model-2", "model-1"]


def test_pictures_in_every_format_are_shown(shop: Workshop) -> None:
    folder = shop.out / "predictions" / "overlays"
    for name in ("a.jpg", "b.tif", "c.png", "more/d.webp"):
        draw(folder / name, 2)
    assert [name for _, name in shop.results().pictures] == ["a.jpg", "b.tif", "c.png", "more/d.webp"]


def test_what_a_run_says_names_no_command(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shop.out / "model-1"
    run.mkdir()
    for name in ("config.json", "model.safetensors"):
        (run / name).write_text("{}")
    last = {"step": 40, "evaluate/count_error": 1.5, "evaluate/count_error_mean": 4.0}
    lines = [{"step": 10, "seconds": 60.0}, {"step": 20, "seconds": 90.0}, last]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.with_suffix(".log").write_text("`mist evaluate model-1` prints all metrics.\n")
    monkeypatch.setattr("mistnn.web.trainings.restore", lambda out: SimpleNamespace(train=SimpleNamespace(steps=40)))
    found = shop.training.progress()
    assert (found.state, found.message, found.guess) == ("trained", "40 steps are done", 4.0)
    assert time_left(lines[:1], 100) == ""
    assert time_left(lines[:2], 100) == ", about 4 min left"
    assert time_left(lines[:2], 30) == ", about a minute left or less"


def test_a_model_that_cannot_be_read_is_said_calmly(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in the status, not as an error at each look; and it is tried again only when something has changed."""
    counted(shop)
    run = shop.out / "model-1"
    run.mkdir()
    (run / "config.json").write_text("{")
    (run / "model.safetensors").write_bytes(b"half a model")
    assert (
        shop.training.watch() == [] and "can't be drawn" in shop.training.trouble and "\n" not in shop.training.trouble
    )
    assert shop.training.progress().state == "stopped" and "config.json" in shop.training.progress().message
    tried: list[Path] = []
    monkeypatch.setattr("mistnn.web.watching._all_drawn", lambda run, root: tried.append(run) or [])
    assert shop.training.watch() == [] and not tried
    (run / "model.safetensors").write_bytes(b"the other half")
    os.utime(run / "model.safetensors", ns=(1, 1))  # whatever the clock's resolution
    assert shop.training.watch() == [] and tried == [run] and shop.training.trouble == ""
    (run / "model.safetensors").unlink()
    assert shop.training.watch() == []


def test_a_training_that_fails_says_why(shop: Workshop) -> None:
    counted(shop)
    path = shop.images.root / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    shop.train(5)
    wait(shop, "failed")
    assert shop.training.progress().message.startswith("mist: ")
    assert "Traceback" not in shop.training.progress().message
    with pytest.raises(MistError, match="train again"):
        shop.training.go_on()


def test_names_that_spreadsheets_take_for_formulas_can_be_corrected(tmp_path: Path) -> None:
    """Tables have a "'" before them, which is not part of the name."""
    shop = Workshop(tmp_path / "mine", tmp_path / "results")
    shop.images.add([draw(tmp_path / "up" / f"{name}.png", 2) for name in ("-1", "b")])
    shop.images.name_classes("+ve, -ve")
    out = shop.out / "predictions"
    out.mkdir(parents=True)
    rows = "".join(f"{name},'{kind},2,0,,,\n" for name in ("'-1.png", "b.png") for kind in ("+ve", "-ve"))
    (out / "counts.csv").write_text(f"file,class,count,at_limit,low,high,unlike\n{rows}", encoding="utf-8")
    assert shop.results().header == ["file", "+ve", "-ve", "how sure"]
    shop.correct([["-1.png", 1, 4, ""]])
    assert [(row["file"], row["class"], row["count"]) for row in on_disk(shop)] == [
        ("'-1.png", "'+ve", "1"),
        ("'-1.png", "'-ve", "4"),
    ]
