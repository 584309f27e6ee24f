"""Figures of models without classes: 3, 4, 7 and 8."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import GaborConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, train
from mistnn.ops.matching import UNMATCHED
from mistnn.presets import PRESETS, Preset
from mistnn.presets.images import HARD
from mistnn.reproduce.figures import FIGURES, Request, discovery, draw_figure, evolution
from mistnn.reproduce.figures.discovery import figure_3, figure_4, figure_8, match_places
from mistnn.reproduce.figures.evolution import figure_7, svhn_figure_7
from tests.cli.runs import only_line
from tests.experiments.tiny import TINY

WITHOUT_CLASSES = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=()))
NOISE = dataclasses.replace(
    WITHOUT_CLASSES,
    model=dataclasses.replace(WITHOUT_CLASSES.model, k=3),
    data=GaborConfig(canvas=32, counts=(3,), box_size=12.0, margin=6.0),
)


def trained(experiment: Experiment, out: Path) -> Path:
    assert train(experiment, out).steps == experiment.train.steps
    return out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(WITHOUT_CLASSES, tmp_path_factory.mktemp("discovery") / "scenes")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(NOISE, tmp_path_factory.mktemp("discovery") / "noise")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(TINY, tmp_path_factory.mktemp("discovery") / "digits")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = dataclasses.replace(WITHOUT_CLASSES.data, layout="uneven", canvas=64, counts=(4,))
    experiment = dataclasses.replace(WITHOUT_CLASSES, data=data, model=dataclasses.replace(WITHOUT_CLASSES.model, k=4))
    return trained(experiment, tmp_path_factory.mktemp("discovery") / "uneven")


def kinds(axes: Axes) -> Counter:
    return Counter(artist.get_gid() for artist in axes.patches if artist.get_gid())


def titled(figure, title: str) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title() == title]


def test_fig3_shows_every_patch_twice(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "fig3", "--model", str(scenes), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "fig3.png"), str(tmp_path / "fig3.pdf")]
    with Image.open(tmp_path / "fig3.png") as image:
        assert image.width > image.height
    figure = figure_3(Request(scenes))
    for title in ("input", "detections", "synthesis"):
        assert len(titled(figure, title)) == discovery.EXAMPLES
    for axes in titled(figure, "detections"):
        drawn = kinds(axes)
        assert drawn["right"] + drawn["wrong"] == 2, "K is the number of digits in the scene"
        assert drawn["right"] + drawn["missed"] == 2
    assert len(titled(figure, "1")) == len(titled(figure, "2")) == discovery.EXAMPLES
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == discovery.EXAMPLES * (3 + 2 * 2)


def test_fig4_marks_add_up(noise: Path) -> None:
    figure = figure_4(Request(noise, seed=5))
    marked = [axes for axes in figure.axes if axes.texts]
    assert len(marked) == discovery.EXAMPLES
    for axes in marked:
        counts = {name: int(number) for number, name in (text.get_text().split() for text in axes.texts)}
        drawn = {str(points.get_gid()): len(points.get_offsets()) for points in axes.collections}
        assert counts == drawn
        assert counts["right"] + counts["wrong"] == counts["right"] + counts["missed"] == 3
        assert axes.get_xlim() == (0, 32)


def test_the_true_kernel_is_what_the_image_shows() -> None:
    """An image of one impulse is its kernel: cut out anywhere around it, the two agree."""
    config = GaborConfig(canvas=32, counts=(1,), box_size=12.0, margin=6.0)
    data = discovery.GaborNoise(config, "test", 1)
    x, y = data.impulses(0).positions[0]
    left, top = int(x) - 5, int(y) - 4
    square = torch.tensor([left + 5.0, top + 5.0, 10.0, 10.0])
    expected = data[0].image[:, top : top + 10, left : left + 10]
    torch.testing.assert_close(discovery._true_kernel(data, 0, 0, square, 10), expected)


def test_places_match_one_to_one_nearest_first() -> None:
    truth = torch.tensor([[10.0, 10.0], [14.0, 10.0], [30.0, 10.0]])
    found = torch.tensor([[11.0, 10.0], [10.0, 10.5], [40.0, 10.0], [13.0, 10.0], [29.0, 10.0]])
    assert match_places(found, truth, 10.0).tolist() == [UNMATCHED, 0, UNMATCHED, 1, 2]
    assert match_places(found[2:3], truth, 10.0).tolist() == [2], "at the radius itself a pair still counts"
    assert match_places(found[2:3], truth, 9.9).tolist() == [UNMATCHED]
    assert match_places(found, truth[:0], 10.0).tolist() == [UNMATCHED] * 5


def test_figure_7_is_of_classification_on_mnist_hard() -> None:
    preset = evolution.find_preset(evolution.DIGITS).experiment
    assert preset.model.class_names and preset.data == HARD and preset.step.kind == "lifted"
    assert [name for name, _ in evolution.NUMBERS] == ["mist-svhn", "mist-numbers"]
    uneven = PRESETS[discovery.UNEVEN_MODEL].experiment
    assert uneven.data.layout == "uneven"


def test_the_heat_map_of_a_house_number_over_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S001, figure 7 (c): the folder decides which numbers are trained on; tiny wide scenes replace them here."""
    with pytest.raises(MistError, match="svhn-fig7 trains on house numbers: give their folder"):
        svhn_figure_7(Request())
    with pytest.raises(MistError, match="holds no house numbers"):
        svhn_figure_7(Request(root=str(tmp_path)))
    (tmp_path / "boxes.json").write_text("{}")
    asked: list[str] = []
    tiny = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, source="embedded"))

    def find(name: str) -> Preset:
        asked.append(name)
        return Preset(name, "tiny", tiny)

    monkeypatch.setattr(evolution, "find_preset", find)
    figure = svhn_figure_7(Request(root=str(tmp_path), steps=3))
    assert asked == ["mist-numbers"]
    shown = [axes for axes in figure.axes[2:]]
    assert [axes.get_title() for axes in shown] == ["image", "step 0", "step 1", "step 3"]
    peaks = [axes.images[0].norm.vmax for axes in shown[1:]]
    assert len(set(peaks)) == 3, "each is as bright as its own peak"


def test_fig7_draws_a_log_or_trains(
    digits: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(MistError, match="shows how MIST learns to classify.*preset mist-mnist-hard"):
        figure_7(Request(scenes))
    logged = figure_7(Request(digits))
    assert len(logged.axes) == 2
    assert [len(axes.lines[0].get_xdata()) for axes in logged.axes] == [4, 4]
    monkeypatch.setattr(evolution, "find_preset", lambda name: Preset(name, "tiny", TINY))
    own = figure_7(Request(steps=3))
    assert [list(axes.lines[0].get_xdata()) for axes in own.axes[:2]] == [[1, 2, 3]] * 2
    assert [axes.get_title() for axes in own.axes[2:]] == ["image", "step 0", "step 1", "step 3"]
    given = ["figure", "fig7", "--out", str(tmp_path / "out")]
    for more, words in (
        (["--model", str(digits), "--steps", "3"], ["--steps 3", "leave one out"]),
        (["--model", "mist-mnist-3"], ["mist-mnist-3", "log"]),
        (["--steps", "0"], ["--steps=0"]),
    ):
        assert main([*given, *more]) == 2
        only_line(capsys.readouterr().err, *words)
    assert not (tmp_path / "out").exists()


def test_fig8_is_of_a_model_that_learnt_on_uneven_scenes(
    scenes: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(MistError, match="trained on the layout hard: `mist train mist-discover-mnist-uneven`"):
        figure_8(Request(scenes))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MistError, match="runs/mist-discover-mnist-uneven holds none: `mist train"):
        figure_8(Request())
    figure = figure_8(Request(uneven))
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * discovery.UNEVEN_EXAMPLES
    assert all(axes.images[0].get_array().shape == (64, 64) for axes in pictures)
    drawn = sum((kinds(axes) for axes in pictures), Counter())
    assert drawn["right"] + drawn["wrong"] == drawn["right"] + drawn["missed"] == 4 * discovery.UNEVEN_EXAMPLES


def test_mistakes(scenes: Path, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, model, words in (
        ("fig3", noise, "fig3.*Gabor noise.*fig4"),
        ("fig5", noise, "fig5.*Gabor noise"),
        ("fig8", noise, "fig8.*Gabor noise"),
        ("fig4", scenes, "fig4.*scenes of digits"),
        ("fig3", "mist-mnist-3", "no decoder"),
    ):
        with pytest.raises(MistError, match=words):
            draw_figure(name, Request(model), out)
    with pytest.raises(MistError, match="--steps 3 is for the figures that train"):
        draw_figure("fig3", Request(scenes, steps=3), out)
    assert not out.exists()
    drawn_without_labels = {"fig2", "fig3", "fig4", "fig7", "fig8", "spair-objects", "spair-transfer"}
    assert set(FIGURES) == drawn_without_labels | {
        "fig5", "fig6", "readers", "samples", "svhn-fig6", "svhn-fig7", "stn-addition", "stn-samples",
        "stn-colocalisation", "validation",
    }  # fmt: skip


def test_fig5_without_classes(scenes: Path) -> None:
    assert FIGURES["fig5"](Request(scenes)).axes
