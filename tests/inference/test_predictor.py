from __future__ import annotations

import copy
import functools
import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mistnn.errors import MistError
from mistnn.inference import Predictor, predictor
from mistnn.inference.predictor import as_image_tensor
from mistnn.interfaces import ModelConfig
from mistnn.models.air import Air, AirConfig
from mistnn.models.conncomp import ConnComp, ConnCompConfig
from mistnn.models.mist import MistConfig
from mistnn.models.photos import PhotoConfig, PhotoMist
from mistnn.models.spair import Spair, SpairConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.weights import load_model, save_model, strict_converter
from tests.inference.fakes import FakeConfig, FakeDetector


def _spot(x: int, y: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    values = np.zeros(size, dtype=np.uint8)
    values[y, x] = 255
    return values


def test_finds_the_bright_spot_in_every_form(tmp_path: Path) -> None:
    values = _spot(17, 5)
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    wrapped = Predictor(FakeDetector())
    forms = [
        path, str(path), Image.fromarray(values), values, np.dstack([values] * 3), values.astype(np.uint16) * 257,
        values > 0, values / 255, torch.from_numpy(values)[None], torch.from_numpy(values / 255)[None].float(),
        np.asfortranarray(values), values[::-1][::-1], Image.fromarray(values.astype(np.uint16) * 257),
    ]  # fmt: skip
    for form in forms:
        found = wrapped.predict(form, k=1)
        assert found.boxes.tolist() == [[17.5, 5.5, 4, 4]]
        assert wrapped.names(found) == ["odd"]
        torch.testing.assert_close(found.scores, wrapped.predict(values, k=1).scores)


def test_colour_models_and_alpha() -> None:
    values = np.zeros((4, 5, 4), dtype=np.uint8)
    values[..., 0], values[..., 3] = 255, 51
    picture = Image.fromarray(values)
    tensor = as_image_tensor(picture, 3)
    assert tensor.shape == (3, 4, 5)
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([0.2, 0, 0]))
    torch.testing.assert_close(as_image_tensor(picture, 1)[0, 0, 0], torch.tensor(15 / 255))  # of 0.2 * 0.299
    assert as_image_tensor(values[..., 0], 3).shape == (3, 4, 5)
    values[..., 3] = 255
    assert torch.equal(as_image_tensor(values, 3), as_image_tensor(values[..., :3], 3))
    grey = torch.tensor([0.5, 1.0]).reshape(2, 1, 1).expand(2, 3, 3)
    assert torch.equal(as_image_tensor(grey, 1), torch.full((1, 3, 3), 0.5))
    assert torch.equal(as_image_tensor(grey / 2, 2), grey / 2)  # the channels of the model


def test_channels_of_a_microscope_are_not_taken_for_transparency() -> None:
    """The image became black where the last channel was dark."""
    for channels, fix in ((2, r"image\[..., 0\]"), (4, r"image\[..., :3\]")):
        values = np.full((4, 5, channels), 200, dtype=np.uint8)
        values[..., -1] = 0
        for image in (values, torch.from_numpy(values).permute(2, 0, 1), values / 255):
            with pytest.raises(ValueError, match=f"{channels} channels is used only if the last is opaque.*{fix}"):
                as_image_tensor(image, 3)


def test_k_defaults_to_that_of_the_training() -> None:
    wrapped = Predictor(FakeDetector(k=2))
    assert len(wrapped.predict(_spot(1, 1)).boxes) == 2
    assert len(wrapped.predict(_spot(1, 1), k=7).scores) == 7
    assert [len(found.boxes) for found in wrapped.predict_batch(torch.rand(3, 1, 8, 8))] == [2, 2, 2]


def test_the_most_that_models_report_which_count_themselves() -> None:
    """SPAIR and ConnComp have no K: what stops them is the size of the image."""
    small = SpairConfig(width=4, hidden=(4,), encoder=(4,), decoder=(4,), features=4, attributes=2)
    photos = PhotoMist(PhotoConfig(class_names=("a",), k=5, stride=8))
    models = (
        (Air(AirConfig(canvas=24, k=2)), 24, 2), (Spair(small), 24, 4), (ConnComp(ConnCompConfig()), 3, 5),
        (photos, 64, 5), (photos, 16, 4),
    )  # fmt: skip
    for model, side, most in models:
        wrapped = Predictor(model)
        assert [wrapped.at_limit(found, side, side, None) for found in (most - 1, most)] == [False, True]
        assert wrapped.at_limit(most, side, side, most) is None
    assert Predictor(FakeDetector(k=2)).at_limit(2, 9, 9, None) is None, "finds K by design"


def test_eval_mode_no_gradient_and_large_images_in_tiles() -> None:
    model = FakeDetector().train()
    found = Predictor(model, max_pixels=48 * 48).predict(_spot(80, 90, (100, 100)), k=1)
    assert found.boxes.tolist() == [[80.5, 90.5, 4, 4]]
    assert not found.scores.requires_grad and len(model.seen) > 1


def test_names_without_classes() -> None:
    wrapped = Predictor(FakeDetector(class_names=()))
    assert wrapped.names(wrapped.predict(_spot(1, 1))) == ["", ""]


@pytest.mark.plain
@pytest.mark.parametrize("k", [np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)])
def test_k_of_other_libraries(k: object) -> None:
    found = Predictor(FakeDetector()).predict(np.zeros((9, 9), np.uint8), k)
    assert len(found.boxes) == 2


@pytest.mark.plain
@pytest.mark.parametrize("k", [2.0, 2.5, float("nan"), True, np.bool_(True), "2", np.array([2]), [2]])
def test_k_that_is_no_whole_number(k: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number of 1 or more"):
        Predictor(FakeDetector()).predict(np.zeros((9, 9), np.uint8), k)


@pytest.mark.parametrize("k", [0, -1, 601])
def test_bad_k(k: int) -> None:
    said = "has room for 600 objects in this model, fewer than the 601" if k > 0 else f"be searched for {k} objects"
    with pytest.raises(MistError, match=said):
        Predictor(FakeDetector()).predict(_spot(1, 1), k)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (torch.zeros(4, 4), "shape"),
        (torch.zeros(1, 1, 4, 4), "shape"),
        (np.zeros(4), "height, width"),
        (np.zeros((2, 2, 5)), "1 to 4 channels, got 5"),
        (np.zeros((2, 2), dtype=np.int64), "int64"),
        (np.full((2, 2), 255.0), "0-1, got 255 to 255"),
        (np.full((2, 2), np.nan), "0-1, got nan"),
        (np.zeros((0, 2)), "at least one pixel"),
        (Image.fromarray(np.full((2, 2), 3, dtype=np.float32)), "0-1"),
    ],
)
def test_bad_image(image: object, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Predictor(FakeDetector()).predict(image)  # pyright: ignore[reportArgumentType]


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MistError, match=r"can't read .*gone\.png"):
        Predictor(FakeDetector()).predict(tmp_path / "gone.png")


@dataclass(frozen=True)
class LayerConfig(ModelConfig):
    kind: ClassVar[str] = "layer"
    k: int = 3

    def build(self) -> nn.Module:
        return nn.Linear(1, self.k)


def test_from_pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"fake": FakeConfig, "layer": LayerConfig}
    monkeypatch.setattr(predictor, "load_model", functools.partial(load_model, known=known))
    for name, config in (("a", FakeConfig(k=3)), ("b", LayerConfig())):
        save_model(tmp_path / name, config.build(), strict_converter().unstructure(config), {})
    assert len(Predictor.from_pretrained(tmp_path / "a").predict(_spot(1, 1)).boxes) == 3
    with pytest.raises(MistError, match="Linear, which finds no objects"):
        Predictor.from_pretrained(str(tmp_path / "b"))
    with pytest.raises(MistError, match="no model"):
        Predictor.from_pretrained("nothing")


@pytest.mark.plain
def test_arrays_of_other_libraries(tmp_path: Path) -> None:
    """Any byte order, read-only and not contiguous; numbers of NumPy; a path of any type."""
    predictor = Predictor(FakeDetector())
    grey = np.random.default_rng(0).integers(0, 256, (20, 24)).astype(np.uint8)
    wanted = predictor.predict(grey, 3).boxes
    frozen = grey.copy()
    frozen.flags.writeable = False
    Image.fromarray(grey).save(tmp_path / "a.png")
    deep = grey.astype(np.uint16) * 257
    for image in (
        frozen,
        np.asarray(Image.fromarray(grey)),
        np.asfortranarray(grey),
        grey[::-1].copy()[::-1],
        np.repeat(grey, 2, axis=1)[:, ::2],
        deep.astype(">u2"),
        deep.astype("<u2"),
        (grey / 255).astype(">f4"),
        (grey / 255).astype(np.longdouble),
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
    ):
        assert torch.equal(predictor.predict(image, 3).boxes, wanted)
    assert torch.equal(predictor.predict(grey, np.int64(3)).boxes, wanted)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a.png", "a.png"], "predict_many"),
        (io.BytesIO(b"x"), "BytesIO.*PIL.Image.open"),
        (b"x", "bytes.*PIL.Image.open"),
        (None, "got a NoneType"),
        (np.zeros((3, 3), complex), "complex128"),
        (np.array([["a"]]), "<U1"),
        (np.full((4, 4), np.nan), "0-1, got nan"),
        (np.zeros((0, 4)), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_named(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Predictor(FakeDetector()).predict(given)


@pytest.mark.parametrize("name", ["fake", "mist-mnist-3"])
def test_one_predictor_in_many_places(name: str) -> None:
    """From eight threads, copied, pickled, under autocast and with another default type: the same results."""
    predictor = Predictor(FakeDetector()) if name == "fake" else Predictor.from_pretrained(name)
    images = [torch.rand(1, 40, 44, generator=torch.Generator().manual_seed(one)) for one in range(12)]
    wanted = [predictor.predict(image, 3).boxes for image in images]

    def same(other: Predictor) -> None:
        for image, boxes in zip(images, wanted, strict=True):
            assert torch.equal(other.predict(image, 3).boxes, boxes)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: predictor.predict(image, 3).boxes, images))
    assert all(map(torch.equal, found, wanted))
    same(copy.deepcopy(predictor))
    same(pickle.loads(pickle.dumps(predictor)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        same(predictor)
    finally:
        torch.set_default_dtype(before)
    with torch.autocast("cpu", torch.bfloat16):
        same(predictor)


def found_boxes(predictor: Predictor, image: torch.Tensor) -> list[list[float]]:
    """In a worker process."""
    return predictor.predict(image, 3).boxes.tolist()


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_find_the_same(start: str) -> None:
    """A predictor that was used already goes to workers with one thread each, as those of a ``DataLoader``."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    predictor = Predictor.from_pretrained("mist-mnist-3")
    images = [torch.rand(1, 40, 44, generator=torch.Generator().manual_seed(one)) for one in range(4)]
    wanted = [found_boxes(predictor, image) for image in images]
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(2, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = [one.result(timeout=300) for one in [pool.submit(found_boxes, predictor, image) for image in images]]
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=1e-4)


@pytest.mark.parametrize("name", ["mist-mnist-3", "mist-discover-gabor"])
def test_another_default_device_changes_nothing(name: str) -> None:
    predictor = Predictor.from_pretrained(name)
    image = np.random.default_rng(0).random((80, 84)).astype(np.float32)
    wanted = predictor.predict(image, 3)
    with torch.device("meta"):
        found = predictor.predict(image, 3)
    assert found.boxes.device.type == "cpu" and torch.equal(found.boxes, wanted.boxes)


@pytest.mark.slow
def test_a_hundred_thousand_predictions_take_no_memory() -> None:
    resource = pytest.importorskip("resource")
    model = MistConfig(
        k=2, patch_size=8, heatmap=HeatmapConfig(channels=2, blocks=1), encoder=EncoderConfig("small", width=2, code=4)
    ).build()
    predictor = Predictor(model)
    images = [np.random.default_rng(one).random((24, 20 + one)).astype(np.float32) for one in range(3)]
    wanted = [predictor.predict(image).boxes for image in images]
    measured = []
    for number in range(100_000):
        found = predictor.predict(images[number % 3])
        if number % 10_000 == 9_999:
            assert torch.equal(found.boxes, wanted[number % 3])
            measured.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # MiB
    assert measured[-1] - measured[0] < 8, measured
