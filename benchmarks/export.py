"""How fast exported models are beside PyTorch: mist export, ONNX Runtime, alternating with the predictor.

    python -m benchmarks.export --threads 2 --side 256 --runs 9

Both run on the same image, in turn, with the same number of threads; the median of the runs and their ratio are
printed. A ratio above 1 means that ONNX Runtime is slower.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from mistnn.inference import Predictor
from mistnn.inference.export import compare_speed, export_model
from mistnn.weights import hardware, shipped_names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=shipped_names(), help="run folders or names of shipped models")
    parser.add_argument("--side", type=int, default=256, help="of the square image, in pixels")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true", help="one model, one run: checks that this works")
    request = parser.parse_args()
    torch.set_num_threads(request.threads)
    models, runs, side = request.models, request.runs, request.side
    if request.smoke:
        models, runs, side = ["mist-mnist-3"], 1, 64
    print(json.dumps({"hardware": hardware(), "torch": torch.__version__, "side": side, "runs": runs}))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            predictor, path = Predictor.from_pretrained(name), Path(folder) / "model.onnx"
            export_model(predictor, path)
            image = torch.rand(1, predictor.model.config.channels, side, side)
            speed = compare_speed(predictor, path, image, runs)
            ratio = speed.onnx / speed.torch
            line = {"model": name, "torch_seconds": speed.torch, "onnx_seconds": speed.onnx, "ratio": ratio}
            print(
                json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()})
            )


if __name__ == "__main__":
    main()
