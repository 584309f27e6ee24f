"""The trained models inside the package: ``shipped/<name>/`` holds config.json, model.safetensors and README.md."""

from __future__ import annotations

import difflib
from pathlib import Path

from mistnn.errors import MistError


def shipped_folder() -> Path:
    """The folder that holds one folder a shipped model; it need not exist."""
    return Path(__file__).with_name("shipped")


def shipped_names() -> list[str]:
    """The names of the shipped models, sorted."""
    return sorted(path.parent.name for path in shipped_folder().glob("*/config.json"))


def resolve(folder_or_name: Path | str) -> Path:
    """The model folder that a user's words mean.

    Convention: a folder on disk with a ``config.json`` goes before a shipped model of the same name; a folder
    without one goes after it.

    Raises:
        MistError: if there is neither; it lists the shipped names and the closest one.
    """
    path, name, names = Path(folder_or_name), str(folder_or_name), shipped_names()
    if (path / "config.json").is_file():
        return path
    if name in names:
        return shipped_folder() / name
    if path.is_dir():
        return path
    if path.exists():
        raise MistError(f"{name} is a file, not a model folder: give the folder it lies in ({path.parent})")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise MistError(
        f"no model {name!r}: there is no such folder, and the shipped models are {', '.join(names) or 'none'}{hint}"
    )
