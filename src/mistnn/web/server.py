"""The server of the labelling page: standard library, on 127.0.0.1 only, images by their number.

Convention: a request must name this computer as its host, and a change must be JSON from this very page: other pages
that are open in the browser can neither read nor change anything. No path of a request is ever used as a path of a
file.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mistnn.data.images import UnreadableImage, open_image
from mistnn.errors import MistError
from mistnn.web.labels import Labels

HOST = "127.0.0.1"
LONGEST = 1600
"""The longest side of an image that is sent, in pixels."""
CACHED = 8
LARGEST_BODY = 100_000
"""Bytes of a request."""
PAGES: Mapping[str, tuple[str, str]] = {
    "/": ("label.html", "text/html; charset=utf-8"),
    "/label.js": ("label.js", "text/javascript; charset=utf-8"),
    "/label.css": ("label.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class LabelServer(ThreadingHTTPServer):
    """Serves one folder's labels; ``url`` is the address of the page."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, labels: Labels, port: int) -> None:
        """Listens on a port of 127.0.0.1, 0 for any free one; ``MistError`` if it is in use."""
        self.labels, self.lock = labels, threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise MistError(f"--port {port} can't be used ({error.strerror}): give another, or 0 for any") from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = 30.0

    def do_GET(self) -> None:
        if not self._from_here():
            return
        labels = self.server.labels
        if self.path in PAGES:
            name, kind = PAGES[self.path]
            self._send(200, files("mistnn.web").joinpath(name).read_bytes(), kind)
        elif self.path == "/state":
            try:
                with self.server.lock:
                    labels.refresh()
                    shown = state(labels)
                self._json(200, shown)
            except MistError as error:
                self._json(500, {"error": str(error)})
        elif (index := _index_of(self.path, len(labels.headers))) is not None:
            try:
                self._send(200, picture(labels.headers[index].path), "image/png")
            except UnreadableImage as error:
                self._json(422, {"error": f"{labels.headers[index].name}: {error}"})
        else:
            self._json(404, {"error": "there is no such page"})

    def do_POST(self) -> None:
        if not self._from_here():
            return
        origin = self.headers.get("Origin")
        own = origin is None or origin in (f"http://{HOST}:{self.server.server_port}", self._local())
        if self.headers.get("Content-Type") != "application/json" or not own:
            self._json(403, {"error": "only the page itself may change labels"})
            return
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= LARGEST_BODY:
                raise ValueError(f"{length} bytes are too many")
            content = json.loads(self.rfile.read(length) or b"null")
            with self.server.lock:
                answer = change(self.server.labels, self.path, content)
            self._json(404 if answer is None else 200, answer or {"error": "there is no such action"})
        except RecursionError:
            self._json(400, {"error": "the JSON is nested too deeply"})
        except ValueError as error:
            self._json(400, {"error": str(error)})
        except MistError as error:
            self._json(500, {"error": str(error)})

    def _from_here(self) -> bool:
        """Whether the request names this computer, and no page of another site makes it.

        A page elsewhere may have a name that leads here, or embed what is served here.
        """
        port = self.server.server_port
        own = self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")
        if own and self.headers.get("Sec-Fetch-Site", "").lower() != "cross-site":
            return True
        self._json(403, {"error": "this page is for this computer only"})
        return False

    def _local(self) -> str:
        return f"http://localhost:{self.server.server_port}"

    def _json(self, code: int, content: Any) -> None:
        self._send(code, json.dumps(content).encode(), "application/json")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if code >= 400:
            self.send_header("Connection", "close")  # the rest of a refused request is not read
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


def state(labels: Labels) -> dict[str, Any]:
    """What the page shows."""
    images = [
        {
            "name": header.name,
            "counts": labels.counts.get(header.name),
            "guess": None if (guess := labels.guesses.get(header.name)) is None else guess.counts,
        }
        for header in labels.headers
    ]
    return {"classes": labels.class_names, "images": images, "notes": labels.notes}


def change(labels: Labels, action: str, content: Any) -> dict[str, Any] | None:
    """Does what the page asks; ``None`` if there is no such action.

    With ``before``, the counts that the page shows of an image, or null, they must be those that are known.

    Raises:
        ValueError: if the content can't be used.
        MistError: if the table can't be written.
    """
    if action == "/undo":
        return {"name": labels.undo()}
    if action != "/count":
        return None
    if not isinstance(content, dict) or not isinstance(content.get("counts"), list):
        raise ValueError("give a name and counts")
    name, known = str(content.get("name")), labels.counts.get(str(content.get("name")))
    if "before" in content and content["before"] != (None if known is None else list(known)):
        raise ValueError(f"{name} was counted elsewhere meanwhile, so nothing was saved: reload the page")
    labels.set(name, content["counts"])
    return {"name": content["name"]}


@lru_cache(CACHED)
def picture(path: Path) -> bytes:
    """An image as PNG, as large as the page shows it; 16-bit values are stretched to their range."""
    image = open_image(path)
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8))
    image.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _index_of(path: str, number: int) -> int | None:
    prefix, _, digits = path.rpartition("/")
    if prefix != "/image" or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        return None
    return index if (index := int(digits)) < number else None
