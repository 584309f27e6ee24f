"""An experiment: described and restored, built from its seed, trained, resumed and measured."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mistnn.data import Scenes
from mistnn.errors import MistError
from mistnn.experiments import Experiment, build, check, describe, evaluate, evaluate_stored, read_log, restore, train
from mistnn.experiments import mist as off_centre
from mistnn.experiments.measuring import Measurement
from mistnn.metrics import DetectionMetrics
from mistnn.models.mist import Mist, off_centre_note
from mistnn.presets import PRESETS, find_preset
from mistnn.weights import commit, read_config, versions
from tests.experiments.tiny import TINY, changed, with_counts


def write_config(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model() -> Mist:
    """Freshly started weights, in training mode."""
    return build(TINY).model.train()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four uninterrupted steps; not to be changed."""
    out = tmp_path_factory.mktemp("experiment") / "run"
    train(changed(steps=4), out)
    return out


def test_names_are_unique_and_said() -> None:
    names = [preset.name for preset in PRESETS.values()]
    assert len(set(names)) == len(names) and list(PRESETS) == names
    assert {"demo", "mist-mnist-hard", "mist-mnist-3"} <= set(names)
    assert all(preset.summary and "\n" not in preset.summary for preset in PRESETS.values())
    assert len({(preset.experiment, preset.plan) for preset in PRESETS.values()}) == len(names), (
        "two presets are the same"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_config(name: str, tmp_path: Path) -> None:
    experiment = find_preset(name).experiment
    check(experiment)
    assert restore(write_config(tmp_path / "run", describe(experiment))) == experiment.resolved()


def test_every_field_survives(tmp_path: Path) -> None:
    """Values that no preset has. Where the digits lie is of the machine, so the root is left out."""
    other = dataclasses.replace(
        TINY,
        model=dataclasses.replace(TINY.model, class_names=(), patch_window=0.25),
        data=dataclasses.replace(TINY.data, counts=(1, 1, 3), object_size=(8, 12), root="somewhere"),
        train=dataclasses.replace(TINY.train, threads=3, tensorboard=True),
    )
    without_root = dataclasses.replace(other, data=dataclasses.replace(other.data, root=None))
    assert restore(write_config(tmp_path / "run", describe(other))) == without_root


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    for index, (part, key) in enumerate((("step", "momentum"), ("data", "colour"), (None, "extra"))):
        content = describe(TINY)
        (content["experiment"] if part is None else content["experiment"][part])[key] = 1
        with pytest.raises(MistError, match=f"config.json.*unknown key '{key}'") as caught:
            restore(write_config(tmp_path / str(index), content))
        assert "\n" not in str(caught.value)
    content = describe(TINY)
    del content["experiment"]["step"]["order"]
    with pytest.raises(MistError, match="missing key 'step.order'"):  # a default would silently change an old model
        restore(write_config(tmp_path / "missing", content))


def test_find_preset_suggests() -> None:
    assert find_preset("demo").name == "demo"
    with pytest.raises(MistError, match="'mist-mnist3'.*did you mean mist-mnist-3"):
        find_preset("mist-mnist3")
    with pytest.raises(MistError, match="'zzz'.*mist presets"):
        find_preset("zzz")


def test_build_follows_the_seed_alone() -> None:
    first = build(TINY).model.state_dict()
    torch.rand(7)
    again, other = build(TINY).model.state_dict(), build(changed(seed=4)).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("misfit", "words"),
    [
        (dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=("a", "b"))), "2 classes.* 10:"),
        (dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, k=32 * 32 + 1)), "model.k=1025.*1024 pixels"),
        (dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, channels=3)), "model.channels=3"),
    ],
    ids=["classes", "k", "channels"],
)
def test_misfits_are_refused_before_anything_is_written(misfit: Experiment, words: str, tmp_path: Path) -> None:
    with pytest.raises(MistError, match=words):
        check(misfit)
    with pytest.raises(MistError, match=words):
        train(misfit, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_impossible_number_of_evaluation_images_is_refused() -> None:
    with pytest.raises(MistError, match="evaluation_images=-1 must be 0 or more"):
        dataclasses.replace(TINY, evaluation_images=-1)


def test_check_takes_what_fits() -> None:
    check(TINY)
    check(dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=())))
    check(dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, k=32 * 32)))


def test_each_scene_has_its_own_k(model: Mist) -> None:
    """The loop twin: one scene at a time, with as many detections as it has digits."""
    data, images = with_counts(1, 2, 4), 8
    scenes = Scenes(data, "test", images)
    expected = DetectionMetrics()
    counts = set()
    model.eval()
    for index in range(images):
        sample = scenes[index]
        assert sample.boxes is not None and sample.labels is not None
        counts.add(len(sample.labels))
        with torch.inference_mode():
            found = model.detect(sample.image[None], len(sample.labels))
        expected.update(found, [sample.boxes], [sample.labels])
    model.train()
    assert counts == {1, 2, 4}
    measured = evaluate(model, data, "test", images)
    wanted = {name: value for name, value in expected.compute().items() if name != "count_error"}
    assert {name: measured[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    assert set(measured) - set(wanted) == {"rmse", "rmse_black", "rmse_mean", "r2"}  # it has a decoder


def test_scenes_without_objects_count(model: Mist) -> None:
    scenes = Scenes(with_counts(0, 2), "test", 6)
    objects = [len(boxes) for boxes in (scenes[index].boxes for index in range(6)) if boxes is not None]
    assert set(objects) == {0, 2}
    measured = evaluate(model, with_counts(0, 2), "test", 6)
    assert (measured["images"], measured["objects"]) == (6, sum(objects))
    assert all(math.isfinite(value) for value in measured.values())


def test_the_batch_does_not_matter(model: Mist, monkeypatch: pytest.MonkeyPatch) -> None:
    data, heard = with_counts(1, 2), []
    together = evaluate(model, data, "test", 7)
    monkeypatch.setattr(Measurement, "at_once", 3)
    apart = evaluate(model, data, "test", 7, lambda done, total: heard.append((done, total)))
    assert apart == pytest.approx(together, abs=1e-6)
    assert heard == [(3, 7), (6, 7), (7, 7)]


def test_evaluating_changes_nothing(model: Mist) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    for mode in (True, False, True):
        model.train(mode)
        evaluate(model, TINY.data, "validation", 2)
        assert all(module.training is mode for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_splits_and_seeds_are_other_scenes(model: Mist) -> None:
    other = dataclasses.replace(TINY.data, seed=1)
    measured = [
        evaluate(model, data, split, 12)
        for data, split in ((TINY.data, "test"), (TINY.data, "validation"), (other, "test"), (TINY.data, "test"))
    ]
    assert measured[0] == measured[3]
    assert measured[0] != measured[1] and measured[0] != measured[2]


def test_a_model_without_classes_is_measured_by_place_alone() -> None:
    nameless = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=()))
    measured = evaluate(build(nameless).model, TINY.data, "test", 2)
    assert "iou50" in measured and "both" not in measured and "classified" not in measured


def test_a_saved_run_measures_as_the_model_in_memory(tmp_path: Path) -> None:
    seen: list[tuple[int, Mist]] = []
    result = train(changed(steps=2), tmp_path / "run", observe=lambda step, model: seen.append((step, model)))
    assert result.steps == 2 and [step for step, _ in seen] == [0, 1, 2]
    model = seen[-1][1]
    assert restore(tmp_path / "run") == changed(steps=2)
    assert evaluate_stored(tmp_path / "run", 5) == pytest.approx(evaluate(model, TINY.data, "test", 5))
    other = dataclasses.replace(TINY.data, seed=9)
    assert evaluate_stored(tmp_path / "run", 5, seed=9) == pytest.approx(evaluate(model, other, "test", 5))


def test_resumed_equals_uninterrupted_bit_for_bit(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "halves"
    train(changed(steps=2), out)
    half = load_file(out / "model.safetensors")
    result = train(changed(steps=4), out, resume=True)
    assert result.steps == 4
    for name in ("model.safetensors", "checkpoint/state.safetensors"):
        whole, resumed = load_file(run / name), load_file(out / name)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole), name
    resumed = load_file(out / "model.safetensors")
    assert any(not torch.equal(half[key], resumed[key]) for key in half), "the second half learnt nothing"
    timed = ("seconds", "images_per_second", "peak_memory_mib")
    logs = [
        [{name: value for name, value in line.items() if name not in timed} for line in read_log(folder)]
        for folder in (run, out)
    ]
    assert logs[0] == logs[1] and [line["step"] for line in logs[0]] == [1, 2, 3, 4]


def test_a_run_is_not_overwritten_unasked(run: Path, tmp_path: Path) -> None:
    config = (run / "config.json").read_bytes()
    with pytest.raises(MistError, match="already holds a run"):
        train(TINY, run)
    assert (run / "config.json").read_bytes() == config


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MistError, match="metrics.jsonl.*run folder"):
        read_log(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(MistError, match="metrics.jsonl.*can't be read"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "spread", "fires"),
    [
        (0.0, 0.0, 0.0, False),
        (3.0, 4.0, 0.5, True),
        (-3.0, -4.0, 4.9, True),
        (3.0, 4.0, 5.1, False),  # large, but each keypoint stands elsewhere
        (1.2, 1.5, 0.1, False),  # constant, but below a tenth of the box
        (1.3, 1.6, 0.1, True),
    ],
)
def test_off_centre_only_if_constant_and_large(x: float, y: float, spread: float, fires: bool) -> None:
    note = off_centre_note({"offset_x": x, "offset_y": y, "offset_spread": spread}, 20.0)
    assert (note is not None) is fires
    if note is not None:
        assert "\n" not in note and "reconstruction" in note and "decoder" in note


def test_off_centre_note_says_where_the_keypoints_are() -> None:
    """The logged offset is that of the ink as seen from the keypoint: ink to the right, keypoint to the left."""
    note = off_centre_note({"offset_x": 3.0, "offset_y": -4.0, "offset_spread": 0.0}, 20.0)
    assert note is not None and "5.0 px" in note and "x -3.0" in note and "y +4.0" in note


@pytest.mark.parametrize("off", [True, False])
def test_training_passes_the_note_on_once(off: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def note(values: dict[str, float], box_size: float) -> str | None:
        assert {"offset_x", "offset_y", "offset_spread"} <= values.keys()
        asked.append(box_size)
        return "beside" if off else None

    monkeypatch.setattr(off_centre, "off_centre_note", note)
    heard: list[str] = []
    train(changed(steps=1, batch_size=2), tmp_path / "run", on_note=heard.append)
    assert asked == [12.0] and heard == ["beside"] * off


def test_a_run_records_what_it_took(run: Path, tmp_path: Path) -> None:
    record = read_config(run).training
    assert record is not None
    assert (record.steps, record.start_from, record.before) == (4, None, None)
    assert (record.versions, record.commit) == (versions(), commit())
    assert record.hardware.endswith(", 1 threads"), "the run's threads, not this process's"
    log = read_log(run)
    assert 0 < record.seconds <= log[-1]["seconds"] + 1 and 10 < record.peak_memory_mib < 1e5


def test_a_run_that_went_on_elsewhere_names_both_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    for steps, machine in ((1, "A"), (2, "A"), (3, "B"), (4, "B"), (5, "C")):
        monkeypatch.setattr("mistnn.experiments.run.hardware", lambda device, machine=machine: machine)
        train(changed(steps=steps), out, resume=steps > 1)
        record = read_config(out).training
        assert record is not None
        expected = {2: "A", 4: "A until step 2; then B", 5: "A until step 2; then B until step 4; then C"}
        assert record.hardware == expected.get(steps, record.hardware)


def test_a_resumed_run_records_all_its_parts(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(changed(steps=2), out)
    first = read_config(out).training
    train(changed(steps=4), out, resume=True)
    both = read_config(out).training
    assert first is not None and both is not None
    assert (first.steps, both.steps) == (2, 4) and both.seconds >= first.seconds
    assert both.peak_memory_mib >= first.peak_memory_mib and both.before is None


def test_the_record_is_no_part_of_what_a_resume_compares(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(changed(steps=2), out)
    assert describe(changed(steps=2))["training"] is None and describe(restore(out)) == describe(changed(steps=2))
    config = json.loads((out / "config.json").read_text())
    del config["training"]  # as before there was one
    (out / "config.json").write_text(json.dumps(config))
    assert train(changed(steps=3), out, resume=True).steps == 3


def test_a_run_remembers_what_it_started_from(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(run, first)
    started = dataclasses.replace(changed(steps=2), start_from=str(first))
    train(started, tmp_path / "second")
    record = read_config(tmp_path / "second").training
    assert record is not None
    assert (record.steps, record.start_from, record.before) == (2, str(first), read_config(run).training)
    shutil.rmtree(first)
    train(dataclasses.replace(changed(steps=3), start_from=str(first)), tmp_path / "second", resume=True)
    resumed = read_config(tmp_path / "second").training
    assert resumed is not None and resumed.before == record.before, "it may be gone by then"


def test_a_start_without_a_record_is_named(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    for name in ("config.json", "model.safetensors"):
        (first / name).write_bytes((run / name).read_bytes())
    config = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps(config | {"training": None}))
    train(dataclasses.replace(changed(steps=1), start_from=str(first)), tmp_path / "second")
    record = read_config(tmp_path / "second").training
    assert record is not None and (record.start_from, record.before) == (str(first), None)


def test_a_run_stopped_before_its_first_checkpoint_starts_from_the_same_weights(run: Path, tmp_path: Path) -> None:
    """It has none of its own yet."""
    started = dataclasses.replace(changed(steps=1), start_from=str(run))
    train(started, tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "config.json").write_text(json.dumps(describe(started)))
    train(started, tmp_path / "stopped", resume=True)
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    record = read_config(tmp_path / "stopped").training
    assert record is not None and record.before == read_config(run).training
