"""A web server on this machine, for what is downloaded: with ranges, and able to break off."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class FileServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        requests: path and ``Range`` of each request so far.
        break_off: after how many bytes of a file to close the connection; ``None`` sends all.
        ranges: whether to heed ``Range``.
        skipped: how many bytes of each range to leave out at its beginning.
        validators: headers by which a client knows whether a file has changed: ``ETag``, ``Last-Modified`` or none.
        length: whether to say how large a file is.
        status: an error to answer everything with.
        silent: keeps the connection open after ``break_off``, until it is set.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[tuple[str, str | None]] = []
        self.break_off: int | None = None
        self.ranges = True
        self.skipped = 0
        self.validators: tuple[str, ...] = ("ETag",)
        self.length = True
        self.status: int | None = None
        self.silent = threading.Event()
        self.silent.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def locate(self, path: str, host: str) -> Path | str:
        """The file that is asked for, or the address to ask instead."""
        return self.folder / path.lstrip("/").split("?")[0]

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is nothing to print."""


class _Handler(SimpleHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        path = self.server.locate(self.path, self.headers["Host"])
        if isinstance(path, str):
            self.send_response(302)
            self.send_header("Location", path)
            self.end_headers()
            return
        if self.server.status or not path.is_file():
            self.send_error(self.server.status or 404)
            return
        content = path.read_bytes()
        known = self._known_by(content)
        unchanged = self.headers.get("If-Range") in (None, *known.values())
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges and unchanged else 0
        if first and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        first += self.server.skipped if first else 0
        self.send_response(206 if first else 200)
        for name, value in known.items():
            self.send_header(name, value)
        if self.server.length:
            self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        rest = content[first:]
        self.wfile.write(rest[: self.server.break_off] if self.server.break_off is not None else rest)
        self.wfile.flush()
        self.server.silent.wait(30)

    def _known_by(self, content: bytes) -> dict[str, str]:
        number = int(hashlib.sha256(content).hexdigest()[:6], 16)
        values = {"ETag": f'"{number}"', "Last-Modified": self.date_time_string(number)}
        return {name: values[name] for name in self.server.validators}

    def log_message(self, *_: Any) -> None:
        """The test reports, not the server."""


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    with running(FileServer(folder)) as server:
        yield server
