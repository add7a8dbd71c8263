from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from audit import ACCEPTED, CONSTRAINTS, audit_problems, unchecked_packages

ADVISORY = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
PACKAGES: list[dict[str, Any]] = [
    {"name": "sound", "version": "1.0", "vulns": []},
    {"name": "weak-one", "version": "1.5", "vulns": [ADVISORY, {"id": "PYSEC-2", "aliases": [], "fix_versions": []}]},
]


@pytest.mark.parametrize(
    ("accepted", "problems"),
    [
        ({}, ["weak-one 1.5: PYSEC-1, CVE-1; fixed in 2.0", "weak-one 1.5: PYSEC-2; not fixed"]),
        ({"CVE-1": "is not reached", "PYSEC-2": "nor is this"}, []),
        ({"PYSEC-1": "is not reached", "PYSEC-2": " "}, ["weak-one 1.5: PYSEC-2; not fixed"]),
        (
            {"PYSEC-1": "is not reached", "PYSEC-2": "nor is this", "PYSEC-3": "of old"},
            ["PYSEC-3 is accepted, but no package has it any more; remove it from audit_accepted.json"],
        ),
    ],
)
def test_advisories_are_accepted_by_id_or_alias_with_a_reason(accepted: dict[str, str], problems: list[str]) -> None:
    assert audit_problems(PACKAGES, accepted) == problems


def test_what_was_skipped_is_unchecked() -> None:
    packages = [*PACKAGES, {"name": "skipped", "skip_reason": "not found"}]
    assert unchecked_packages(packages, ["Sound", "weak_one", "skipped", "absent"]) == ["skipped", "absent"]


def test_each_accepted_advisory_has_a_reason() -> None:
    assert all(reason.strip() for reason in json.loads(ACCEPTED.read_text()).values())
    assert "torch==" in CONSTRAINTS.read_text()


class Advisories(BaseHTTPRequestHandler):
    """OSV's interface, with one advisory for jinja2."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
        found = {"vulns": [{"id": "PYSEC-1", "summary": "weak", "affected": affected}]} if name == "jinja2" else {}
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def audit(folder: Path, url: str, accepted: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Audit two packages with pip-audit, installed for the interpreter that comes first."""
    (folder / "constraints.txt").write_text("# pinned\nJinja2==3.1.6\neinops==0.8.2\n")
    (folder / "accepted.json").write_text(json.dumps(accepted))
    program = shutil.which("pip-audit")
    python = str(Path(program).with_name("python")) if program else sys.executable
    words = ["--url", url, "--constraints", folder / "constraints.txt", "--accepted", folder / "accepted.json"]
    return subprocess.run(
        [python, CONSTRAINTS.parent / "ci" / "audit.py", *map(str, words)], capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pip-audit") is None, reason="needs pip-audit, as from .venv-audit/bin in PATH")
def test_advisories_of_a_server(tmp_path: Path) -> None:
    with served() as url:
        found = audit(tmp_path, url, {})
        assert (found.returncode, found.stdout.splitlines()[0]) == (1, "jinja2 3.1.6: PYSEC-1; not fixed")
        assert audit(tmp_path, url, {"PYSEC-1": "templates are ours"}).returncode == 0
    unreachable = audit(tmp_path, url, {})
    assert unreachable.returncode == 2
    assert unreachable.stderr.startswith(
        f"audit: Nothing was checked, as pip-audit cannot read the advisories at {url}"
    )
    assert len(unreachable.stderr.splitlines()) == 1
