"""``mist serve``: a small server that answers images with boxes and counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from mistnn.cli.parsing import Device, Images, Model, Number, OptionalNumber, Options, parse
from mistnn.config import at_least, between

DESCRIPTION = """\
Serves a model: POST an image to /predict, and the answer is JSON with boxes, classes, scores and counts.

  curl -F image=@scene.png http://127.0.0.1:8000/predict
  curl --data-binary @scene.png http://127.0.0.1:8000/predict?k=9

/health says whether it works, /metrics has counters for Prometheus, /openapi.json describes the answers. Images of \
one size that arrive together are predicted in one batch. One line per request is logged. Ctrl-C or SIGTERM answers \
the requests that have arrived, and ends.

The server is for this computer only, unless --host says otherwise. It has no password and no encryption: put a proxy \
that has both in front of it before others can reach it. Needs the extra "serve": pip install 'mistnn[serve]'."""
MILLION = 1_000_000
GRACE = 30
"""Seconds that requests have at the end."""


@dataclass(frozen=True)
class Serve(Options):
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        host: the address to listen on; 0.0.0.0 is every network of this computer.
        port: 0 is any free one.
        k: objects to find in each image, where a request gives no k; by default as many as the model counts.
        most_megabytes: of an image; larger ones are refused.
        most_megapixels: of an image; larger ones are refused.
        most_waiting: images that are being answered at a time; more are refused with code 503.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    model: Model
    host: str = "127.0.0.1"
    port: Annotated[Number, between(0, 65535)] = 8000
    k: Annotated[OptionalNumber, at_least(1)] = None
    most_megabytes: Images = 20
    most_megapixels: Annotated[Number, between(1, 150)] = 25
    most_waiting: Images = 64
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    request = parse(Serve, arguments, "mist serve", DESCRIPTION)
    from pathlib import Path

    from mistnn.errors import MistError
    from mistnn.inference import Predictor
    from mistnn.training.memory import keep_freed_memory
    from mistnn.web.listener import Listener

    try:
        from mistnn.web.service import Limits, build_service, is_local
    except ImportError as error:
        raise MistError(
            f"mist serve needs the extra serve ({error.name} is missing): pip install 'mistnn[serve]'"
        ) from error

    predictor = Predictor.from_pretrained(request.model, request.device)
    if predictor.device.type == "cpu":
        keep_freed_memory()
    limits = Limits(request.most_megabytes * MILLION, request.most_megapixels * MILLION, request.most_waiting)
    name = Path(request.model).resolve().name if Path(request.model).exists() else request.model
    app = build_service(predictor, name, limits, request.k, is_local(request.host))
    with contextlib.closing(Listener(request.host, request.port)) as listener:
        listener.take(app, timeout_graceful_shutdown=GRACE, access_log=False)
        print(f"Serving {name} at {listener.url}predict. Ctrl-C ends.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            listener.run()
    return 0
