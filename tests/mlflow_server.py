"""A real MLflow server on this machine, which tests start, kill and start again."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

START_LIMIT = 120


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def kill_tree(pid: int) -> None:
    """Kill a process with all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


class MlflowServer:
    """``mlflow server`` with artifacts in ``folder`` and a database, there unless given, on a port that it keeps."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder = folder
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", self.database]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=log, stderr=log, env=environment, start_new_session=True
            )
        limit = time.monotonic() + START_LIMIT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it with all of its processes."""
        if self.process is not None:
            kill_tree(self.process.pid)
            self.process.wait()
            self.process = None


class Door:
    """A port that leads to that of a server. While it is closed the server is unreachable, and not started again.

    Args:
        server: a running server.
    """

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.sockets: list[socket.socket] = []

    def start(self) -> None:
        """Open it, unless it is open."""
        if not self.sockets:
            self.sockets = [socket.create_server(("127.0.0.1", self.port))]
            self._run(self._accept, self.sockets[0], self.sockets)

    def stop(self) -> None:
        """Close it and break off all connections."""
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket, sockets: list[socket.socket]) -> None:
        while True:
            caller = listener.accept()[0]
            called = socket.create_connection(("127.0.0.1", self.server.port))
            sockets += [caller, called]
            self._run(self._forward, caller, called)
            self._run(self._forward, called, caller)

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    @staticmethod
    def _run(call: Callable[..., None], *arguments: object) -> None:
        """Call in a thread that ends when its sockets are closed."""

        def run() -> None:
            with contextlib.suppress(OSError):
                call(*arguments)

        threading.Thread(target=run, daemon=True).start()
