"""Tables from Excel, and the limits of archives, which these are."""

from __future__ import annotations

import csv
import datetime
import importlib
import io
import zipfile
from pathlib import Path
from typing import Any

from mistnn.data.text_files import check_file, one_line
from mistnn.errors import MistError

MOST_BYTES = 1 << 28
"""Of the unpacked content of an archive (our choice)."""

SYSTEM_FILES = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})
"""What systems put into archives. Other names with a leading dot may be those of users, as of ROIs."""

MOST_ROWS, MOST_CELLS = 1_048_576, 5_000_000
"""Of a spreadsheet: the rows of Excel, and the cells of its rows up to the last one that is filled (our choice)."""


def check_archive(path: Path, place: str) -> None:
    """Refuses an archive whose content is too large to unpack; ``zipfile.BadZipFile`` if it is none."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MOST_BYTES:
        limit = f"more than the {MOST_BYTES:,} that are read"
        raise MistError(f"{place} unpacks to {size:,} bytes, {limit}: check the file")


def archived(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, without those that systems add, such as ``__MACOSX/._1.roi`` and ``.DS_Store``."""
    names = {entry: entry.filename.split("/") for entry in archive.infolist() if not entry.is_dir()}
    return [entry for entry, parts in names.items() if not SYSTEM_FILES.intersection(parts) and parts[-1][:2] != "._"]


def read_sheet(path: Path) -> str:
    """The first sheet of an ``.xlsx`` file as the text of a CSV file. Of formulas, the stored results are read.

    Raises:
        MistError: if openpyxl is missing, or the file is damaged, is too large, declares entities in its XML, or has
            several sheets with content.
    """
    check_file(path)
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError as error:
        raise MistError(
            f"{path.name}: Excel is read with openpyxl: pip install 'mistnn[files]', or save the table as CSV"
        ) from error
    try:
        check_archive(path, path.name)
        _check_entities(path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = {sheet.title: _csv(sheet, path.name) for sheet in book.worksheets}
        finally:
            book.close()
        _check_formulas(openpyxl, path)
    except MistError:
        raise
    except Exception as error:  # openpyxl and zipfile raise errors of many kinds on damaged files
        raise MistError(f"{path.name} can't be read ({one_line(error)}): save it again, or as CSV") from error
    filled = [title for title, text in sheets.items() if text]
    if len(filled) > 1:
        raise MistError(f"{path.name} has several sheets ({', '.join(filled)}): keep the one with the counts")
    return sheets[filled[0]] if filled else ""


def _check_formulas(openpyxl: Any, path: Path) -> None:
    """Refuses formulas without a stored result, whose cells would be taken for empty ones."""
    books = [openpyxl.load_workbook(path, read_only=True, data_only=results) for results in (False, True)]
    try:
        for written, stored in zip(*(book.worksheets for book in books), strict=True):
            for row, results in zip(written.iter_rows(), stored.iter_rows(), strict=False):
                for cell, result in zip(row, results, strict=False):
                    if cell.data_type == "f" and result.value is None:
                        raise MistError(
                            f"{path.name}, cell {cell.coordinate}: a formula without a stored result: open and save "
                            "the file in a spreadsheet program, or save it as CSV"
                        )
    finally:
        for book in books:
            book.close()


def _csv(sheet: Any, place: str) -> str:
    """The rows of a sheet; empty ones are blank lines, so that rows keep their numbers, and none at the end."""
    sheet.reset_dimensions()  # rows are else filled up to the size that the file claims
    text = io.StringIO(newline="")
    writer, blank, cells = csv.writer(text), 0, 0
    for number, row in enumerate(sheet.values, start=1):
        cells += len(row)
        if number > MOST_ROWS or cells > MOST_CELLS:
            limit = f"{MOST_ROWS:,} rows or {MOST_CELLS:,} cells"
            raise MistError(f"{place} has more than {limit}: delete all but the table, or save it as CSV")
        written = [_text(cell) for cell in row]
        if any(written):
            writer.writerows([()] * blank)
            writer.writerow(written)
            blank = 0
        else:
            blank += 1
    return text.getvalue()


def _check_entities(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith((".xml", ".rels")) and b"<!ENTITY" in content.replace(b"\0", b""):
                raise MistError(f"{path.name} declares an entity in {name}, which is not read: save it again")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()  # as in CSV, where it is no count
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    return str(value)
