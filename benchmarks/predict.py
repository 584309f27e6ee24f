"""How many images `mist predict` processes a second, beside the network alone.

    python -m benchmarks.predict [--json FILE] [--threads 2] [--rounds 7] [--scenes 1000] [--images 24] [--side 512]

Contract:
    * Scenes: nine digits on 80 x 80 pixels as PNG files; the shipped network for them, and that of the demo with random
      weights, in both precisions. "files": `predict_folder` with tables, without drawings. "tensors": the network's
      forward pass over the same images in memory, in batches of as many as the command takes: the limit.
    * Photographs of smooth noise as JPEG files of side x side pixels, and the network that `mist train my-folder` takes
      for them, with random weights: the time doesn't depend on weights. Once for one class, without enlarging; once
      for six, whose images are enlarged by 1.5. The density is made to count about 20 objects in each image. "files":
      with tables and drawings. "files, no drawings": without drawings. "tensors": the network's batched prediction of
      the same images, prepared or not as in ``Predictor.predict_batch``, in memory.
    * As in the command, the process keeps freed memory (``keep_freed_memory``).
    * Rounds alternate between the ways; the first is dropped. Starting Python is not included. ``share_of_tensors`` is
      the median over the rounds of the limit's time by that of "files", in wall and in CPU time.
    * ``peak_mib``: in a process of its own for each of ``--images`` and four times as many, with drawings.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import Options, alternate, in_own_process, peak_bytes, write
from mistnn.data import ScenesConfig
from mistnn.data.images import open_image, to_tensor
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.folder import BATCH_SIZE
from mistnn.models.photos import PhotoConfig
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision, half_precision
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig
from mistnn.presets import find_preset
from mistnn.training.memory import keep_freed_memory

OBJECTS = 20
"""About how many are found in each image."""
AT_ONCE = 4
"""Images in a batch of tensors."""
MIB = 2**20


def predictor_of(classes: int, side: int) -> Predictor:
    """The network for photographs with random weights, which finds ``OBJECTS`` objects in each image."""
    torch.manual_seed(0)
    zoom, stride = (1.0, 16) if classes == 1 else (1.5, 32)
    names = tuple(f"class {index}" for index in range(classes))
    preparation, pyramid = PreparationConfig(zoom=zoom), PyramidConfig(weights=None)
    config = PhotoConfig(class_names=names, stride=stride, box_size=96, preparation=preparation, pyramid=pyramid)
    model: Any = config.build()
    cells = max(1.0, side * zoom / stride) ** 2
    wanted = OBJECTS / cells * max(1.0, config.cells**2)  # of the softplus, in each cell
    torch.nn.init.zeros_(model.density_head.weight)
    model.density_head.bias.data[0] = 3.0 + float(np.log(np.expm1(wanted)))
    return Predictor(model)


def photographs(folder: Path, images: int, side: int) -> None:
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for index in range(images):
        small = random.integers(0, 256, (side // 16 + 1, side // 16 + 1, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg")


def peak(classes: str, side: str, images: str, out: str) -> dict[str, Any]:
    keep_freed_memory()
    summary = predict_folder(predictor_of(int(classes), int(side)), [Path(images)], Path(out))
    return {"images": summary.images, "peak_mib": round(peak_bytes() / MIB)}


def measure(classes: int, images: int, side: int, rounds: int) -> dict[str, Any]:
    predictor = predictor_of(classes, side)
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "out")
        photographs(folder, images, side)
        tensors = torch.stack([to_tensor(open_image(path), 3) for path in sorted(folder.iterdir())])

        def files(overlays: bool) -> None:
            predict_folder(predictor, [folder], out, overlays=overlays, force=True)

        ways = {
            "files": lambda _: files(True),
            "files, no drawings": lambda _: files(False),
            "tensors": lambda _: [predictor.predict_batch(part) for part in tensors.split(AT_ONCE)],
        }
        seconds = compare(ways, rounds)
        photographs(folder, 4 * images, side)
        peaks = [in_own_process(peak, classes, side, folder, Path(name, "aside"))]
        photographs(Path(name, "few"), images, side)
        peaks.insert(0, in_own_process(peak, classes, side, Path(name, "few"), Path(name, "beside")))
    return {"classes": classes, **rates(seconds, images), "peaks": peaks}


def measure_scenes(network: str, precision: Precision, images: int, rounds: int) -> dict[str, Any]:
    """Scenes of digits, 80 x 80 pixels, as PNG files, without drawings."""
    if network == "demo":
        torch.manual_seed(0)
        predictor = Predictor(cast(Finder, cast(Any, find_preset("demo").experiment).resolved().model.build()))
    else:
        predictor = Predictor.from_pretrained(network)
    predictor.precision = precision
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "images"), Path(name, "out")
        scenes(folder, images)
        tensors = torch.stack([to_tensor(open_image(path), 1) for path in sorted(folder.iterdir())])

        @torch.inference_mode()
        def limit() -> None:
            with half_precision(precision, torch.device("cpu")):
                for part in tensors.split(BATCH_SIZE):
                    predictor.model(part)

        def files() -> None:
            predict_folder(predictor, [folder], out, overlays=False, force=True)

        seconds = compare({"files": lambda _: files(), "tensors": lambda _: limit()}, rounds)
    return {"network": network, "precision": precision, **rates(seconds, images)}


def scenes(folder: Path, images: int) -> None:
    """Writes the first test scenes of nine embedded digits as PNG files."""
    folder.mkdir(exist_ok=True)
    data = ScenesConfig(source="embedded").open("test", images)
    for index in range(images):
        pixels = (data[index].image[0] * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{index:05}.png")


def compare(ways: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU seconds of each way in each round after the first; rounds alternate, as in ``alternate``."""
    cpu: dict[str, list[float]] = {name: [] for name in ways}

    def timed(name: str, turn: int) -> None:
        begun = time.process_time()
        ways[name](turn)
        cpu[name].append(time.process_time() - begun)

    wall = alternate({name: functools.partial(timed, name) for name in ways}, rounds)
    return {"wall": wall, "cpu": {name: spent[1:] for name, spent in cpu.items()}}


def rates(seconds: Mapping[str, Mapping[str, list[float]]], images: int) -> dict[str, Any]:
    """Images a second of each way, and the medians over the rounds of the share of the limit that files reach."""
    wall, cpu = seconds["wall"], seconds["cpu"]
    shares = {
        clock: statistics.median(limit / own for limit, own in zip(spent["tensors"], spent["files"], strict=True))
        for clock, spent in (("wall", wall), ("cpu", cpu))
    }
    return {
        "images_a_second": {way: round(images / statistics.median(taken), 2) for way, taken in wall.items()},
        "share_of_tensors": round(shares["wall"], 3),
        "share_of_tensors_in_cpu_time": round(shares["cpu"], 3),
        "seconds": seconds,
    }


def main() -> None:
    options = Options(__doc__, threads=2)
    options.size("images", 24, 2, "photographs; 0 for none", least=0)
    options.size("side", 512, 64, "side of a photograph in pixels", least=32)
    options.size("scenes", 1000, 3, "scenes; 0 for none", least=0)
    options.size("networks", ("mist-mnist-hard", "demo"), ("demo",), "of the scenes: shipped ones, or demo")
    options.size("precisions", ("float32", "bfloat16"), ("float32",), "of the scenes")
    options.size("rounds", 7, 1, "rounds")
    given = options.parse()
    points, digits = [], []
    keep_freed_memory()
    for network in given.networks if given.scenes else ():
        for precision in given.precisions:
            digits.append(one := measure_scenes(network, precision, given.scenes, given.rounds))
            print(f"{network}, {precision}: {shown(one)}")
    for classes in (1, 6) if given.images else ():
        points.append(one := measure(classes, given.images, given.side, given.rounds))
        peaks = ", ".join(f"{part['peak_mib']} MiB for {part['images']} images" for part in one["peaks"])
        print(f"photographs, {classes} classes: {shown(one)}; peak {peaks}")
    write({"points": points, "scenes": digits, **options.settings(given)}, given.json)


def shown(one: Mapping[str, Any]) -> str:
    found = ", ".join(f"{way} {rate:.1f}" for way, rate in one["images_a_second"].items())
    return f"images a second: {found}; share {one['share_of_tensors']}, CPU {one['share_of_tensors_in_cpu_time']}"


if __name__ == "__main__":
    main()
