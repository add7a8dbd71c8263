"""MONAI Label's own server, in the environment that ``ci/monailabel.sh`` makes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle_runs import ROOT, TINY
from mlflow_server import free_port, kill_tree
from waiting import until

ENVIRONMENT = ROOT / ".venv-monailabel"
LIMIT = 900.0


def require_monai_label() -> None:
    """Install it unless it is there, or skip the test."""
    result = subprocess.run(["bash", str(ROOT / "ci" / "monailabel.sh")], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"MONAI Label cannot be installed here: {(result.stderr or result.stdout).strip()[-300:]}")


def tiny_bundle(bundle: str, folder: Path) -> None:
    """A bundle whose network is small, as its user would edit its configurations."""
    shutil.copytree(ROOT / "bundles" / bundle, folder, ignore=shutil.ignore_patterns("models"))
    for name in ("train", "inference"):
        path = folder / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        for key, value in TINY[bundle].items():
            first, _, argument = key.partition("#")
            if first in config:
                config |= {first: {**config[first], argument: value} if argument else value}
        path.write_text(json.dumps(config))


class LabelServer:
    """A running server, spoken to as its plugins do."""

    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        self.log = log

    def ask(self, method: str, path: str, content: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(f"{self.address}{path}", content, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return answer.read()

    def json(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        return json.loads(self.ask(method, path, None if content is None else json.dumps(content).encode()))

    def save_label(self, image: str, label: Path) -> None:
        mark = "a-boundary"
        head = f'--{mark}\r\nContent-Disposition: form-data; name="label"; filename="{label.name}"\r\n\r\n'
        content = head.encode() + label.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        self.ask("PUT", f"/datastore/label?image={image}&tag=final", content, f"multipart/form-data; boundary={mark}")

    def infer(self, model: str, image: str) -> bytes:
        form = "application/x-www-form-urlencoded"
        return self.ask("POST", f"/infer/{model}?image={image}&output=image", b"params={}", form)

    def finished(self, task: str) -> Any:
        """The last task once it is over."""
        until(lambda: self.json("GET", f"/{task}/")["status"] in ("DONE", "ERROR", "STOPPED"), LIMIT)
        return self.json("GET", f"/{task}/")


@contextlib.contextmanager
def label_server(app: Path, studies: Path, models: Sequence[str], home: Path) -> Iterator[LabelServer]:
    """Start a server on a free port, and stop it."""
    port = free_port()
    command = [ENVIRONMENT / "bin" / "python", "-m", "monailabel.main", "start_server", "--app", app]
    command += ["--studies", studies, "--host", "127.0.0.1", "--port", str(port), "--conf", "models", ",".join(models)]
    command += ["--conf", "zoo_source", "local"]  # otherwise it asks the model zoo for its list
    environment = {**os.environ, "MEDCONTEXT_HOME": str(home), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT / "shared")
    log = home / f"server-{port}.log"
    with log.open("w") as output:
        words = list(map(str, command))
        process = subprocess.Popen(words, env=environment, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    server = LabelServer(f"http://127.0.0.1:{port}", log)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return bool(server.json("GET", "/info/"))
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        until(ready, LIMIT)
        yield server
    finally:
        kill_tree(process.pid)
        process.wait()
