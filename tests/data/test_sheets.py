"""Counts from Excel and as tab-separated values."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mistnn.data.folder.content import read_folder
from mistnn.data.folder.sheets import read_sheet
from tests.data.layouts import counts_of, make, noted, refused, write

openpyxl: Any = pytest.importorskip("openpyxl", reason="the extra files reads Excel")


def save(folder: Path, rows: list[list[Any]], name: str = "counts.xlsx", *more: str) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title in more:
        book.create_sheet(title).append(["x"])
    book.create_sheet("empty")
    book.save(folder / name)
    return folder


def test_excel(tmp_path: Path) -> None:
    folder = read_folder(
        save(make(tmp_path), [["file", "red", "a, b", "split"], ["a.png", 3, 0.0, "train"], ["b", 1, 2, "test"]])
    )
    assert folder.class_names == ("red", "a, b")
    assert counts_of(folder) == {"a.png": (3, 0), "b.png": (1, 2), "c.jpg": None}
    assert {image.name: image.split for image in folder.images}["b.png"] == "test"
    assert not [note for note in folder.notes if "xlsx" in note and "not read" in note]


def test_numbers_as_names_and_bad_cells(tmp_path: Path) -> None:
    make(tmp_path, "007.png", "8.png", "9.png")
    folder = read_folder(save(tmp_path, [["file", "count"], [7, 2], [8, 1], [9, 5]]))
    assert counts_of(folder) == {"007.png": (2,), "8.png": (1,), "9.png": (5,)}
    refused(save(tmp_path, [["file", "count"], [7, 2.5]]), "counts.xlsx, row 2", "2.5", "fraction")


def test_tabs_and_order(tmp_path: Path) -> None:
    make(tmp_path)
    write(tmp_path, "file\tred\na\t4\n", "counts.tsv")
    assert counts_of(read_folder(tmp_path))["a.png"] == (4,)
    save(tmp_path, [["file", "red"], ["a", 9]])
    folder = read_folder(tmp_path)
    assert counts_of(folder)["a.png"] == (4,)
    noted(folder, "counts.xlsx isn't used: counts.tsv is")
    write(tmp_path, "file,red\na,5\n", "counts.csv")
    assert counts_of(read_folder(tmp_path))["a.png"] == (5,)


def test_labels_from_excel(tmp_path: Path) -> None:
    folder = read_folder(save(make(tmp_path), [["file", "class"], ["a", "red"], ["b", None]], "labels.xlsx"))
    assert folder.counts_from == "labels.csv" and folder.class_names == ("red",)


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    refused(save(tmp_path, [["file", "red"], ["a", 1]], "counts.xlsx", "notes"), "several sheets (Sheet, notes)")
    write(tmp_path, "PK", "counts.xlsx")
    refused(tmp_path, "counts.xlsx can't be read", "save it again")
    save(tmp_path, [["file", "red"], ["a", 1]])
    with zipfile.ZipFile(tmp_path / "counts.xlsx", "a") as archive:
        archive.writestr("xl/bomb.xml", '<!DOCTYPE a [<!ENTITY x "aa">]><a>&x;</a>')
    refused(tmp_path, "declares an entity in xl/bomb.xml")
    save(tmp_path, [["file", "red"], ["a", 1]])
    monkeypatch.setattr("mistnn.data.folder.sheets.MOST_BYTES", 100)
    refused(tmp_path, "counts.xlsx unpacks to")
    real = importlib.import_module

    def without(name: str) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("mistnn.data.folder.sheets.importlib.import_module", without)
    refused(tmp_path, "pip install 'mistnn[files]'")


def reworded(path: Path, old: str, new: str) -> None:
    """Changes the XML of the first sheet."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    assert old.encode() in content[name]
    content[name] = content[name].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in content.items():
            archive.writestr(one, data)


def test_a_claimed_size_takes_no_memory(tmp_path: Path) -> None:
    path = save(make(tmp_path), [["file", "red"], ["a", 1]]) / "counts.xlsx"
    reworded(path, '<dimension ref="A1:B2"', '<dimension ref="A1:XFD1048576"')
    assert read_sheet(path).text == "file,red\r\na,1\r\n"


def test_empty_rows_keep_the_numbers_of_others(tmp_path: Path) -> None:
    folder = save(make(tmp_path), [[], ["file", "red"], [], [None, ""], ["a", 1], ["b", "x", "y"], []])
    assert read_sheet(folder / "counts.xlsx").text == "\r\nfile,red\r\n\r\n\r\na,1\r\nb,x,y\r\n"
    refused(folder, "counts.xlsx, row 6", "3 values in 2 columns", "write a name for column 3 into row 2")


def test_a_header_of_merged_cells_is_named(tmp_path: Path) -> None:
    """Its last columns have values and no name: to delete them would delete counts."""
    book = openpyxl.Workbook()
    for row in (["file", "cells"], ["a.png", 3, 4], ["b.png", 1, 2]):
        book.active.append(row)
    book.active.merge_cells("B1:C1")
    book.save(make(tmp_path) / "counts.xlsx")
    refused(tmp_path, "counts.xlsx, row 2: 3 values in 2 columns: write a name for column 3 into row 1")


def hide(folder: Path, rows: Sequence[int] = (), columns: str = "", sheets: Sequence[str] = ()) -> Path:
    book = openpyxl.load_workbook(folder / "counts.xlsx")
    for row in rows:
        book.active.row_dimensions[row].hidden = True
    for column in columns:
        book.active.column_dimensions[column].hidden = True
    for title in sheets:
        book[title].sheet_state = "hidden"
    book.save(folder / "counts.xlsx")
    return folder


def test_hidden_rows_and_columns_are_named(tmp_path: Path) -> None:
    rows = [["file", "cell", "old"], ["a", 1, 2], ["b", 3, 4], ["c", 5, 6]]
    folder = read_folder(hide(save(make(tmp_path), rows), [3, 9], "CH"))  # those without content don't matter
    assert counts_of(folder) == {"a.png": (1, 2), "b.png": (3, 4), "c.jpg": (5, 6)}
    noted(folder, "counts.xlsx: row 3 is hidden in the spreadsheet and was read: delete it if it should not count")
    noted(folder, "counts.xlsx: column C is hidden in the spreadsheet and was read: delete it if it should not count")
    folder = read_folder(hide(tmp_path, [2, 4], "B"))
    noted(
        folder,
        "counts.xlsx: 3 rows (2, 3, 4) are hidden in the spreadsheet and were read: delete those that should not count",
    )
    noted(folder, "counts.xlsx: 2 columns (B, C) are hidden in the spreadsheet and were read")
    assert not any("hidden" in note for note in read_folder(save(tmp_path, rows)).notes)


def test_hidden_sheets_are_passed_over(tmp_path: Path) -> None:
    save(make(tmp_path), [["file", "red"], ["a", 1]], "counts.xlsx", "draft", "lists")
    refused(hide(tmp_path, sheets=["lists"]), "several sheets (Sheet, draft)", "hide the others")
    folder = read_folder(hide(tmp_path, sheets=["draft"]))
    assert folder.class_names == ("red",)
    noted(folder, "counts.xlsx: hidden sheets (draft, lists) are passed over")
    save(tmp_path, [["file", "red"], ["a", 1]])
    folder = read_folder(hide(tmp_path, sheets=["Sheet"]))
    assert folder.class_names == ("red",)
    noted(folder, "counts.xlsx: the sheet that was read is hidden (Sheet)")


def test_too_many_cells_or_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(make(tmp_path), [["file", "red"], ["a", 1]]) / "counts.xlsx"
    reworded(path, 'r="2"', f'r="{10**15}"')  # all rows before it are empty
    refused(tmp_path, "counts.xlsx has more than 1,048,576 rows", "save it as CSV")
    save(tmp_path, [["file", "red"], ["a", 1]])
    monkeypatch.setattr("mistnn.data.folder.sheets.MOST_CELLS", 3)
    refused(tmp_path, "counts.xlsx has more than 1,048,576 rows or 3 cells")
