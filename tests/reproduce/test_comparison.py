"""Figure 2 with tiny runs in place of Table 1's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from mistnn.errors import MistError
from mistnn.experiments import train
from mistnn.models.mist import LiftedStepConfig
from mistnn.models.rivals import GridConfig, RivalStepConfig, Zha18Config, Zha18StepConfig
from mistnn.reproduce.figures import Request, draw_figure, scenes
from mistnn.reproduce.figures.scenes import EXAMPLES, figure_2
from mistnn.reproduce.figures.source import stored_run
from tests.experiments.tiny import TINY

MIST = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, class_names=()),
    step=LiftedStepConfig(reconstruction=1.0, heatmap_warmup=0),
)
GRID = dataclasses.replace(
    TINY, model=GridConfig(2, 1, 16, TINY.model.encoder, 4), step=RivalStepConfig()
)  # fmt: skip
ZHA18 = dataclasses.replace(
    TINY, model=Zha18Config(2, 1, (4, 8), (4, 8), (4, 8), features=4), step=Zha18StepConfig(decay_steps=4)
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    train(MIST, folder / "mist-seed0")
    train(GRID, folder / "grid-seed0")
    train(ZHA18, folder / "zha18-seed0")
    return folder


@pytest.fixture(autouse=True)
def _tiny_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"MIST": ("mist", "mist"), "Grid": ("grid", "grid"), "Zha18": ("zha18", "zha18")}
    monkeypatch.setattr(scenes, "SYSTEMS", tiny)
    monkeypatch.setattr(scenes, "EASY", TINY.data)
    monkeypatch.setattr(scenes, "HARD", dataclasses.replace(TINY.data, canvas=40))


def test_every_system_on_every_scene(runs: Path, tmp_path: Path) -> None:
    figure = figure_2(Request(runs))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 2 * EXAMPLES * 4 and titles[0] == "easy" and titles[-4] == "hard"
    assert [title.split()[0] for title in titles[1:4]] == ["MIST", "Grid", "Zha18"]
    assert all(0 < float(title.split()[1]) < 1 for title in titles[1:4])
    png, _ = draw_figure("fig2", Request(runs), tmp_path)
    assert png.stat().st_size > 5000


def test_a_missing_run_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(MistError, match=r"holds no run of mist: train it with `mist reproduce table1 .* --only mist`"):
        figure_2(Request(tmp_path))


def test_a_run_as_the_table_reads_it_before_the_run_before_shipped(runs: Path, tmp_path: Path) -> None:
    assert stored_run(runs, "mist") == runs / "mist-seed0"
    for name in ("mist-seed0-read", "grid-quick-seed0"):
        shutil.copytree(runs / "mist-seed0", tmp_path / name)
    assert stored_run(tmp_path, "mist") == tmp_path / "mist-seed0-read"
    with pytest.raises(MistError, match="holds no run of grid"):  # a smoke test is no run to show
        stored_run(tmp_path, "grid")
    assert stored_run(tmp_path, "mist-discover-mnist-hard-one-scale") == "mist-discover-mnist-hard-one-scale"
