"""Serves the page of ``mist app`` on 127.0.0.1, and keeps it from contacting any other computer.

Gradio's page names other hosts: for fonts, and for a script that other pages need to embed it. They are cut out, and a
content security policy forbids the browser all others.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from importlib.resources import files
from typing import Any

from mistnn.errors import MistError
from mistnn.web.listener import Listener
from mistnn.web.server import HOST
from mistnn.web.workshop import Workshop

LARGEST_UPLOAD = "2gb"
FOREIGN = re.compile(
    rb"<(?:script|link)\b[^>]*(?:src|href)=[\"'](?:https?:)?//(?!127\.0\.0\.1|localhost)[^>]*>(?:\s*</script>)?"
)
"""Elements of a page that name another host."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "media-src 'self' blob:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
COLOURS: dict[str, Any] = {
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "color_accent": "*primary_600",
    "input_border_color_focus": "*primary_600",
}
"""Gradio's own are too pale for white text on them."""
STYLE = (
    ".or { color: inherit !important } .dark { --color-accent: var(--primary-400) } "
    ".columns textarea { font-family: ui-monospace, monospace }"
)
"""The same, where Gradio's themes have no name for a colour; and text in columns."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class OnlyHere:
    """ASGI middleware: refuses requests of other sites, and answers with pages that name no other host."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not from_here(headers):
            await _refuse(send)
            return
        await self.app(scope, receive, _Cleaned(send))


class _Cleaned:
    """Sends an answer on; a page is collected first, and names of other hosts are cut out of it."""

    def __init__(self, send: Send) -> None:
        self.send, self.start, self.body = send, None, b""
        self.collects = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0].lower() not in {name for name, _ in _HEADERS}]
            message["headers"] = [*kept, *_HEADERS]
            kind = next((value for name, value in kept if name.lower() == b"content-type"), b"")
            self.collects = kind.startswith(b"text/html")
            self.start = message
            if not self.collects:
                await self.send(message)
        elif message["type"] == "http.response.body" and self.collects:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                page = FOREIGN.sub(b"", self.body)
                assert self.start is not None
                headers = [pair for pair in self.start["headers"] if pair[0].lower() != b"content-length"]
                self.start["headers"] = [*headers, (b"content-length", str(len(page)).encode())]
                await self.send(self.start)
                await self.send({"type": "http.response.body", "body": page})
        else:
            await self.send(message)


def from_here(headers: dict[str, str]) -> bool:
    """Whether a request names this computer, and no page of another site makes it."""
    host = headers.get("host", "")
    name, _, port = host.partition(":")
    origin = headers.get("origin")
    own = {f"http://{one}:{port}" for one in (HOST, "localhost")}
    return (
        name in (HOST, "localhost")
        and (origin is None or origin in own)
        and headers.get("sec-fetch-site", "").lower() not in ("cross-site", "same-site")
    )


async def _refuse(send: Send) -> None:
    body = b"this page is for this computer only"
    await send(
        {"type": "http.response.start", "status": 403, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


def check_installed() -> None:
    """Raises ``MistError`` if the extra "web" is not installed."""
    try:
        import fastapi  # noqa: F401
        import gradio  # noqa: F401
    except ImportError as error:
        raise MistError(f"mist app needs the extra web ({error.name} is missing): pip install 'mistnn[web]'") from error


def application(workshop: Workshop) -> Any:
    """The page as an ASGI application.

    Raises:
        MistError: if the extra "web" is not installed.
    """
    check_installed()
    import gradio
    from fastapi import FastAPI
    from gradio.themes import Default

    from mistnn.web.app import build_page

    fonts = ["system-ui", "sans-serif"]
    theme = Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]).set(**COLOURS)
    app = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(workshop),
        path="",
        allowed_paths=[str(workshop.out.resolve())],
        show_error=True,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
        theme=theme,
        css=STYLE,
        head=f"<script>{files('mistnn.web').joinpath('cells.js').read_text('utf-8')}</script>",
    )
    return OnlyHere(app)


@contextlib.contextmanager
def serving(workshop: Workshop, port: int) -> Iterator[tuple[Listener, str]]:
    """A server that is ready to run, and the address of its page; ``server.run()`` serves until Ctrl-C.

    Raises:
        MistError: if the port is in use, or the extra "web" is not installed.
    """
    import os

    with tempfile.TemporaryDirectory(prefix="mist-app-") as uploads:
        before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
        os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_ANALYTICS_ENABLED="False")
        try:
            app = application(workshop)
            with contextlib.closing(Listener(HOST, port)) as listener:
                listener.take(app)
                yield listener, listener.url
        finally:
            workshop.training.close()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
