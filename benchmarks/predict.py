"""How many photographs `mist predict` processes a second, beside the network alone.

    python -m benchmarks.predict [--json FILE] [--threads 2] [--images 24] [--side 512] [--rounds 3]

Contract:
    * Photographs of smooth noise as JPEG files of side x side pixels, and the network that `mist train my-folder` takes
      for them, with random weights: the time doesn't depend on weights. Once for one class, without enlarging; once
      for six, whose images are enlarged by 1.5. The density is made to count about 20 objects in each image.
    * "files": `predict_folder` with tables and drawings. "files, no drawings": without drawings. "tensors": the
      network's batched prediction of the same images, prepared or not as in ``Predictor.predict_batch``, in memory.
    * As in the command, the process keeps freed memory (``keep_freed_memory``).
    * Rounds alternate between the ways; the first is dropped. Starting Python is not included.
    * ``peak_mib``: in a process of its own for each of ``--images`` and four times as many, with drawings.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import Options, alternate, in_own_process, peak_bytes, write
from mistnn.data.images import open_image, to_tensor
from mistnn.inference import Predictor, predict_folder
from mistnn.models.photos import PhotoConfig
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig
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
        seconds = alternate(ways, rounds)
        photographs(folder, 4 * images, side)
        peaks = [in_own_process(peak, classes, side, folder, Path(name, "aside"))]
        photographs(Path(name, "few"), images, side)
        peaks.insert(0, in_own_process(peak, classes, side, Path(name, "few"), Path(name, "beside")))
    rates = {way: round(images / statistics.median(taken), 2) for way, taken in seconds.items()}
    return {
        "classes": classes,
        "images_a_second": rates,
        "share_of_tensors": round(rates["files"] / rates["tensors"], 3),
        "peaks": peaks,
    }


def main() -> None:
    options = Options(__doc__, threads=2)
    options.size("images", 24, 2, "photographs")
    options.size("side", 512, 64, "side of a photograph in pixels", least=32)
    options.size("rounds", 3, 1, "rounds")
    given = options.parse()
    points = []
    keep_freed_memory()
    for classes in (1, 6):
        points.append(one := measure(classes, given.images, given.side, given.rounds))
        rates = ", ".join(f"{way} {rate:.1f}" for way, rate in one["images_a_second"].items())
        peaks = ", ".join(f"{part['peak_mib']} MiB for {part['images']} images" for part in one["peaks"])
        print(f"{classes} classes: images a second: {rates}; peak {peaks}")
    write({"points": points, **options.settings(given)}, given.json)


if __name__ == "__main__":
    main()
