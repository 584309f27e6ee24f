"""Building PASCAL+COCO from miniatures in the real formats, and reading what was built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.data import NaturalConfig, NaturalImages, read_built, read_folder
from mistnn.data.photographs.build import PASCAL_COCO, VOC07, BuildConfig, build_photographs, crop_window
from mistnn.data.photographs.built import PADDING, masked, mirrored
from mistnn.data.photographs.published import read_coco, read_voc
from mistnn.errors import MistError
from mistnn.records import Sample
from tests.data.published import CLASSES, COCO_IDS, COLOURS, add_voc, draw, make_coco, make_voc, write_coco

MINE = dataclasses.replace(PASCAL_COCO, classes=CLASSES, shares=(70, 15, 15))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("published")
    make_voc(root / "voc")
    make_coco(root / "coco")
    return root


@pytest.fixture(scope="module")
def built(sources: Path) -> Path:
    """Not to be changed."""
    build_photographs("pascal-coco", MINE, sources / "built", sources / "voc", sources / "coco")
    return sources / "built"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A VOC folder to be damaged."""
    return make_voc(tmp_path / "voc")


def build(tmp_path: Path, voc: Path | None = None, coco: Path | None = None, **changes):
    return build_photographs("x", dataclasses.replace(MINE, **changes), tmp_path / "out", voc, coco)


def test_two_builds_of_one_folder(sources: Path, tmp_path: Path) -> None:
    """The second is refused while the first one writes, and takes nothing from it."""
    writes, done = threading.Event(), threading.Event()

    def first(number: int, total: int) -> None:
        writes.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        arguments = ("x", MINE, tmp_path / "out", sources / "voc", None)
        running = pool.submit(build_photographs, *arguments, first)
        assert writes.wait(60)
        try:
            with pytest.raises(MistError, match="another process or thread is writing"):
                build_photographs(*arguments)
        finally:
            done.set()
        assert running.result().images
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def entries(folder: Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((folder / "boxes.json").read_text())}


def test_voc_counts_from_one(sources):
    first = read_voc(sources / "voc")[0]
    assert first.name == "voc2007-000001" and (first.width, first.height) == (120, 150) and first.split == "train"
    (drawn,) = first.objects
    pixels = np.array(Image.open(first.path)).astype(int)
    left, top, right, bottom = map(int, drawn.corners)
    inside = pixels[top + 1 : bottom - 1, left + 1 : right - 1]
    assert abs(inside - np.array(COLOURS[drawn.label])).max() < 60, "the box is where the colour is"
    assert abs(pixels[top - 2, left:right] - np.array(COLOURS[drawn.label])).max() > 60


def test_coco_has_other_names(sources):
    photographs = read_coco(sources / "coco")
    assert {one.label for photograph in photographs for one in photograph.objects} == set(CLASSES)
    assert photographs[0].name == "coco-train2017-000000000009" and photographs[0].path.is_file()


def test_a_built_folder(built):
    """Every image square, of 224 px; boxes where the colours are; counts and splits as the lists say."""
    folder, drawn = read_built(str(built)), entries(built)
    assert folder.name == "pascal-coco" and folder.class_names == CLASSES
    many = {split: len(images) for split, images in folder.images.items()}
    described = json.loads((built / "dataset.json").read_text())
    assert many == described["images"] and sum(many.values()) == len(drawn) == 30 - sum(described["dropped"].values())
    assert many["train"] == pytest.approx(0.7 * len(drawn), abs=1) and min(many.values()) > 0
    covered = []
    for split in ("train", "validation", "test"):
        samples = NaturalImages(NaturalConfig(str(built)), split, 99)
        for index in range(len(samples)):
            sample = samples[index]
            assert sample.image.shape == (3, 224, 224)
            assert sample.counts.sum() == len(sample.boxes) in (1, 2)
            assert sample.counts.tolist() == torch.bincount(sample.labels, minlength=3).tolist()
            covered.append(float(sample.boxes[:, 2:].prod(1).sum()) / 224**2)
            for (x, y, _, _), label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
                colour = 255 * sample.image[:, int(y), int(x)]
                assert (colour - torch.tensor(COLOURS[CLASSES[label]])).abs().max() < 40
    assert described["covered"] == pytest.approx(sum(covered) / len(covered), abs=1e-3)


def test_mist_inspect_reads_it_too(built):
    folder = read_folder(built)
    assert folder.class_names == CLASSES and folder.counts_from == "counts.csv"
    ours = read_built(str(built))
    assert {image.split for image in folder.images} == {"train", "validation", "test"}
    assert sum(image.split == "train" for image in folder.images) == len(ours.images["train"])


def test_the_same_again(sources, built, tmp_path):
    again = build_photographs("pascal-coco", MINE, tmp_path / "again", sources / "voc", sources / "coco")
    assert again.digest == read_digest(built) == hashlib.sha256((built / "split.csv").read_bytes()).hexdigest()
    assert entries(tmp_path / "again") == entries(built)
    other = dataclasses.replace(MINE, seed=1)
    assert build_photographs("x", other, tmp_path / "other", sources / "voc", sources / "coco").digest != again.digest


def read_digest(folder: Path) -> str:
    return json.loads((folder / "dataset.json").read_text())["split_sha256"]


def test_filters(tmp_path):
    """One photograph for every rule, and what it is dropped for."""
    root = tmp_path / "voc"
    size = (200, 200)
    for number, label in enumerate(CLASSES * 10):
        add_voc(root, f"good{number:02d}", size, [(label, 50, 60, 40, 40)])
    add_voc(root, "large", size, [("bird", 10, 10, 120, 110)])
    add_voc(root, "wide", size, [("bird", 10, 10, 81, 40)])
    add_voc(root, "narrow", size, [("bird", 10, 10, 40, 81)])
    add_voc(root, "many", size, [("bird", x, 10, 40, 40) for x in (10, 60, 110)])
    add_voc(root, "none", size, [("zebra", 10, 10, 40, 40)])
    add_voc(root, "apart", (400, 100), [("bird", 0, 10, 40, 40), ("bird", 350, 10, 40, 40)])
    add_voc(root, "hard", size, [("bird", 10, 10, 40, 40), ("sofa", 100, 100, 40, 40)], difficult=[1])
    found = build(tmp_path, root, most_objects=2)
    assert found.dropped == {
        "an object that is too large": 1,
        "an object that is too wide or narrow": 2,
        "more than 2 objects": 1,
        "no object of the classes": 1,
        "no square crop holds all objects": 1,
    }
    assert entries(tmp_path / "out")["images/voc2007-hard.jpg"]["labels"] == ["bird"], "difficult ones are ignored"
    shutil.rmtree(tmp_path / "out")
    dropped = build(tmp_path, root, difficult="drop").dropped
    assert dropped["a difficult object"] == 1
    shutil.rmtree(tmp_path / "out")
    build(tmp_path, root, difficult="keep")
    assert entries(tmp_path / "out")["images/voc2007-hard.jpg"]["labels"] == ["bird", "sofa"]
    shutil.rmtree(tmp_path / "out")
    assert sum(build(tmp_path, root, most_images=20).images.values()) == 20


def test_crowds_are_dropped(tmp_path, sources):
    root = tmp_path / "coco"
    images, annotations = [], []
    for number in range(1, 22):
        draw(root / "train2017" / f"{number}.jpg", 100, 100, [("bird", 10, 10, 30, 30)])
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 100})
        annotations.append(
            {"id": number, "image_id": number, "category_id": COCO_IDS["bird"], "bbox": [10, 10, 30, 30],
             "iscrowd": int(number == 3)}
        )  # fmt: skip
    write_coco(root, images, annotations)
    assert build(tmp_path, None, root, classes=("bird",)).dropped == {"a crowd": 1}


def test_crops():
    """Squares within the image that hold all boxes; their share is that drawn, or less where the boxes lie apart."""
    random = np.random.default_rng(0)
    shares = []
    for turn in range(300):
        width, height = (int(side) for side in random.integers(150, 400, 2))
        x, y, w, h = 20, 30, int(random.integers(30, 60)), int(random.integers(30, 60))
        boxes = [(float(x), float(y), float(x + w), float(y + h))]
        window = crop_window(f"image {turn}", boxes, width, height, PASCAL_COCO)
        assert window is not None
        left, top, right, bottom = window
        assert 0 <= left <= x and 0 <= top <= y and x + w <= right <= width and y + h <= bottom <= height
        assert right - left == bottom - top
        shares.append(w * h / (right - left) ** 2)
    assert 0.19 < min(shares) and max(shares) < 0.42
    assert np.mean(shares) == pytest.approx(0.3, abs=0.01), "30 % on average"
    places = {crop_window(f"image {turn}", boxes, 400, 400, PASCAL_COCO)[:2] for turn in range(50)}
    assert len(places) > 20, "they are random"
    assert crop_window("a", [(0, 0, 10, 10), (290, 0, 300, 10)], 300, 200, PASCAL_COCO) is None


def test_voc07_is_whole(tmp_path, sources):
    built = build_photographs(
        "voc07", dataclasses.replace(VOC07, classes=CLASSES), tmp_path / "v", sources / "voc", None
    )
    assert built.images == {"train": 12, "validation": 3, "test": 3} and built.dropped == {}
    sizes = {(one["width"], one["height"]) for one in entries(tmp_path / "v").values()}
    assert sizes == {(299, 224), (224, 280)}
    training = NaturalImages(NaturalConfig(str(tmp_path / "v"), mask=(0, 0), mirror=False), "train", None)
    assert training[0].image.shape == (3, 280, 299), "padded to one size"
    known = NaturalImages(NaturalConfig(str(tmp_path / "v")), "test", 3)
    assert {known[index].image.shape[1:] for index in range(3)} <= {(224, 299), (280, 224)}, "at their own size"
    torch.testing.assert_close(training[0].image[:, -1, -1], torch.tensor(PADDING))


def test_a_very_long_image_is_made_smaller(tmp_path):
    root = tmp_path / "voc"
    for number, label in enumerate(CLASSES * 7):
        add_voc(root, f"{number:02d}", (400, 100), [(label, 50, 20, 40, 40)])
    build(tmp_path, root, coverage=(0.0, 0.0))
    assert {(one["width"], one["height"]) for one in entries(tmp_path / "out").values()} == {(352, 88)}


def test_training_samples(built):
    """(seed, index) say what a sample is; every image comes once a round; mirrored and masked ones among them."""
    config = NaturalConfig(str(built))
    one, other = NaturalImages(config, "train", None), NaturalImages(config, "train", None)
    many = len(one.images)
    assert torch.equal(one[many + 3].image, other[many + 3].image)
    reseeded = NaturalImages(dataclasses.replace(config, seed=1), "train", None)
    assert any(not torch.equal(one[index].image, reseeded[index].image) for index in range(3))
    plain = NaturalImages(dataclasses.replace(config, mirror=False, mask=(0.0, 0.0)), "train", None)
    as_they_are = NaturalImages(config, "train", many)
    files = [
        next(n for n in range(many) if torch.equal(as_they_are[n].image, plain[index].image)) for index in range(many)
    ]
    assert sorted(files) == list(range(many))
    assert [list(as_they_are[file].image.shape[-2:]) for file in files] == [plain[n].size.tolist() for n in range(many)]
    changed = NaturalImages(dataclasses.replace(config, mask=(0.0, 0.0)), "train", None)
    flips = [not torch.equal(changed[index].image, plain[index].image) for index in range(many)]
    assert any(flips) and not all(flips)
    for index in range(many):
        expected = mirrored(plain[index]) if flips[index] else plain[index]
        assert torch.equal(changed[index].image, expected.image) and torch.equal(changed[index].boxes, expected.boxes)


def test_mirror():
    sample = Sample(torch.rand(3, 4, 10), torch.tensor([1]), torch.tensor([[2.0, 1.0, 3.0, 2.0]]), torch.tensor([0]))
    found = mirrored(sample)
    assert found.boxes.tolist() == [[8.0, 1.0, 3.0, 2.0]]
    assert torch.equal(found.image[:, :, 0], sample.image[:, :, 9])


def test_masks_are_square_and_of_their_mean():
    random = np.random.default_rng(0)
    sides, rows = [], set()
    for _ in range(200):
        image = torch.rand(3, 40, 60)
        found = masked(image, (0.15, 0.6), random)
        hidden = (found != image).any(0).nonzero()
        top, left = hidden.amin(0).tolist()
        bottom, right = (hidden.amax(0) + 1).tolist()
        assert bottom - top == right - left, "a square"
        inside = image[:, top:bottom, left:right]
        expected = inside.mean((1, 2), keepdim=True).expand_as(inside)
        torch.testing.assert_close(found[:, top:bottom, left:right], expected)
        sides.append((right - left) / 40)
        rows.add(top)
    assert 0.125 <= min(sides) < 0.2 and 0.55 < max(sides) <= 0.6
    assert np.mean(sides) == pytest.approx(0.375, abs=0.03) and len(rows) > 15


def spoil(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_broken_voc(voc, tmp_path):
    annotation, image = voc / "Annotations" / "000001.xml", voc / "JPEGImages" / "000001.jpg"
    whole = annotation.read_text()
    for spoilt, word in (
        (whole[:-9], "broken XML"),
        (whole.replace("<name>bird</name>", "<name></name>"), "object 1 has no name"),
        (whole.replace("<xmin>", "<xmin>x"), "not the 4 numbers"),
        (whole.replace("<width>120", "<width>121"), "has 120 x 150 px, its annotation 121 x 150"),
    ):
        annotation.write_text(spoilt)
        with pytest.raises(MistError, match=word):
            build(tmp_path, voc)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    annotation.write_text(whole)
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(MistError, match="can't read .*000001.jpg"):
        build(tmp_path, voc)
    image.unlink()
    with pytest.raises(MistError, match="its photograph JPEGImages/000001.jpg is missing"):
        build(tmp_path, voc)
    annotation.unlink()
    with pytest.raises(MistError, match="names 000001, and Annotations/000001.xml is missing"):
        build(tmp_path, voc)
    shutil.rmtree(voc / "Annotations")
    with pytest.raises(MistError, match="is not a PASCAL VOC folder"):
        build(tmp_path, voc)
    (voc / "Annotations").mkdir()
    with pytest.raises(MistError, match=r"holds no \.xml"):
        build(tmp_path, voc)


def test_broken_coco(tmp_path):
    coco = make_coco(tmp_path / "coco", 3)
    listing = coco / "annotations" / "instances_train2017.json"
    whole = listing.read_text()
    for spoilt, word in (
        (whole[:-1], "broken JSON"),
        (whole.replace('"image_id": 9', '"image_id": 999', 1), "not a COCO file"),
        (whole.replace('"file_name"', '"name"', 1), "not a COCO file"),
        (whole.replace('"bbox": [', '"bbox": ["a", ', 1), "are not the 4 numbers"),
        (whole.replace('"width": 140', '"width": "wide"', 1), "are not the 2 numbers"),
    ):
        listing.write_text(spoilt)
        with pytest.raises(MistError, match=word):
            read_coco(coco)
    listing.write_text(whole)
    (coco / "train2017" / "000000000010.jpg").unlink()
    with pytest.raises(MistError, match="the photograph 000000000010.jpg is not in"):
        read_coco(coco)
    shutil.rmtree(coco / "train2017")
    with pytest.raises(MistError, match="unpack train2017.zip"):
        read_coco(coco)


def test_what_can_not_be_built(voc, tmp_path):
    with pytest.raises(MistError, match=r"no training image holds .*aeroplane"):
        build_photographs("x", dataclasses.replace(MINE, classes=("bird", "aeroplane")), tmp_path / "out", voc, None)
    with pytest.raises(MistError, match="no image passes the filters .*too large"):
        build(tmp_path, voc, largest_share=0.001)
    with pytest.raises(MistError, match="none is for validation or test"):
        build(tmp_path, voc, shares=(98, 1, 1))
    (voc / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(MistError, match="none is for validation: .*val.txt"):
        build(tmp_path, voc, split="voc")
    with pytest.raises(MistError, match="no source"):
        build(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(MistError, match="exists already"):
        build(tmp_path, voc)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_changed_split_is_refused(copy):
    spoil(copy / "split.csv", ",test", ",train")
    with pytest.raises(MistError, match=r"split.csv was changed since .*SHA-256"):
        read_built(str(copy))


def test_other_damage(copy):
    first = next(iter(entries(copy)))
    described, boxes = (copy / "dataset.json").read_text(), (copy / "boxes.json").read_text()
    for file, content, word in (
        ("dataset.json", described.replace('"format": 1', '"format": 2'), "not of format 1"),
        ("dataset.json", described.replace('"bird"', '"bat"', 1), "don't belong together"),
        ("dataset.json", described[:-3], "broken JSON"),
        ("boxes.json", boxes.replace(first, "images/other.jpg"), "don't belong together"),
        ("boxes.json", boxes[1:], "broken JSON"),
    ):
        before = (copy / file).read_text()
        (copy / file).write_text(content)
        with pytest.raises(MistError, match=word):
            read_built(str(copy))
        (copy / file).write_text(before)
    Image.new("RGB", (9, 9)).save(copy / first)
    split = entries(copy)[first]["split"]
    samples = NaturalImages(NaturalConfig(str(copy)), split, 99)
    place = [image.file for image in samples.images].index(first)
    with pytest.raises(MistError, match="another size"):
        samples[place]
    (copy / first).write_bytes(b"no image")
    with pytest.raises(MistError, match="can't read"):
        samples[place]
    (copy / first).unlink()
    with pytest.raises(MistError, match="is missing"):
        read_built(str(copy))
    (copy / "split.csv").unlink()
    with pytest.raises(MistError, match=r"split.csv can't be read"):
        read_built(str(copy))
    with pytest.raises(MistError, match="no folder of photographs is given"):
        NaturalImages(NaturalConfig(), "train", None)
    with pytest.raises(MistError, match="holds no dataset.json"):
        read_built(str(copy / "images"))


def test_impossible_values(built):
    for wrong, word in (
        ({"classes": ()}, "classes"),
        ({"largest_share": 0.0}, "largest_share=0"),
        ({"aspect_ratio": 0.5}, "aspect_ratio"),
        ({"coverage": (0.4, 0.2)}, "coverage"),
        ({"shorter_edge": 400}, "shorter_edge=400"),
        ({"shares": (1, 0, 1)}, "shares"),
        ({"quality": 101}, "quality"),
    ):
        with pytest.raises(MistError, match=word):
            BuildConfig(**wrong)
    for wrong, word in (({"mask": (0.5, 0.2)}, "mask"), ({"seed": -1}, "seed=-1")):
        with pytest.raises(MistError, match=word):
            NaturalConfig(**wrong)
    with pytest.raises(IndexError, match="image 99 is outside"):
        NaturalImages(NaturalConfig(str(built)), "test", 5)[99]
