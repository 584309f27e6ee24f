"""The Python interface: small runs, presets, saving, and the code of its page."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import mistnn
from mistnn.api import with_settings
from mistnn.api.given import given_folder
from mistnn.errors import MistError
from mistnn.experiments import describe
from mistnn.presets import find_preset
from mistnn.records import Sample
from tests.experiments.tiny import TINY
from tests.test_api_inputs import Listed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def shapes() -> tuple[list[NDArray[np.uint8]], list[dict[str, int]]]:
    """Dark squares on a light background, 10 px each."""
    random = np.random.default_rng(0)
    images, counts = [], []
    for _ in range(7):
        image = np.full((32, 40, 3), 230, dtype=np.uint8)
        places = random.permutation(6)[: random.integers(1, 4)]
        for place in places:
            y, x = 2 + 15 * (place // 3), 2 + 13 * (place % 3)
            image[y : y + 10, x : x + 10] = (60, 40, 150)
        images.append(image)
        counts.append({"square": len(places)})
    return images, counts


@pytest.fixture(scope="module")
def fitted(shapes: Any) -> mistnn.Model:
    return mistnn.fit(*shapes, steps=2, threads=1, device="cpu", progress=False)


def test_fit_chooses_and_says_so(fitted: mistnn.Model, shapes: Any) -> None:
    assert fitted.class_names == ("square",) and fitted.model.config.background
    assert fitted.model.config.k == max(row["square"] for row in shapes[1])
    assert fitted.model.config.threshold > 0
    assert any("K = " in note for note in fitted.notes) and any(note == "steps = 2, as given" for note in fitted.notes)
    assert [line["step"] for line in fitted.history] == [2, 2]
    assert fitted.training is not None and fitted.training.steps == 2
    assert fitted.experiment.data.kind == "folder" and "square" in repr(fitted)


def test_a_seed_reproduces_the_fit(fitted: mistnn.Model, shapes: Any, capfd: pytest.CaptureFixture[str]) -> None:
    again = mistnn.fit(*shapes, steps=2, threads=1, device="cpu", progress=False)
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert capfd.readouterr().out == ""


def test_predict_evaluate_save_load(fitted: mistnn.Model, shapes: Any, tmp_path: Path) -> None:
    images, counts = shapes
    measured = fitted.evaluate(images, counts)
    found = fitted.predict_many(images)
    errors = [abs(len(one) - row["square"]) for one, row in zip(found, counts, strict=True)]
    assert measured["count_error"] == pytest.approx(np.mean(errors))
    true = [row["square"] for row in counts]
    assert measured["count_error_mean"] == pytest.approx(np.abs(np.array(true) - np.mean(true)).mean())
    assert measured["objects"] == sum(true) and measured["images"] == 7
    fitted.save(tmp_path / "model")
    loaded = mistnn.load(tmp_path / "model")
    assert isinstance(loaded, mistnn.Model)
    assert loaded.history == fitted.history and loaded.config == fitted.config and loaded.training == fitted.training
    assert loaded.experiment == fitted.experiment
    assert loaded.evaluate(images, counts) == measured
    for one, other in zip(found, loaded.predict_many(images), strict=True):
        assert (
            torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores) and one.counts == other.counts
        )
    with pytest.raises(MistError, match="data_root= in Python"):
        loaded.measure()
    with pytest.raises(ValueError, match="these images have no counts"):
        loaded.evaluate(images)
    with pytest.raises(ValueError, match="classes disc, and those of the model are square"):
        loaded.evaluate(images, {"disc": [1] * 7})


@pytest.mark.plain
def test_predict_many_takes_no_folder_and_no_dictionary(fitted: mistnn.Model, tmp_path: Path) -> None:
    picture = np.zeros((9, 9, 3), np.uint8)
    for given in (tmp_path, str(tmp_path), {"a": picture}, Image.fromarray(picture), 3):
        with pytest.raises(ValueError, match="predict_many takes several images, got a .*: give a list"):
            fitted.predict_many(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images has the shape \(9, 9, 3\)"):  # one image, not nine
        fitted.predict_many(picture)


def test_measures_of_boxes(fitted: mistnn.Model) -> None:
    box, label = torch.tensor([[10.0, 10.0, 10.0, 10.0]]), torch.zeros(1, dtype=torch.int64)
    sample = Sample(torch.rand(3, 30, 30), torch.tensor([1]), box, label)
    assert {"count_error", "precision", "recall", "f1"} <= fitted.evaluate([sample] * 2).keys()


def test_a_run_folder_can_be_resumed(shapes: Any, fitted: mistnn.Model, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few: dict[str, Any] = {"threads": 1, "device": "cpu", "progress": False, "out": out, "steps": 2}
    kept = mistnn.fit(*shapes, **few)
    assert all(torch.equal(value, kept.model.state_dict()[name]) for name, value in fitted.model.state_dict().items())
    with pytest.raises(MistError, match="already holds a run"):
        mistnn.fit(*shapes, **few)
    again = mistnn.fit(*shapes, **few, resume=True)
    assert again.history == kept.history
    assert len(mistnn.fit(*shapes, **few, force=True).history) == 2
    images, counts = shapes
    turned = [image[::-1].copy() for image in images]
    fewer = [{"square": 1}, *counts[1:]]
    for others in ((turned, counts), (images, fewer if fewer != counts else counts[::-1]), (images[1:], counts[1:])):
        with pytest.raises(MistError, match="started with other images or counts"):
            mistnn.fit(*others, **few, resume=True)


class Samples(torch.utils.data.Dataset[Sample]):
    """Black images of 80 px with one set of counts."""

    def __init__(self, counts: list[int], image: Tensor | None = None) -> None:
        self.sample = Sample(torch.zeros(1, 80, 80) if image is None else image, torch.tensor(counts))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return self.sample


@pytest.mark.plain
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Samples([1, 2]), "counts 2 classes, and the model has 10"),
        (Samples([-1, *[0] * 9]), "-1 is not a whole number"),
        (Samples([1] * 10, torch.full((1, 80, 80), 255.0)), "must lie in 0-1, got 255"),
        (Samples([1] * 10, torch.zeros(3, 80, 80)), "has 3 channels, and the model 1"),
        ([], "map-style Dataset"),
        (7, "map-style Dataset"),
    ],
)
def test_samples_are_checked_when_they_are_read(samples: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        mistnn.train("mist-mnist-hard", steps=1, samples=samples, threads=1, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 3, "settings": {"train.steps": 5}}, "steps=3 and settings"),
        ({"seed": 3, "settings": {"train.seed": 3}}, "seed=3 and settings"),
        ({"threads": "2"}, "threads='2' must be a whole number"),
    ],
)
def test_conflicts_and_other_types_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistnn.train("demo", **arguments)


@pytest.mark.parametrize(("part", "message"), [("step", "step"), ("data", "not for data of kind 'common-object'")])
def test_parts_of_another_system_are_refused(fitted: mistnn.Model, tmp_path: Path, part: str, message: str) -> None:
    fitted.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    content = json.loads(path.read_text())
    content["experiment"][part] = describe(find_preset("stn-coloc-t-0").experiment)["experiment"][part]
    path.write_text(json.dumps(content))
    with pytest.raises(MistError, match=rf"config\.json can't be read.*{message}"):
        mistnn.load(tmp_path / "model")


def test_interrupted(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mistnn import api
    from mistnn.training import FitResult

    monkeypatch.setattr(api, "train_experiment", lambda *_, **__: FitResult(1, 0.0, interrupted=True))
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 of 2 steps$"):
        mistnn.fit(*shapes, steps=2)


def test_discovery_without_counts(shapes: Any) -> None:
    model = mistnn.fit(shapes[0], k=2, steps=1, threads=1, device="cpu", progress=False)
    assert model.class_names == () and len(model.predict(shapes[0][0])) == 2
    assert {"rmse", "r2", "images"} <= model.evaluate(shapes[0]).keys()
    assert model.evaluate(*[shapes[0], [row["square"] for row in shapes[1]]])["images"] == 7


def test_presence_alone(shapes: Any) -> None:
    samples = [
        Sample(torch.from_numpy(image).permute(2, 0, 1) / 255, presence=torch.tensor([True, index % 2 == 0]))
        for index, image in enumerate(shapes[0])
    ]
    with pytest.raises(ValueError, match="give k"):
        mistnn.fit(samples)
    model = mistnn.fit(samples, k=2, class_names=("a", "b"), steps=1, threads=1, device="cpu", progress=False)
    assert {"presence", "presence_guess"} <= model.evaluate(samples).keys()


def test_steps_shrink_with_the_images() -> None:
    from mistnn.api import _default_steps

    planned = find_preset("my-folder").experiment
    folders = [given_folder([np.zeros((side, side), np.uint8)] * 3, [1, 2, 3]) for side in (16, 64, 400)]
    steps = [_default_steps(planned, folder) for folder in folders]
    assert steps[0] > steps[1] > steps[2] == 300


def test_train_a_preset_and_an_experiment(tmp_path: Path) -> None:
    model = mistnn.train(TINY, steps=2, settings={"train.batch_size": 2}, seed=4, progress=False, out=tmp_path / "run")
    assert isinstance(model, mistnn.Model)
    assert (model.experiment.train.steps, model.experiment.train.batch_size, model.experiment.train.seed) == (2, 2, 4)
    assert {"iou50", "rmse"} <= model.measure(4).keys() and mistnn.evaluate(tmp_path / "run", 4) == model.measure(4)
    own = Listed([TINY.data.open("train")[index] for index in range(5)])
    assert isinstance(mistnn.train(TINY, steps=1, samples=own, progress=False), mistnn.Model)


def test_a_classifier_is_a_trained_network(tmp_path: Path) -> None:
    network = mistnn.train(_classifier(), steps=1, settings=_small(), progress=False)
    assert type(network) is mistnn.TrainedNetwork
    network.save(tmp_path / "model")
    assert type(mistnn.load(tmp_path / "model")) is mistnn.TrainedNetwork
    with pytest.raises(MistError, match="finds no objects"):
        mistnn.from_pretrained(tmp_path / "model")


def _classifier() -> str:
    from mistnn.experiments import system_of
    from mistnn.presets import PRESETS

    return next(name for name, one in PRESETS.items() if system_of(one.experiment.model).is_classifier)


def _small() -> dict[str, Any]:
    return {"train.batch_size": 2, "evaluation_images": 0, "data.source": "embedded"}


def test_settings() -> None:
    preset = find_preset("mist-mnist-3").experiment
    changed = with_settings(preset, {"model.k": 5, "model.scales": (1, 1.5), "data.counts": [2, 3]})
    model: Any = changed.model
    assert (model.k, model.scales, changed.data.known.counts) == (5, (1, 1.5), (2, 3))
    for settings, message in (
        ({"model.kk": 5}, "no setting is called 'model.kk': did you mean 'model.k'"),
        ({"model.k.x": 5}, "no setting is called 'model.k.x'"),
        ({"model.kind": "grid"}, "no setting is called 'model.kind'"),
        ({"model.k": "5"}, "settings model.k: .*k"),
        ({"model.k": 0}, "model.k=0 must be 1 or more"),
    ):
        with pytest.raises(MistError, match=message):
            with_settings(preset, settings)
    with pytest.raises(MistError, match="did you mean mist-mnist-3"):
        mistnn.train("mist-mnist-33")


def test_folder_as_on_the_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tests.data.folders import make_folder

    make_folder(tmp_path / "mine", 12, zoom=1)
    few: dict[str, Any] = {"threads": 1, "device": "cpu", "progress": False, "steps": 1}
    with caplog.at_level(logging.INFO, "mistnn"):
        model = mistnn.fit(tmp_path / "mine", **few)
    assert model.class_names == ("one", "two", "zero") and "K = 3" in caplog.text
    preset = mistnn.train("my-folder", data_root=tmp_path / "mine", **few)
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, preset.model.state_dict()[name]), name
    assert preset.measure()["images"] >= 1
    assert model.evaluate(tmp_path / "mine")["images"] == 12


# Documentation.

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def discs_and_squares(number: int, seed: int) -> tuple[list[NDArray[np.uint8]], list[dict[str, int]]]:
    """Dark discs and squares, 12 px wide, on light noise, in images of 64 px."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    images, counts = [], []
    for _ in range(number):
        image = random.integers(200, 240, (64, 64, 3)).astype(np.uint8)
        places = random.permutation(9)[: random.integers(1, 6)]
        kinds = random.integers(0, 2, len(places))
        for place, kind in zip(places, kinds, strict=True):
            left, top = 11 + 21 * (place % 3) + random.integers(-2, 3), 11 + 21 * (place // 3) + random.integers(-2, 3)
            across, down = abs(x - left), abs(y - top)
            image[(across**2 + down**2 <= 36) if kind else (np.maximum(across, down) <= 5)] = (40, 60, 90)
        images.append(image)
        counts.append({"disc": int(kinds.sum()), "square": int(len(places) - kinds.sum())})
    return images, counts


@pytest.mark.slow
def test_fit_of_forty_images_takes_minutes() -> None:
    """`fit` on 40 images of 64 px: at most five minutes on two cores, and far better than guessing the mean."""
    start = time.perf_counter()
    model = mistnn.fit(*discs_and_squares(40, 0), progress=False)
    seconds = time.perf_counter() - start
    found = model.evaluate(*discs_and_squares(100, 1))
    print(f"fit: {seconds:.0f} s, count error {found['count_error']:.2f}, mean {found['count_error_mean']:.2f}")
    assert seconds < 300
    assert found["count_error"] < 0.25 * found["count_error_mean"]


@pytest.mark.slow
def test_code_of_the_page_runs(shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in order, as one session, with very few steps."""
    monkeypatch.chdir(tmp_path)
    from mistnn import api

    monkeypatch.setattr(api, "FEWEST_STEPS", 2)
    monkeypatch.setattr(api, "MOST_STEPS", 2)
    images, counts = shapes
    session: dict[str, Any] = {"__name__": "api", "images": images, "counts": [row["square"] for row in counts]}
    session["image"] = session["images"][0]
    blocks = BLOCK.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 8
    for number, block in enumerate(blocks, start=1):
        fewer = re.sub(r"steps=\d{3,}", "steps=2", block)
        exec(compile(fewer, f"docs/api.md, block {number}", "exec"), session)


def test_reference_names_everything_public() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    missing = [name for name in mistnn.__all__ if name != "__version__" and f":: mistnn.{name}\n" not in text]
    ops = [f"mistnn.ops.{path.stem}" for path in (ROOT / "src/mistnn/ops").glob("*.py") if path.stem != "__init__"]
    missing += [name for name in ops if f"automodule:: {name}\n" not in text]
    assert not missing
