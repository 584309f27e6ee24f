"""Tables from Excel, and the limits of archives, which these are."""

from __future__ import annotations

import csv
import datetime
import importlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from mistnn.data.text_files import check_file, listed, one_line
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


class Sheet(NamedTuple):
    """A sheet of a spreadsheet."""

    text: str  #: As the text of a CSV file.
    notes: tuple[str, ...]  #: On what is hidden, one line each.


def read_sheet(path: Path) -> Sheet:
    """The one sheet of an ``.xlsx`` file that has content. Of formulas, the stored results are read.

    Hidden sheets are passed over, unless no visible one has content. Hidden rows and columns are read.

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
            found = _filled(book, path.name)
        finally:
            book.close()
        if found is None:
            return Sheet("", ())
        title, sheet = found
        _check_formulas(openpyxl, path, title)
    except MistError:
        raise
    except Exception as error:  # openpyxl and zipfile raise errors of many kinds on damaged files
        raise MistError(f"{path.name} can't be read ({one_line(error)}): save it again, or as CSV") from error
    return sheet


def _filled(book: Any, place: str) -> tuple[str, Sheet] | None:
    """The title and the content of the one sheet that is read; ``None`` if all are empty."""
    shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    hidden = [sheet for sheet in book.worksheets if sheet not in shown]
    names = listed([sheet.title for sheet in hidden])
    passed = f"{place}: hidden sheets ({names}) are passed over: show the one with the counts, if it is one of them"
    taken = f"{place}: the sheet that was read is hidden ({names}), because no visible one has content"
    for sheets, note in ((shown, passed), (hidden, taken)):
        texts = [(sheet, text) for sheet in sheets if (text := _csv(sheet, place))]
        if len(texts) > 1:
            titles = ", ".join(sheet.title for sheet, _ in texts)
            raise MistError(f"{place} has several sheets ({titles}): keep the one with the counts, or hide the others")
        for sheet, text in texts:
            notes = [note] if hidden else []
            return sheet.title, Sheet(text, (*notes, *_hidden_parts(sheet, text, place)))
    return None


def _hidden_parts(sheet: Any, text: str, place: str) -> Iterator[str]:
    """Notes on the rows and the columns that have content and are hidden."""
    rows, columns = _hidden(sheet)
    if not rows and not columns:
        return
    filled = {number: row for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1) if any(row)}
    letters = importlib.import_module("openpyxl.utils").get_column_letter
    used = sorted({column for row in filled.values() for column, cell in enumerate(row, start=1) if cell})
    for what, names in (
        ("row", [str(number) for number in filled if number in rows]),
        ("column", [letters(column) for column in used if any(first <= column <= last for first, last in columns)]),
    ):
        if len(names) == 1:
            hidden = f"{what} {names[0]} is hidden in the spreadsheet and was read"
            yield f"{place}: {hidden}: delete it if it should not count"
        elif names:
            hidden = f"{len(names)} {what}s ({listed(names)}) are hidden in the spreadsheet and were read"
            yield f"{place}: {hidden}: delete those that should not count"


def _hidden(sheet: Any) -> tuple[set[int], list[tuple[int, int]]]:
    """The hidden rows, and the first and last of adjacent hidden columns; all are counted from 1."""
    rows: set[int] = set()
    columns: list[tuple[int, int]] = []
    number = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal number
        kind, is_hidden = tag.rpartition("}")[2], attributes.get("hidden") in ("1", "true")
        if kind == "row":
            number = int(attributes.get("r", number + 1))
            if is_hidden:
                rows.add(number)
        elif kind == "col" and is_hidden:
            columns.append((int(attributes["min"]), int(attributes["max"])))

    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = start
    with sheet._get_source() as source:  # openpyxl itself drops these attributes when it reads without loading all
        parser.ParseFile(source)
    return rows, columns


def _check_formulas(openpyxl: Any, path: Path, title: str) -> None:
    """Refuses formulas of a sheet without a stored result, whose cells would be taken for empty ones."""
    books = [openpyxl.load_workbook(path, read_only=True, data_only=results) for results in (False, True)]
    try:
        for row, results in zip(*(book[title].iter_rows() for book in books), strict=False):
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
