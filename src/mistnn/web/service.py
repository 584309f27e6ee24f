"""The application of ``mist serve``: images in, boxes, classes and counts out, as JSON.

A request is refused before its image is decoded if it has too many bytes or pixels, or is in a format that browsers and
cameras don't write. Every answer is JSON; an error is ``{"error": "..."}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mistnn import __version__
from mistnn.data import tiff
from mistnn.data.images import FOREIGN, MAX_PIXELS, UnreadableImage, open_header, pages_of
from mistnn.errors import MistError
from mistnn.inference import Prediction, Predictor
from mistnn.web.app_server import Receive, Scope, Send, from_here
from mistnn.web.batches import Batches, Busy
from mistnn.web.metrics import KIND, Metrics
from mistnn.web.server import HOST

LOG = logging.getLogger("mistnn.serve")
FORMATS = frozenset({"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"})
"""Formats that are decoded, by Pillow's names; not those that call another program or hold no pixels."""
WHOLE, NOT_WHOLE = re.compile("[0-9]{1,9}"), "k must be a whole number from 1"
TWICE = "k is given twice: give it once, in the address or in the form"
BODY_SECONDS = 30.0
"""A request must arrive in this time."""
DRAINED = 8
"""A body that is too long is read on, to so many times the limit: many clients read no answer before all is sent."""
FORM_BYTES = 4096
"""Bytes of a form beside its image."""
PATHS = ("/predict", "/health", "/metrics", "/openapi.json")


class Limits(NamedTuple):
    """What is refused.

    Attributes:
        size: bytes of an image.
        pixels: of an image.
        waiting: images that are being answered at a time.
    """

    size: int = 20_000_000
    pixels: int = 25_000_000
    waiting: int = 64


class Object(BaseModel):
    """An object: centre x, centre y, width and height in pixels of the upright image; class, and score from 0 to 1."""

    box: tuple[float, float, float, float]
    class_name: str | None
    score: float


class Answer(BaseModel):
    """What was found in an image.

    Attributes:
        width: of the upright image, in pixels.
        height: likewise.
        count: the number of objects.
        counts: of each class; of "object" for a model without classes.
        intervals: in 80 % of images like those of the training, the true number of a class lies from the first to the
            second value; null if unknown.
        notes: what is to be known about the image, such as that only the first of its pages was used.
        at_limit: whether the model found as many objects as it can report, so that there may be more; null if the
            request gave k, or the model can't count.
        unlike: whether the image differs more from the training images than all validation images did; null if the
            model can't say.
        objects: the best first.
    """

    model: str
    width: int
    height: int
    count: int
    counts: dict[str, int]
    intervals: dict[str, tuple[int, int]] | None
    at_limit: bool | None
    unlike: bool | None
    notes: list[str]
    objects: list[Object]


def answer_of(predictor: Predictor, found: Prediction, k: int | None, model: str, notes: Sequence[str] = ()) -> Answer:
    """The answer for a prediction."""
    height, width = found.image.shape[-2:]
    names = found.names if found.labels is not None else [None] * len(found)
    rows = zip(found.boxes.tolist(), names, found.scores.tolist(), strict=True)
    return Answer(
        model=model,
        width=width,
        height=height,
        count=len(found),
        counts=found.counts,
        intervals=found.count_intervals or None,
        at_limit=predictor.at_limit(len(found), height, width, k),
        unlike=None if found.unlike is None else found.unlike > 1,
        notes=list(notes),
        objects=[Object(box=tuple(box), class_name=name, score=score) for box, name, score in rows],
    )


class _Service:
    """The routes and what they share."""

    def __init__(self, predictor: Predictor, model: str, limits: Limits, k: int | None) -> None:
        self.predictor, self.model, self.limits, self.k = predictor, model, limits, k
        self.metrics, self.batches = Metrics(), Batches(predictor, limits.waiting)
        self.numbers = itertools.count()
        self.folder = Path()

    @contextlib.asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="mist-serve-") as folder:
            self.folder = Path(folder)
            worker = asyncio.create_task(self.batches.run())
            yield
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    async def predict(self, request: Request, k: int | None = None) -> Answer:
        """Finds the objects of an image: the body of the request, or the file of a form (multipart/form-data)."""
        if strange := [name for name in request.query_params if name != "k"]:
            raise HTTPException(400, f"{strange[0]!r} is no option: only k is")
        if len(texts := request.query_params.getlist("k")) > 1:
            raise HTTPException(400, TWICE)
        if texts and not WHOLE.fullmatch(texts[0].strip()):  # FastAPI also takes 1_0 and 3.0
            raise HTTPException(400, NOT_WHOLE)
        path = self.folder / str(next(self.numbers))
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    k = await self.receive(request, path, k)
            except TimeoutError:
                raise HTTPException(408, f"the request did not arrive in {BODY_SECONDS:g} s") from None
            k = self.k if k is None else k
            if k is not None and k < 1:
                raise HTTPException(400, f"k must be at least 1, got {k}")
            width, height, pages = await asyncio.to_thread(self.check, path)
            found = await self.batches.predict(path, width, height, k)
        except UnreadableImage as error:
            raise HTTPException(400, f"the image can't be read: {error}") from error
        except MistError as error:
            raise HTTPException(400, str(error)) from error
        except Busy:
            raise HTTPException(503, "too many images wait: try again later", {"Retry-After": "1"}) from None
        finally:
            path.unlink(missing_ok=True)
        notes = [f"the image holds {pages} pages: only the first was used"] if pages > 1 else []
        answer = answer_of(self.predictor, found.prediction, k, self.model, notes)
        self.metrics.images += 1
        self.metrics.objects += answer.count
        said = {"size": f"{answer.width}x{answer.height}", "objects": answer.count, "batch": found.batch}
        request.scope["mist"] |= said
        return answer

    async def receive(self, request: Request, path: Path, k: int | None) -> int | None:
        """Writes the image of a request to a file. Returns k, which a field of a form may give too."""
        most = self.limits.size
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            form = await request.form(max_files=1, max_fields=8, max_part_size=FORM_BYTES)
            try:
                image = next((one for one in form.values() if isinstance(one, UploadFile)), None)
                k = _k_of_form([(name, one) for name, one in form.multi_items() if isinstance(one, str)], k)
                if image is None:
                    raise HTTPException(400, "the form holds no file: give an image, as in curl -F image=@scene.png")
                if image.size is not None and image.size > most:
                    raise too_large(most)
                if (why := FOREIGN.get(PurePath(image.filename or "").suffix.lower())) is not None:
                    raise HTTPException(415, why)
                with path.open("wb") as file:
                    while part := await image.read(1 << 20):
                        file.write(part)
            finally:
                await form.close()
        else:
            with path.open("wb") as file:
                async for part in request.stream():
                    file.write(part)
        if not path.stat().st_size:
            raise HTTPException(400, "the request holds no image: send it as the body, or as the file of a form")
        return k

    def check(self, path: Path) -> tuple[int, int, int]:
        """The width, height and pages of an image by its header, if it is accepted."""
        try:
            with open_header(path) as image:
                kind, width, height = image.format, image.width, image.height
                foreign, pages = tiff.foreign(image), pages_of(image)
        except UnreadableImage as error:
            if "bomb" in str(error):
                raise HTTPException(413, str(error)) from error
            raise HTTPException(415, f"{error}: send PNG, JPEG, TIFF or WebP") from error
        if kind not in FORMATS:
            raise HTTPException(415, f"{kind} isn't accepted: send PNG, JPEG, TIFF or WebP")
        if foreign is not None:
            raise HTTPException(415, foreign)
        if width * height > min(self.limits.pixels, MAX_PIXELS):
            raise HTTPException(
                413,
                f"the image has {width * height:,} pixels, and {self.limits.pixels:,} are accepted: shrink or crop it",
            )
        return width, height, pages

    async def health(self) -> dict[str, Any]:
        """Whether the server works, and with which model."""
        config = self.predictor.model.config
        names = list(self.predictor.model.class_names)
        return {
            "status": "ok",
            "mistnn": __version__,
            "model": self.model,
            "classes": names,
            "channels": config.channels,
        }

    async def show_metrics(self) -> PlainTextResponse:
        """Counters for Prometheus."""
        text = self.metrics.text(self.batches.waiting, self.batches.done)
        return PlainTextResponse(text, media_type=KIND)


def _k_of_form(fields: Sequence[tuple[str, str]], k: int | None) -> int | None:
    """The number of objects that the text fields of a form ask for; ``k`` of the address if they do not."""
    if strange := [name for name, _ in fields if name != "k"]:
        raise HTTPException(400, f"the form has a field {strange[0]!r}: only an image and k are understood")
    if not fields:
        return k
    if len(fields) > 1 or k is not None:
        raise HTTPException(400, TWICE)
    text = fields[0][1].strip()
    if not WHOLE.fullmatch(text):
        raise HTTPException(400, NOT_WHOLE)
    return int(text)


def too_large(most: int) -> HTTPException:
    """The refusal of too many bytes."""
    return HTTPException(413, f"more than {most:,} bytes are not accepted: shrink the image, or send JPEG")


def build_service(
    predictor: Predictor, model: str, limits: Limits | None = None, k: int | None = None, local: bool = True
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application.

    Args:
        predictor: what answers.
        model: its name in the answers.
        limits: what is refused.
        k: objects to find in each image where a request gives no k; by default as many as the model counts.
        local: refuse requests that name another host, or that a page of another site makes.

    Raises:
        MistError: if the model can't count yet, and no k is given.
    """
    predictor.check_counting(k)
    limits = Limits() if limits is None else limits
    service = _Service(predictor, model, limits, k)
    app = FastAPI(
        redirect_slashes=False,
        title=f"mistnn: {model}",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=service.life,
    )
    body = {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "application/octet-stream")
    }
    fields = {"image": {"type": "string", "format": "binary"}, "k": {"type": "integer", "minimum": 1}}
    form = {"schema": {"type": "object", "properties": fields}}
    extra = {"requestBody": {"required": True, "content": {**body, "multipart/form-data": form}}}
    app.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra=extra)
    app.add_api_route("/health", service.health)
    app.add_api_route("/metrics", service.show_metrics, response_class=PlainTextResponse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_option)
    app.add_exception_handler(Exception, _apologise)
    return _Gate(app, service.metrics, limits.size, local)


async def _refuse(request: Request, error: Any) -> JSONResponse:
    hints = {404: "there is no such page: POST an image to /predict; GET /health or /metrics", 405: "POST to /predict"}
    said = hints.get(error.status_code, str(error.detail))
    return JSONResponse({"error": said}, error.status_code, error.headers)


async def _refuse_option(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": NOT_WHOLE}, 400)


async def _apologise(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the server failed; its log says more"}, 500)


class _Gate:
    """ASGI middleware: refuses other hosts, bounds the bytes of a request, logs and counts it."""

    def __init__(self, app: Any, metrics: Metrics, most: int, local: bool) -> None:
        self.app, self.metrics, self.most, self.local = app, metrics, most, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, codes, said = time.perf_counter(), [500], {}
        scope["mist"] = said

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                codes[0] = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self.local and not from_here(headers):
                refusal = JSONResponse({"error": "this server is for this computer only: see mist serve --host"}, 403)
                await refusal(scope, receive, sending)
            else:
                await self.app(scope, _Bounded(receive, self.most, headers), sending)
        except Exception:  # a defect; its request has been answered by _apologise
            LOG.exception("a request failed, which should not happen")
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.add(path, codes[0], seconds)
            client = scope["client"][0] if scope.get("client") else "-"
            more = "".join(f" {name}={value}" for name, value in said.items())
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            LOG.info(f"{when} {client} {scope['method']} {path} {codes[0]}{more} ms={1e3 * seconds:.0f}")


class _Bounded:
    """Receives the body of a request, and raises ``HTTPException`` if it is too long."""

    def __init__(self, receive: Receive, most: int, headers: dict[str, str]) -> None:
        form = headers.get("content-type", "").lower().startswith("multipart/")
        self.receive, self.limit, self.most, self.received = receive, most, most + FORM_BYTES * form, 0
        length = headers.get("content-length", "")
        self.announced = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0
        self.waits = "100-continue" in headers.get("expect", "").lower()

    async def __call__(self) -> Any:
        if self.announced > self.most and self.waits:
            raise too_large(self.limit)
        message = await self.receive()
        self.received += len(message.get("body", b""))
        if max(self.received, self.announced) > self.most:
            while message.get("more_body") and self.received <= DRAINED * self.most:
                message = await self.receive()
                self.received += len(message.get("body", b""))
            raise too_large(self.limit)
        return message


def is_local(host: str) -> bool:
    """Whether only this computer can reach a host."""
    return host in (HOST, "localhost")
