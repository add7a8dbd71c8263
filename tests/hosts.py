"""Stand-ins for GitHub and for the Hugging Face Hub on this machine, for clients that know them by name.

GitHub is reached as behind a company's proxy: by the proxy that ``HTTPS_PROXY`` names, with TLS by a certificate that
``SSL_CERT_FILE`` and ``REQUESTS_CA_BUNDLE`` make valid. The Hub is reached by ``HF_ENDPOINT``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from http_server import FileServer, running

API, RAW, GITHUB = "api.github.com", "raw.githubusercontent.com", "github.com"
ASSETS = "release-assets.githubusercontent.com"


class GitHub(FileServer):
    """Serves ``folder/HOST/PATH`` by TLS; ``github.com`` sends those who want an asset on to another host."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        super().__init__(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(API, RAW, GITHUB, ASSETS).configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def locate(self, path: str, host: str) -> Path | str:
        if host == GITHUB:
            return f"https://{ASSETS}{path}"
        return super().locate(f"{host}{path}", host)


class Proxy(ThreadingHTTPServer):
    """Connects to one server whoever asks for one of its hosts, and nobody to any other."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.port = port
        self.hosts: list[str] = []


class _Tunnel(BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0]
        self.server.hosts.append(host)
        if host not in (API, RAW, GITHUB, ASSETS):
            self.send_error(403)
            return
        with socket.create_connection(("127.0.0.1", self.server.port)) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(far, self.connection), daemon=True)
            back.start()
            _pass_on(self.connection, far)
            back.join()

    def log_message(self, *_: Any) -> None:
        """The test reports, not the server."""


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def github(folder: Path, certificate: Path) -> Iterator[tuple[GitHub, Proxy, dict[str, str]]]:
    """GitHub, the proxy to it, and the environment in which a client goes there.

    Args:
        folder: with a folder for each host.
        certificate: where to write the certificate to trust.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certificate)
    with running(GitHub(folder, authority)) as server, running(Proxy(server.server_port)) as proxy:
        address = f"http://127.0.0.1:{proxy.server_port}"
        environment = {"HTTPS_PROXY": address, "https_proxy": address, "NO_PROXY": "", "no_proxy": ""}
        trusted = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(certificate))
        yield server, proxy, environment | trusted


class Hub(ThreadingHTTPServer):
    """A Hugging Face Hub: the folder of each tag and of ``main``, by the name of the repository."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, Path]]) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.repositories = repositories
        self.requests: list[str] = []

    def commits(self, repository: str) -> dict[str, str]:
        """The commit of each revision."""
        return {name: hashlib.sha1(name.encode()).hexdigest() for name in self.repositories[repository]}


class _HubHandler(SimpleHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        api, _, rest = path[1:].rpartition("api/models/")
        words = (rest if api or path.startswith("/api/models/") else path[1:]).split("/")
        repository, action = "/".join(words[:2]), words[2:3]
        commits = self.server.commits(repository) if repository in self.server.repositories else {}
        if action == ["refs"] and commits:
            self._send(json.dumps(_refs(commits)).encode(), body)
            return
        wanted = words[3] if len(words) > 3 else "main"
        names = [name for name, commit in commits.items() if wanted in (name, commit)]
        if not names:
            code = "RevisionNotFound" if commits else "RepoNotFound"
            self._send(b"", body, status=404, headers={"X-Error-Code": code})
            return
        folder, commit = self.server.repositories[repository][names[0]], commits[names[0]]
        if action == ["resolve"]:
            content = folder.joinpath(*words[4:]).read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            self._send(content, body, headers={"ETag": f'"{tag}"', "X-Repo-Commit": commit})
        elif action == ["tree"]:
            self._send(json.dumps(_tree(folder)).encode(), body)
        else:
            self._send(json.dumps({"id": repository, "sha": commit, "siblings": []}).encode(), body)

    def _send(self, content: bytes, body: bool, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """The test reports, not the server."""


def _refs(commits: Mapping[str, str]) -> dict[str, Any]:
    def named(kind: str, names: list[str]) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": commits[n]} for n in names]

    tags = [name for name in commits if name != "main"]
    return {"branches": named("heads", ["main"]), "tags": named("tags", tags), "converts": []}


def _tree(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]


@contextlib.contextmanager
def hub(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[Hub]:
    with running(Hub(repositories)) as server:
        yield server
