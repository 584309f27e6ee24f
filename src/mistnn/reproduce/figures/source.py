"""The runs that figures show: where they are, and the images they were trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mistnn.errors import MistError
from mistnn.experiments import restore
from mistnn.reproduce.ledger import QUICK
from mistnn.weights import shipped_names

RUNS = Path("runs/tables")
"""Default folder of the runs of `mist reproduce`."""


def stored_run(runs: Path, name: str) -> Path | str:
    """The run of a preset with seed 0: of full size, else of quick size, else the shipped model.

    Raises:
        MistError: if there is none.
    """
    for ending in ("-seed0", *(f"{QUICK}-{factor}-seed0" for factor in ("x1", "x3", "x0.3"))):
        if (runs / f"{name}{ending}" / "model.safetensors").is_file():
            return runs / f"{name}{ending}"
    if name in shipped_names():
        return name
    raise MistError(
        f"{runs} holds no run of {name}: train it with `mist reproduce table1 --budget quick --seeds 1 --only {name}`, "
        "or give the folder of the table's runs with --model"
    )


def images_of(model: str | Path, kinds: tuple[str, ...], problem: str, seed: int | None, root: str | None) -> Any:
    """The configuration of the images that a model was trained on.

    Args:
        model: a run folder or a shipped model.
        kinds: of data that the figure can show.
        problem: the error message for other kinds of data.
        seed: selects other images; the experiment's own if not given.
        root: the folder of the images; the experiment's own if not given.

    Raises:
        MistError: if there is no such model, or it was trained on images of another kind.
    """
    data: Any = restore(model).data
    if kind_of_data(data) not in kinds:
        raise MistError(problem)
    if seed is not None:
        data = dataclasses.replace(data, seed=seed)
    return data if root is None else dataclasses.replace(data, root=root)


def scenes_of(model: str | Path, seed: int | None, root: str | None, figure: str) -> Any:
    """The scenes of digits that a model was trained on, see ``images_of``; ``figure`` is named in the error."""
    problem = (
        f"{figure} shows scenes of digits and {model} was trained on other images: a run on Gabor noise is drawn by "
        "fig4, one on house numbers by svhn-fig6"
    )
    return images_of(model, ("scenes",), problem, seed, root)


def kind_of_data(data: object) -> str:
    """The kind of a data configuration."""
    kinds = {
        "ScenesConfig": "scenes",
        "ScatterConfig": "scatter",
        "GaborConfig": "gabor",
        "SvhnConfig": "svhn",
        "NumbersConfig": "numbers",
        "DistortedConfig": "distorted",
        "FolderConfig": "folder",
    }
    return getattr(data, "kind", kinds.get(type(data).__name__, ""))
