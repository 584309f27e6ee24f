"""The names of YOLO's classes: beside the labels or above them, in ``classes.txt``, ``obj.names`` or ``data.yaml``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from mistnn.data.text_files import class_name, listed, read_text

MOST_DIGITS = 9  #: Of the number of a class.
YOLO_YAML = ("data.yaml", "dataset.yaml", "data.yml")
_YOLO_ROW = re.compile(r"[0-9]+(?:\s+[0-9.eE+-]+){4,}")


def yolo_levels(place: str) -> int:
    """How many folders above a file with labels are searched: up to the folder of the data."""
    return max(2, place.count("/"))


def yolo_names(path: Path, levels: int = 2) -> dict[int, str]:
    """The names of the classes of a file with labels, by number: those of the first file that ``name_lists`` finds."""
    return next((names for _, names in name_lists(path, levels)), {})


def name_lists(path: Path, levels: int) -> Iterator[tuple[Path, dict[int, str]]]:
    """The files with names of classes beside a file with labels, or up to ``levels`` up, and their names by number.

    A ``classes.txt`` of boxes, or an empty one, belongs to an image called classes.
    """
    for folder in list(path.parents)[: levels + 1]:
        for name in ("classes.txt", "obj.names"):
            if (file := folder / name).is_file():
                lines = [class_name(line) for line in read_text(file).splitlines()]
                if not all(_YOLO_ROW.fullmatch(line) for line in lines if line):
                    yield file, {number: line for number, line in enumerate(lines) if line}  # the place is the number
        for name in YOLO_YAML:
            if (file := folder / name).is_file():
                yield file, _names_of_yaml(read_text(file))


def names_note(paths: Iterable[Path], root: Path) -> list[str]:
    """A note if two files give the classes of files with labels different names."""
    lists: dict[Path, dict[int, str]] = {}
    for path in {path.parent: path for path in paths}.values():
        lists.update(name_lists(path, yolo_levels(path.relative_to(root).as_posix())))
    for (one, names), (two, other) in itertools.combinations(lists.items(), 2):
        if any(other.get(number, name) != name for number, name in names.items()):
            files = " and ".join(each.relative_to(root).as_posix() for each in (one, two))
            return [
                f"{files} name the classes differently "
                f"({listed(list(names.values()))}, and {listed(list(other.values()))}), and each file with labels uses "
                "the nearest: correct or remove one"
            ]
    return []


def has_keypoints(path: Path, levels: int) -> bool:
    """Whether the YAML file beside the labels, or up to ``levels`` up, says that rows have keypoints."""
    files = [folder / name for folder in list(path.parents)[: levels + 1] for name in YOLO_YAML]
    found = next((file for file in files if file.is_file()), None)
    return found is not None and re.search(r"^\s*kpt_shape\s*:", read_text(found), re.MULTILINE) is not None


def class_number(text: str) -> int | None:
    """A number from 0 in ASCII digits, not longer than any list of classes."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def _names_of_yaml(text: str) -> dict[int, str]:
    """The entry ``names``: a list, or numbers with names; empty if there is none, or the file is broken."""
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # texts, lists and mappings alone
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {number: class_name(name) for number, name in enumerate(names) if isinstance(name, str)}
    pairs = names.items() if isinstance(names, dict) else ()
    numbered = ((class_number(str(key)), name) for key, name in pairs if isinstance(name, str))
    return {number: class_name(name) for number, name in numbered if number is not None}
