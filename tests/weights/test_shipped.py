from __future__ import annotations

from pathlib import Path

import pytest

from mistnn.errors import MistError
from mistnn.weights import load_model, read_config, resolve, shipped, shipped_folder, shipped_names


def _place(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("mist-mnist-hard", "mist-mnist-3"):
        _place(tmp_path / "shipped" / name)
    (tmp_path / "shipped" / "notes").mkdir()
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path / "shipped")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "shipped"


def test_names(names: Path) -> None:
    assert shipped_names() == ["mist-mnist-3", "mist-mnist-hard"]
    assert resolve("mist-mnist-3") == names / "mist-mnist-3"


def test_no_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path / "none")
    assert shipped_names() == []
    with pytest.raises(MistError, match="shipped models are none"):
        resolve("x")


def test_wrong_name_lists_all_and_the_closest(names: Path) -> None:
    with pytest.raises(MistError) as caught:
        resolve("mist-mnist-hrad")
    assert "mist-mnist-3, mist-mnist-hard" in str(caught.value)
    assert "did you mean mist-mnist-hard?" in str(caught.value)


def test_a_model_folder_goes_before_a_name_and_another_folder_after(names: Path) -> None:
    Path("mist-mnist-3").mkdir()
    assert resolve("mist-mnist-3") == names / "mist-mnist-3"
    Path("mist-mnist-3", "config.json").write_text("{}")
    assert resolve("mist-mnist-3") == Path("mist-mnist-3")


def test_every_shipped_model_loads_is_small_and_has_a_card() -> None:
    for name in shipped_names():
        folder = shipped_folder() / name
        assert read_config(name).digest is not None
        load_model(name)
        assert (folder / "model.safetensors").stat().st_size < 10e6
        assert (folder / "README.md").read_text(encoding="utf-8").strip()
