"""Broken inputs for every reader of a folder and for the options: each must be read, or refused in one line.

``python -m tests.fuzz 2000`` tries so many, from a random seed; ``python -m tests.fuzz 1 SEED`` repeats one. The seed
of a failure goes to ``FAILED`` in ``tests/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import io
import json
import math
import random
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.images import UnreadableImage, open_image
from mistnn.errors import MistError
from mistnn.training.checkpoint import read_checkpoint
from mistnn.weights import load_model
from tests.data.layouts import voc

CELLS = (
    "a.png", "b.png", "../a.png", "/etc/passwd", "A.PNG", "a", "", " ", "0", "1", "-1", "2.5", "1,5", "1e9", "nan",
    "inf", "9" * 30, "=cmd()", "@x", "red", "white", "train", "\x07", "\ufeff", "\U0001f9eb", "<b>", "'", '"', "\t",
    "x" * 140_000,
)  # fmt: skip
HEADERS = ("file", "class", "count", "split", "red", "white", "x", "plate", "", "image", "file")
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**400, "a.png", "../b.png", "\ud800", [], {}, [1, 2], [0, 0, 4, 4], [0, 0, 4, 4, 4],
    "x", [[0, 0, 4, 4]], [["a"]], float("nan"), float("inf"),
)  # fmt: skip
KEYS = (
    "images", "annotations", "categories", "id", "image_id", "category_id", "bbox", "file_name", "width", "height",
    "name", "file", "boxes", "labels", "split", "segmentation", "iscrowd",
)  # fmt: skip
OPTIONS = (
    "--out", "--k", "--images", "--seed", "--device", "--steps", "--train.steps", "--data-root", "--model.k", "--force",
    "--resume", "--report", "--no-overlays", "--split", "--json", "--strengths", "--help=1", "--", "-x",
)  # fmt: skip
WORDS = (
    "",
    "0",
    "-1",
    "1e3",
    "nan",
    "cpu",
    "tpu",
    "None",
    "~nobody/x",
    "\udc80",
    "a" * 300,
    "no such",
    "\n",
    "=",
    "mist-mnist-3",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Bytes with a few of them changed, removed, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(0, 4)):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[place : place + dice.randint(1, 20)]
            case 2:
                changed[place:place] = changed[place : place + dice.randint(1, 40)]
            case _:
                del changed[place + dice.randint(0, len(changed)) :]
    return bytes(changed)


def some_json(dice: random.Random, depth: int = 0) -> Any:
    """A value of JSON with the keys of annotation files."""
    if depth > 3 or dice.random() < 0.3:
        return dice.choice(VALUES)
    if dice.random() < 0.5:
        return [some_json(dice, depth + 1) for _ in range(dice.randint(0, 3))]
    return {dice.choice(KEYS): some_json(dice, depth + 1) for _ in range(dice.randint(0, 5))}


def table(dice: random.Random) -> bytes:
    """A table of counts with some odd cells."""
    separator, columns = dice.choice(",;\t|"), dice.randint(1, 5)
    rows = [[dice.choice(HEADERS) for _ in range(columns)]] if dice.random() < 0.5 else [["file", "class", "count"]]
    for _ in range(dice.randint(0, 6)):
        usual = [dice.choice(("a.png", "b.png")), dice.choice(("red", "white")), str(dice.randint(0, 5))]
        rows.append(usual if dice.random() < 0.7 else [dice.choice(CELLS) for _ in range(columns)])
    text = "\n".join(separator.join(row) for row in rows)
    return mutated(text.encode(dice.choice(("utf-8", "utf-16", "latin-1")), "replace"), dice)


def document(dice: random.Random) -> bytes:
    """A PASCAL VOC file, or XML that should do harm."""
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
    deep = "<annotation>" + "<object>" * 5_000
    text = dice.choice((voc(("red", (1, 1, 3, 3))), voc(), bomb, outside, deep))
    return mutated(text.encode(), dice)


def changed_json(value: Any, dice: random.Random) -> Any:
    """A JSON value with a few of its parts replaced, removed or repeated."""
    if dice.random() < 0.04:
        return dice.choice(VALUES)
    if isinstance(value, list):
        kept = [changed_json(one, dice) for one in value if dice.random() > 0.03]
        return kept * dice.choice((1, 1, 1, 1, 1, 2))
    if isinstance(value, dict):
        return {key: changed_json(one, dice) for key, one in value.items() if dice.random() > 0.03}
    return value


def from_json(content: Any) -> Callable[[random.Random], bytes]:
    """Writes a document of another program, with broken parts or broken bytes."""

    def write(dice: random.Random) -> bytes:
        text = json.dumps(changed_json(content, dice)).encode()
        return mutated(text, dice) if dice.random() < 0.3 else text

    return write


def from_text(text: str) -> Callable[[random.Random], bytes]:
    """Writes a text of another program, with broken bytes."""
    return lambda dice: mutated(text.encode(dice.choice(("utf-8", "utf-8", "utf-16", "latin-1")), "replace"), dice)


def spreadsheet(dice: random.Random) -> bytes:
    """A workbook with odd cells, sometimes with broken bytes."""
    openpyxl = importlib.import_module("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["file", "class", "count"])
    odd = (
        None,
        True,
        3,
        3.0,
        2.5,
        -1,
        1e300,
        "3",
        "a.png",
        "=1+2",
        "#REF!",
        datetime.datetime(2026, 1, 2),
        "x" * 40_000,
    )
    for _ in range(dice.randint(0, 5)):
        usual = [dice.choice(("a.png", "b.png")), dice.choice(("red", "white")), dice.randint(0, 5)]
        sheet.append(usual if dice.random() < 0.7 else [dice.choice(odd) for _ in range(dice.randint(1, 5))])
    if dice.random() < 0.2:
        sheet.merge_cells("A1:C1")
    if dice.random() < 0.2:
        book.create_sheet("more").append(["x"])
    buffer = io.BytesIO()
    book.save(buffer)
    return mutated(buffer.getvalue(), dice) if dice.random() < 0.5 else buffer.getvalue()


def rois(dice: random.Random) -> bytes:
    """A ``.zip`` of ImageJ's ROI manager with broken entries."""
    roifile = importlib.import_module("roifile")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(dice.randint(0, 3)):
            roi = roifile.ImagejRoi.frompoints([[1, 1], [4, 1], [4, 4]])
            archive.writestr(f"{number}.roi", mutated(roi.tobytes(), dice) if dice.random() < 0.5 else roi.tobytes())
    return mutated(buffer.getvalue(), dice) if dice.random() < 0.4 else buffer.getvalue()


_SHAPES = {"name": "rect", "x": 1, "y": 1, "width": 3, "height": 3}
_REGION = {"shape_attributes": _SHAPES, "region_attributes": {"class": "red"}}
_RING = [[1, 1], [4, 1], [4, 4], [1, 1]]


def _drawn(kind: str, **value: Any) -> dict[str, Any]:
    """A shape of Label Studio."""
    shape = {"x": 10, "y": 20, "width": 20, "height": 40, "rotation": 9, f"{kind}labels": ["red"], **value}
    return {"id": kind, "type": f"{kind}labels", "original_width": 8, "original_height": 6, "value": shape}


OTHERS: dict[str, Callable[[random.Random], bytes]] = {
    "counts.tsv": from_text("file\tclass\tcount\na.png\tred\t1\nb.png\twhite\t2\n"),
    "annotations.xml": from_text(
        '<annotations><image id="0" name="a.png" width="8" height="6">'
        '<box label="red" xtl="1" ytl="1" xbr="4" ybr="4"/>'
        '<points label="red" points="1,2;3,4"/>'
        '<mask label="red" rle="1" left="1" top="1" width="2" height="2"/></image></annotations>'
    ),
    "CellCounter_a.xml": from_text(
        "<CellCounter_Marker_File><Image_Properties><Image_Filename>a.png</Image_Filename></Image_Properties>"
        "<Marker_Data><Marker_Type><Type>1</Type><Name>red</Name><Marker><MarkerX>1</MarkerX><MarkerY>2</MarkerY>"
        "</Marker></Marker_Type></Marker_Data></CellCounter_Marker_File>"
    ),
    "a.json": from_json(
        {
            "shapes": [
                {"label": "red", "points": [[1, 1], [4, 4]], "shape_type": "rectangle"},
                {"label": "white", "points": [[1, 1], [2, 2]], "shape_type": "circle"},
            ],
            "imagePath": "a.png", "imageWidth": 8, "imageHeight": 6, "version": "5",
        }
    ),
    "via.json": from_json({"_via_img_metadata": {"a.png1": {"filename": "a.png", "regions": [_REGION, _REGION]}}}),
    "via.csv": from_text(
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
        'a.png,1,"{}",1,0,"{""name"":""rect"",""x"":1,""y"":1,""width"":3,""height"":3}","{""class"":""red""}"\n'
        'b.png,1,"{}",0,0,"{}","{}"\n'
    ),
    "studio.json": from_json(
        [
            {
                "data": {"image": "/data/upload/1/0123abcd-a.png"},
                "annotations": [{"result": [_drawn("rectangle"), _drawn("ellipse", radiusX=9, radiusY=9)]}],
            },
            {"data": {"image": "b.png"}, "annotations": [{"result": [_drawn("polygon", points=_RING)]}]},
        ]
    ),
    "labels/a.txt": from_text("0 0.2 0.5 0.2 0.4\n1 0.5 0.5 0.1 0.1 0.87\n1 0 0 0.1 0 0.1 0.2\n"),
    "classes.txt": from_text("red\nwhite\n"),
    "data.yaml": from_text("names:\n  0: red\n  1: 'white'\nnc: 2\n"),
    "a.geojson": from_json(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [_RING]},
                    "properties": {"objectType": "detection", "classification": {"name": "red"}},
                },
                {"type": "Feature", "geometry": {"type": "Point", "coordinates": [2, 2]}, "properties": {}},
            ],
        }
    ),
    "counts.xlsx": spreadsheet,
    "RoiSet.zip": rois,
    "a.zip": rois,
    "other.csv": table,
}  # fmt: skip
"""File -> what writes it: the readers of other programs' files."""


def try_other_programs(root: Path, dice: random.Random) -> None:
    """Reads a folder with broken files of other programs."""
    try_folder(root, dice, OTHERS)


def try_convert(root: Path, dice: random.Random) -> None:
    """Converts a broken stack, with odd options."""
    tifffile = importlib.import_module("tifffile")
    buffer = io.BytesIO()
    shape, axes = dice.choice((((2, 3, 6, 8), "ZCYX"), ((2, 6, 8), "TYX"), ((6, 8), "YX"), ((6, 8, 3), "YXS")))
    kind = dice.choice((np.uint8, np.uint16, np.float32))
    array = np.arange(math.prod(shape)).reshape(shape).astype(kind)
    own = {"imagej": True} if dice.random() < 0.4 and axes != "YXS" else {"ome": dice.random() < 0.4}
    tifffile.imwrite(
        buffer, array, metadata={"axes": axes}, photometric="rgb" if axes == "YXS" else "minisblack", **own
    )
    (root / "in").mkdir()
    (root / "in" / f"a.{dice.choice(('tif', 'ome.tif', 'lsm'))}").write_bytes(mutated(buffer.getvalue(), dice))
    options = (
        ["--channels", dice.choice("0123")],
        ["--planes", dice.choice(("max", "mean", "each"))],
        ["--range", "0", "9"],
    )
    given = [word for option in options if dice.random() < 0.3 for word in option]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main(["convert", str(root / "in"), "--out", str(root / "out"), *given])
    assert code in (0, 1, 2) and (code or not said.getvalue()) and "Traceback" not in said.getvalue(), said.getvalue()
    for path in (root / "out").rglob("*") if code == 0 else ():
        if path.is_file():
            open_image(path)


def try_upload(root: Path, dice: random.Random) -> None:
    """Adds broken images and tables to the folder of ``mist app``."""
    from mistnn.web.workshop import Workshop

    (root / "up").mkdir()
    shop = Workshop(root / "mine", root / "results")
    names = ("a.png", "b.PNG", "c.gif", ".d.png", "x" * 200 + ".png", "e\nf.png", "g.txt", "h.heic", "counts.csv", "i")
    for _ in range(2):
        paths = []
        for name in dice.sample(names, dice.randint(1, 4)):
            buffer = io.BytesIO()
            Image.new("L", (8, 6), dice.randrange(256)).save(buffer, "GIF" if name.endswith("gif") else "PNG")
            data = table(dice) if name.endswith("csv") else buffer.getvalue()
            (root / "up" / name).write_bytes(data if dice.random() < 0.6 else mutated(data, dice))
            paths.append(root / "up" / name)
        with contextlib.suppress(MistError):
            for note in shop.images.add(paths):
                assert "\n" not in note, note
        for path in shop.images.root.iterdir():
            assert path.suffix.lower() in (".png", ".gif", ".csv"), path
            if path.suffix != ".csv":
                open_image(path)  # whole
        shop.images.rows()


def try_folder(
    root: Path, dice: random.Random, writers: Mapping[str, Callable[[random.Random], bytes]] | None = None
) -> None:
    """Reads a folder with broken tables and annotations."""
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 6)).save(root / name)
    writers = writers or {
        "counts.csv": table,
        "labels.csv": table,
        "train.txt": lambda dice: mutated("\n".join(dice.choices(CELLS, k=3)).encode(), dice),
        "annotations.json": lambda dice: mutated(json.dumps(some_json(dice)).encode(), dice),
        "boxes.json": lambda dice: b"[" * 100_000 if dice.random() < 0.05 else json.dumps(some_json(dice)).encode(),
        "a.xml": document,
    }
    for name in dice.sample(sorted(writers), dice.randint(1, 2)):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(writers[name](dice))
    found = read_folder(root)
    for image in found.images:
        assert image.path.parent == root, f"{image.path} lies outside {root}"
        assert image.counts is None or all(0 <= count < 10**9 for count in image.counts)
    for note in found.notes:
        assert "\n" not in note


def try_image(root: Path, dice: random.Random) -> None:
    """Opens a broken image."""
    suffix = dice.choice(("png", "jpg", "gif", "bmp", "tif", "webp"))
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((9, 7)).convert(dice.choice(("L", "RGB"))).save(
        buffer, "TIFF" if suffix == "tif" else "JPEG" if suffix == "jpg" else suffix.upper()
    )
    (root / f"a.{suffix}").write_bytes(mutated(buffer.getvalue(), dice))
    with contextlib.suppress(UnreadableImage):
        open_image(root / f"a.{suffix}")


def try_model(root: Path, dice: random.Random) -> None:
    """Reads a broken model folder or checkpoint."""
    config = {"format": 2, "mistnn": "0.2.0", "model": some_json(dice), "experiment": {}, "digest": dice.choice(VALUES)}
    text = json.dumps(config) if dice.random() < 0.9 else "[" * 100_000
    (root / "config.json").write_bytes(mutated(text.encode(), dice))
    (root / "model.safetensors").write_bytes(dice.randbytes(dice.randint(0, 40)))
    if dice.random() < 0.5:
        load_model(root)
    else:
        read_checkpoint(root / "model.safetensors")


def try_options(root: Path, dice: random.Random) -> None:
    """Runs a command with broken options, on a folder without images."""
    (root / "empty").mkdir()
    command = dice.choice(
        ("predict", "evaluate", "train", "inspect", "report", "tune", "results", "presets", "nothing")
    )
    given = [dice.choice(OPTIONS if dice.random() < 0.6 else WORDS) for _ in range(dice.randint(0, 3))]
    said = io.StringIO()
    with contextlib.chdir(root), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([command, str(root / "empty"), *given])
    assert code in (0, 2) and (code == 0 or said.getvalue().count("\n") == 1), f"{command} {given}: {said.getvalue()}"


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(try_folder,) * 6,
    *(try_other_programs,) * 6,
    *(try_image,) * 2,
    try_model,
    try_options,
    try_convert,
    try_upload,
)


def attempt(seed: int) -> None:
    """Tries the input of a seed; raises whatever is neither success nor an error of one line."""
    dice = random.Random(seed)
    root = Path(tempfile.mkdtemp())
    try:
        dice.choice(KINDS)(root, dice)
    except MistError as error:
        assert "\n" not in str(error), f"several lines: {error}"
        str(error).encode("utf-8", "strict")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    many, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**9)
    bad = 0
    for seed in range(first, first + many):
        try:
            attempt(seed)
        except Exception as error:
            bad += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{many} inputs from seed {first}: {bad} failures")
    sys.exit(bad > 0)
