from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mistnn.config import at_least
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig
from mistnn.weights import (
    FORMAT,
    StoredModel,
    TrainingRecord,
    load_model,
    read_config,
    save_model,
    strict_converter,
    tensor_digest,
)


@dataclass(frozen=True)
class FakeConfig(ModelConfig):
    kind: ClassVar[str] = "fake"
    width: Annotated[int, at_least(1)] = 4
    strength: float = 1.0
    names: tuple[str, ...] = ()
    limit: int | None = None

    def build(self) -> nn.Module:
        return Fake(self)


class Fake(nn.Module):
    steps: torch.Tensor

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(3, config.width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


KINDS = {"fake": FakeConfig}


def _plain(config: FakeConfig) -> dict[str, Any]:
    return strict_converter().unstructure(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _save(tmp_path / "run", FakeConfig(names=("a", "b")))


def _save(folder: Path, config: FakeConfig, storage: torch.dtype | None = None) -> Path:
    model = Fake(config)
    model.steps.fill_(7)
    save_model(folder, model, _plain(config), {"preset": "x", "train": {"steps": 7}}, storage)
    return folder


def _edit(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _fails(folder: Path, *words: str) -> None:
    with pytest.raises(MistError) as caught:
        load_model(folder, KINDS)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_round_trip(tmp_path: Path) -> None:
    config = FakeConfig(5, 2, ("a", "b"), 3)
    model = Fake(config)
    save_model(tmp_path / "run", model, _plain(config), {"seed": 1})
    loaded = load_model(tmp_path / "run", KINDS)
    assert isinstance(loaded, Fake)
    assert loaded.config == FakeConfig(5, 2.0, ("a", "b"), 3)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert sorted(os.listdir(tmp_path)) == ["run"]
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "model.safetensors"]


def test_config_has_the_documented_keys(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    assert list(raw) == ["format", "mistnn", "model", "experiment", "digest", "training"]
    assert raw["training"] is None and raw["model"]["kind"] == "fake"
    assert raw["format"] == 2 and raw["experiment"] == {"preset": "x", "train": {"steps": 7}}
    assert raw["digest"] == tensor_digest(load_file(folder / "model.safetensors"))
    assert read_config(folder).experiment["preset"] == "x"


FIRST = TrainingRecord(2000, 755.0, 1234.5, "a processor", {"python": "3.11"}, "0123456789ab")
SECOND = TrainingRecord(
    4000, 1500.0, 900.0, "another", {"python": "3.12"}, "unknown", start_from="runs/first", before=FIRST
)


@pytest.mark.parametrize("record", [FIRST, SECOND], ids=["fresh weights", "from others"])
def test_the_record_of_the_training_travels_with_the_weights(record: TrainingRecord, tmp_path: Path) -> None:
    config = FakeConfig()
    save_model(tmp_path / "run", Fake(config), _plain(config), {}, training=record)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"] == asdict(record)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((tmp_path / "run" / name).read_bytes())
    assert read_config(copy).training == record
    load_model(copy, KINDS)


def test_the_record_names_the_latest_training_first() -> None:
    assert [one.steps for one in SECOND.line()] == [4000, 2000]


def test_a_config_without_the_record_loads(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    del raw["training"]
    (folder / "config.json").write_text(json.dumps(raw))
    assert read_config(folder).training is None and raw["format"] == FORMAT == 2
    load_model(folder, KINDS)


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_model(folder, KINDS)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_storage(tmp_path: Path) -> None:
    torch.manual_seed(1)
    full = _save(tmp_path / "full", FakeConfig(400))
    torch.manual_seed(1)
    half = _save(tmp_path / "half", FakeConfig(400), torch.bfloat16)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (full / "model.safetensors").stat().st_size
    expected, found = load_model(full, KINDS).state_dict(), load_model(half, KINDS).state_dict()
    assert found["layer.weight"].dtype == torch.float32
    assert found["steps"].item() == 7
    torch.testing.assert_close(found["layer.weight"], expected["layer.weight"], rtol=2**-8, atol=0)
    assert not torch.equal(found["layer.weight"], expected["layer.weight"])


def test_digest_sees_values_names_types_and_shapes() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    sets = [
        {"a": one, "b": two}, {"a": two, "b": one}, {"a": one, "c": two}, {"a": one, "b": two.view(1, 2)},
        {"a": one, "b": two.view(torch.int32)}, {"a": one},
    ]  # fmt: skip
    assert len({tensor_digest(tensors) for tensors in sets}) == len(sets)
    assert tensor_digest({"b": two, "a": one}) == tensor_digest(sets[0])


def test_saving_again_keeps_the_other_files(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("{}\n")
    _save(folder, FakeConfig(9))
    assert load_model(folder, KINDS).state_dict()["layer.bias"].shape == (9,)
    assert sorted(os.listdir(folder)) == ["config.json", "metrics.jsonl", "model.safetensors"]


@pytest.mark.parametrize("renames", [0, 1, 2])
@pytest.mark.parametrize("exists", [True, False])
def test_a_save_cut_off_at_any_rename_leaves_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, exists: bool
) -> None:
    folder = tmp_path / "run"
    if exists:
        _save(folder, FakeConfig(2))
    real, done = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt  # stands for a kill: nothing of ours runs after it
        done.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    try:
        _save(folder, FakeConfig(3))
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    if not exists and renames == 0:
        assert not folder.exists()
        _fails(folder, "no such folder")
    else:
        width = load_model(folder, KINDS).state_dict()["layer.bias"].shape[0]
        assert width == (3 if renames or not exists else 2)
    # The next save must not stumble over what was left.
    _save(folder, FakeConfig(4))
    assert load_model(folder, KINDS).state_dict()["layer.bias"].shape == (4,)
    assert os.listdir(tmp_path) == ["run"] and len(os.listdir(folder)) == 2


def test_a_failed_write_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MistError, match="No space left on device"):
        _save(folder, FakeConfig(6))
    assert ((folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()) == before


def test_tied_weights_are_stored(tmp_path: Path) -> None:
    model = Fake(FakeConfig(3))
    model.other = nn.Linear(3, 3)
    model.other.weight = model.layer.weight
    save_model(tmp_path / "run", model, _plain(FakeConfig(3)), {})
    assert {"layer.weight", "other.weight"} <= set(load_file(tmp_path / "run" / "model.safetensors"))


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MistError, match="can't write to"):
        _save(tmp_path / "file" / "run", FakeConfig())


def test_run_without_weights_yet(tmp_path: Path) -> None:
    stored = StoredModel(FORMAT, "0.1", _plain(FakeConfig()), {"a": 1}, digest=None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(asdict(stored)))
    assert read_config(tmp_path / "run").digest is None
    assert read_config(tmp_path / "run").experiment == {"a": 1}
    _fails(tmp_path / "run", "not saved any weights yet", "--resume")
    _save(tmp_path / "run", FakeConfig())
    load_model(tmp_path / "run", KINDS)


def test_no_such_model(tmp_path: Path) -> None:
    _fails(tmp_path / "gone", "gone", "shipped models")
    (tmp_path / "empty").mkdir()
    _fails(tmp_path / "empty", "not a model folder", "config.json")
    (tmp_path / "file").write_text("")
    _fails(tmp_path / "file", "is a file")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"format": 3, "mistnn": "9.9", "new": 1}, ("format 3", "format 2", "9.9")),
        ({"format": 1, "kind": "fake"}, ("format 1", "format 2", "mistnn 0.1.0")),
        ({"format": "1"}, ("format '1'",)),
        ({"format": True}, ("format True",)),
        ({"format": None}, ("no format",)),
        ({"surprise": 1}, ("unknown key 'surprise'",)),
        ({"model": {"kind": "spair"}}, ("'spair'", "fake")),
        ({"model": {"kind": 3}}, ("'3'", "fake")),
        ({"model": {"kind": None}}, ("'None'", "fake")),
        ({"model": []}, ("[] is not an object", "model")),
        ({"model": {"kind": "fake", "widht": 4}}, ("unknown key 'widht'",)),
        ({"model": {"kind": "fake", "width": "4"}}, ("'4' is not a whole number", "width")),
        ({"model": {"kind": "fake", "width": True}}, ("True is not a whole number", "width")),
        ({"model": {"kind": "fake", "width": 0}}, ("model.width=0 must be 1 or more",)),
        ({"model": {"kind": "fake", "names": [1]}}, ("1 is not a string",)),
        ({"model": {"kind": "fake", "width": 6}}, ("missing key 'strength'",)),
        (
            {"model": {"kind": "fake", "width": 6, "strength": 1.0, "names": [], "limit": None}},
            ("tensor layer.", "has shape (4,", "asks for (6,"),
        ),
        ({"training": {"steps": 3}}, ("missing key 'seconds'", "training")),
        ({"training": asdict(FIRST) | {"steps": "3"}}, ("'3' is not a whole number", "training.steps")),
        ({"training": asdict(SECOND) | {"before": {"steps": 3, "x": 1}}}, ("unknown key 'x'", "training.before")),
        ({"digest": "0" * 64}, ("000000000000", "sha256")),
        ({"digest": None}, ("expected none",)),
    ],
)
def test_bad_config(folder: Path, entries: dict[str, object], words: tuple[str, ...]) -> None:
    load_model(folder, KINDS)
    _edit(folder, **entries)
    _fails(folder, *words)


@pytest.mark.parametrize("key", ["format", "model", "experiment", "mistnn", "digest"])
def test_missing_key(folder: Path, key: str) -> None:
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    del raw[key]
    path.write_text(json.dumps(raw))
    _fails(folder, "format" if key == "format" else f"missing key '{key}'")


def test_config_that_is_no_json(folder: Path) -> None:
    path = folder / "config.json"
    data = path.read_bytes()
    for text, word in ((data[: len(data) // 2], "valid JSON"), (b"[1]", "list"), (b"\xff\xfe", "can't be read")):
        path.write_bytes(text)
        _fails(folder, str(path), word)


def test_weights_cut_anywhere(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for length in (0, 4, 8, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        _fails(folder, str(path), f"{length} bytes")
    path.write_bytes(data)
    load_model(folder, KINDS)


def test_one_flipped_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    _fails(folder, "not the file that config.json describes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("layer.bias"), ("lacks 1", "layer.bias")),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), ("unknown 1", "extra")),
        (lambda tensors: tensors.update(steps=torch.zeros(())), ("steps", "float32", "int64")),
        (lambda tensors: tensors.update({"layer.bias": torch.zeros(4, dtype=torch.float64)}), ("float64",)),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, change: object, words: tuple[str, ...]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)  # pyright: ignore[reportCallIssue]
    save_file(tensors, folder / "model.safetensors")
    _edit(folder, digest=tensor_digest(tensors))
    _fails(folder, *words)


def test_missing_weights_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _fails(folder, "has no model.safetensors")


def test_mist_round_trip(tmp_path: Path) -> None:
    from mistnn.models.mist import Mist, MistConfig
    from mistnn.nn.heatmap import HeatmapConfig

    config = MistConfig(class_names=("a", "b"), k=3, heatmap=HeatmapConfig(network="small", blocks=1))
    model = Mist(config).eval()
    save_model(tmp_path / "run", model, strict_converter().unstructure(config), {})
    loaded = load_model(tmp_path / "run")
    assert isinstance(loaded, Mist) and loaded.config == config
    images = torch.rand(2, 1, 40, 40)
    for expected, found in zip(model.detect(images), loaded.detect(images), strict=True):
        assert torch.equal(expected.boxes, found.boxes) and torch.equal(expected.scores, found.scores)
