"""A port of this computer, and the server that serves an ASGI application on it."""

from __future__ import annotations

import socket
from typing import Any

from mistnn.errors import MistError


class Listener:
    """Listens on a port; ``close`` it at the end.

    Attributes:
        url: the address of the application, such as ``http://127.0.0.1:8000/``.
    """

    def __init__(self, host: str, port: int, option: str = "--port") -> None:
        """Listens at once. Port 0 is any free one. Raises ``MistError`` if the host or port can't be used."""
        self.server: Any = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise MistError(f"--host {host} can't be used ({error.strerror}): give 127.0.0.1 or 0.0.0.0") from error
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind(address)
        except OSError as error:
            self.socket.close()
            raise MistError(f"{option} {port} can't be used ({error.strerror}): give another, or 0 for any") from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.socket.getsockname()[1]}/"

    def take(self, app: Any, **settings: Any) -> None:
        """The application to serve, with settings of ``uvicorn.Config``."""
        import uvicorn

        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", **settings))

    def run(self) -> None:
        """Serves until Ctrl-C, or until ``stop``; requests that are being answered are answered."""
        self.server.run(sockets=[self.socket])

    def stop(self) -> None:
        """Ends ``run`` soon."""
        self.server.should_exit = True

    def close(self) -> None:
        """Frees the port."""
        self.socket.close()
