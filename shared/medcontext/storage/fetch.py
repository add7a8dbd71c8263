"""Downloads: checked when they are complete, and resumed where they were cut off.

MONAI's ``download_url`` starts again after every interruption, waits forever for a silent server, and fills the
system's temporary folder, so it is not used here. Like it, this module uses ``urllib``, and so the same proxies and
certificates.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tqdm.auto import tqdm

import medcontext
from medcontext.faults import explained
from medcontext.storage.addresses import without_password
from medcontext.storage.files import require_space, write_file
from medcontext.storage.json_files import read_json

__all__ = ["Digest", "DigestError", "fetch", "is_address", "read_address"]

BLOCK = 1 << 16
TIMEOUT = 30.0
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
MOST_UNDECLARED = 8 << 30
"""Bytes that a server may send without saying beforehand how many."""
NOT_FOUND = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

Headers = dict[str, str]


class DigestError(ValueError):
    """A file is not the published one; another download may be."""


class Digest(NamedTuple):
    """Hash that a file must have.

    Attributes:
        kind: ``md5``, ``sha1``, ``sha256`` or ``sha512``.
        value: hexadecimal digits.
    """

    kind: str
    value: str

    @classmethod
    def parse(cls, kind: Any, value: Any, subject: str) -> Digest:
        """Check a hash that was read from a file.

        Raises:
            ValueError: If it is not a hash of a known kind; the message begins with ``subject``.
        """
        name, digits = str(kind).lower(), str(value).lower()
        if not re.fullmatch(rf"[0-9a-f]{{{DIGITS.get(name, 0)}}}", digits) or name not in DIGITS:
            raise ValueError(f"{subject} has no hash to check it by ({kind}: {value}).")
        return cls(name, digits)

    def matches(self, path: Path) -> bool:
        """Return whether a file has this hash."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.new(self.kind, usedforsecurity=False))
        return digest.hexdigest() == self.value


def is_address(text: str) -> bool:
    """Return whether a text is a web address rather than a path.

    Raises:
        ValueError: If it is an address that cannot be read.
    """
    if "://" not in text:
        return False
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
        raise ValueError(
            f"{without_password(text)} cannot be read; give an address that begins with http:// or https://."
        )
    if "@" in parts.netloc:
        raise ValueError(
            f"{without_password(text)} contains a password, which is not supported; download the files by other means "
            "and give their folder."
        )
    return True


def read_address(url: str, limit: int) -> bytes:
    """Read a small file.

    Raises:
        ConnectionError: If it cannot be downloaded; the message says what to do.
        ValueError: If it has more than ``limit`` bytes.
    """
    with explained(partial(_explain_web_error, url)), _open(url, {}) as response:
        content: bytes = response.read(limit + 1)
        if response.length and len(content) <= limit:
            raise http.client.IncompleteRead(content, response.length)
    if len(content) > limit:
        raise ValueError(f"{url} has more than {limit} bytes; this is not the expected file.")
    return content


def fetch(url: str, target: Path, digest: Digest) -> Path:
    """Download a file, unless it exists already, and check it.

    After an interruption, the part that has arrived is kept beside ``target``, and the next call resumes there if the
    server supports it and still has the same file.

    Args:
        url: address of the file.
        target: path to write to, in an existing folder.
        digest: hash that the file must have.

    Returns:
        ``target``.

    Raises:
        ConnectionError: If it cannot be downloaded, or not completely; the message says what to do.
        OSError: If it cannot be written; the message says what to do.
        DigestError: If it has another hash; nothing of it is kept.
        ValueError: If a server that does not say how large it is sends more than 8 GiB; nothing of it is kept.
    """
    if target.is_file() and digest.matches(target):
        return target
    part = _Part(target, digest)
    resumed = part.size > 0
    _receive(url, part)
    if resumed and not digest.matches(part.path):  # two versions of a file, joined because the server has no validator
        part.discard()
        _receive(url, part)
    if not digest.matches(part.path):
        part.discard()
        raise DigestError(
            f"{url} is not the published file (its {digest.kind} is not {digest.value}); "
            "call again and, if the error persists, report it to the publisher."
        )
    os.replace(part.path, target)
    part.discard()
    return target


class _Part:
    """Part of a file that has arrived, and the server's validator of its version."""

    def __init__(self, target: Path, digest: Digest) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.name, self.digest = target.name, digest
        self.validator: str | None = None
        try:
            note = read_json(self.note)
            matches, self.validator = note["digest"] == digest.value, note["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            matches = False
        if not matches:
            self.discard()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def discard(self) -> None:
        self.validator = None
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self, response: Any) -> None:
        """Discard the previous part, because the whole file arrives now."""
        self.discard()
        tag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
        self.validator = tag if tag and not tag.startswith("W/") else date
        note = {"digest": self.digest.value, "validator": self.validator}
        write_file(self.note, json.dumps(note).encode())

    def headers(self) -> Headers:
        """Return the headers that request the rest of the file, or all of it if it has changed."""
        if not self.size:
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": self.validator} if self.validator else {})


def _receive(url: str, part: _Part) -> None:
    """Complete a part."""
    with explained(partial(_explain_web_error, url)):
        response = _request_rest(url, part)
    if response is None:
        return
    with response, explained(partial(_explain_disk_error, part.path)):
        start = part.size if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if not start:
            part.begin(response)
        require_space(part.path.parent, (total or 0) - start, "make room there, and call again")
        with (
            part.path.open("ab") as stream,
            tqdm(total=total, initial=start, desc=part.name, unit="B", unit_scale=True) as bar,
        ):
            for block in _blocks(response, url):
                if total is None and stream.tell() + len(block) > MOST_UNDECLARED:
                    part.discard()
                    raise ValueError(f"{url} sends more than {MOST_UNDECLARED} bytes without an end; do not use it.")
                stream.write(block)
                stream.flush()
                bar.update(len(block))
    if total is not None and part.size < total:
        raise ConnectionError(f"{url} was cut off after {part.size} of {total} bytes; call again to resume.")


def _request_rest(url: str, part: _Part) -> Any:
    """Return the response with the rest of a file, or with the whole file; ``None`` if the part is complete."""
    try:
        return _open(url, part.headers())
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not part.size:
            raise
        error.close()
        whole = error.headers.get("Content-Range") == f"bytes */{part.size}"
        return None if whole else _open(url, {})


class _StayEncrypted(urllib.request.HTTPRedirectHandler):
    """Follow no redirect from https to http, since lists with hashes are read this way."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it redirects from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Headers) -> Any:
    headers = {"User-Agent": f"medcontext/{medcontext.__version__}", **headers}
    opener = urllib.request.build_opener(_StayEncrypted)
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _blocks(response: Any, url: str) -> Iterator[bytes]:
    with explained(partial(_explain_web_error, url)):
        while block := response.read1(BLOCK):
            yield block


def _explain_web_error(url: str, error: Exception) -> Exception | None:
    """Return a ConnectionError of one sentence for an error of the connection."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        advice = "check the address" if error.code in NOT_FOUND else "call again later, or check that you may read it"
        return ConnectionError(f"{url} answered {error.code} {error.reason}; {advice}.")
    if isinstance(error, urllib.error.URLError):
        advice = "check the address and the network, and call again"
        return ConnectionError(f"{url} is unreachable ({error.reason}); {advice}.")
    if isinstance(error, TimeoutError):
        return ConnectionError(f"{url} was silent for {TIMEOUT:g} seconds; call again to resume.")
    if isinstance(error, OSError | http.client.HTTPException):
        return ConnectionError(f"{url} was cut off ({error or type(error).__name__}); call again to resume.")
    return None


def _explain_disk_error(path: Path, error: Exception) -> Exception | None:
    """Return an OSError of one sentence for an error of the disk; others have one already."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    return OSError(f"{path} cannot be written ({error.strerror}); fix this and call again to resume.")
