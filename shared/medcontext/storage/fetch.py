"""Files from the web: checked when they are whole, and taken up where they ended when they were cut.

MONAI's ``download_url`` begins again after every cut, waits without end for a server that is silent, and fills the
system's temporary folder; so this module does without it. Like it, it goes through ``urllib``, and so through the same
proxies and certificates.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tqdm.auto import tqdm

import medcontext
from medcontext.storage.addresses import without_password
from medcontext.storage.files import require_space, write_file

__all__ = ["Digest", "DigestError", "fetch", "is_address", "read_address"]

BLOCK = 1 << 16
TIMEOUT = 30.0
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
NOT_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

Headers = dict[str, str]


class DigestError(ValueError):
    """A file is not what was published; it may be when it is downloaded again."""


class Digest(NamedTuple):
    """What a file must hash to.

    Attributes:
        kind: ``md5``, ``sha1``, ``sha256`` or ``sha512``.
        value: hexadecimal digits.
    """

    kind: str
    value: str

    @classmethod
    def parse(cls, kind: Any, value: Any, subject: str) -> Digest:
        """Check what somebody wrote into a file.

        Raises:
            ValueError: If it is no hash of a known kind; the message begins with ``subject``.
        """
        name, digits = str(kind).lower(), str(value).lower()
        if not re.fullmatch(rf"[0-9a-f]{{{DIGITS.get(name, 0)}}}", digits) or name not in DIGITS:
            raise ValueError(f"{subject} has no hash that it could be checked by ({kind}: {value}).")
        return cls(name, digits)

    def matches(self, path: Path) -> bool:
        """Whether a file is what it should be."""
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.new(self.kind, usedforsecurity=False))
        return found.hexdigest() == self.value


def is_address(text: str) -> bool:
    """Whether a text is an address of the web rather than a path.

    Raises:
        ValueError: If it is one that cannot be read.
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
            f"{without_password(text)} comes with a password, which cannot be used; download the files by other means "
            "and give their folder."
        )
    return True


def read_address(url: str, limit: int) -> bytes:
    """Read a small file.

    Raises:
        ConnectionError: If it cannot be had, with what to do.
        ValueError: If it has more than ``limit`` bytes.
    """
    with _told_clearly(url), _open(url, {}) as response:
        content: bytes = response.read(limit + 1)
        if response.length and len(content) <= limit:
            raise http.client.IncompleteRead(content, response.length)
    if len(content) > limit:
        raise ValueError(f"{url} has more than {limit} bytes; this is another file than expected.")
    return content


def fetch(url: str, target: Path, digest: Digest) -> Path:
    """Download a file, unless it is there already, and check it.

    What arrives before a cut is kept beside ``target``, and the next call goes on from there if the server can, and if
    its file is still the same.

    Args:
        url: address of the file.
        target: where to put it, in an existing folder.
        digest: what it must hash to.

    Returns:
        ``target``.

    Raises:
        ConnectionError: If it cannot be had, or not all of it; with what to do.
        OSError: If it cannot be written, with what to do.
        DigestError: If it is not what it should be; nothing of it is kept.
    """
    if target.is_file() and digest.matches(target):
        return target
    part = _Part(target, digest)
    resumed = part.size > 0
    _receive(url, part)
    if resumed and not digest.matches(part.path):  # two versions of a file, joined by a server that gave no sign
        part.discard()
        _receive(url, part)
    if not digest.matches(part.path):
        part.discard()
        raise DigestError(
            f"{url} is not what was published (its {digest.kind} is not {digest.value}); "
            "call again, and if it stays so, tell whoever publishes it."
        )
    os.replace(part.path, target)
    part.discard()
    return target


class _Part:
    """What has arrived of a file, and by what the server knows its version."""

    def __init__(self, target: Path, digest: Digest) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.name, self.digest = target.name, digest
        self.validator: str | None = None
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            fits, self.validator = note["digest"] == digest.value, note["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            self.discard()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def discard(self) -> None:
        self.validator = None
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self, response: Any) -> None:
        """Forget what there was, for the whole file comes now."""
        self.discard()
        tag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
        self.validator = tag if tag and not tag.startswith("W/") else date
        note = {"digest": self.digest.value, "validator": self.validator}
        write_file(self.note, json.dumps(note).encode())

    def headers(self) -> Headers:
        """What asks for the rest of the file, or for all of it when it has changed."""
        if not self.size:
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": self.validator} if self.validator else {})


def _receive(url: str, part: _Part) -> None:
    """Bring a part to its full length."""
    with _told_clearly(url):
        response = _rest(url, part)
    if response is None:
        return
    with response, _written(part.path):
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
                stream.write(block)
                stream.flush()
                bar.update(len(block))
    if total is not None and part.size < total:
        raise ConnectionError(f"{url} broke off after {part.size} of {total} bytes; call again to go on from there.")


def _rest(url: str, part: _Part) -> Any:
    """The response that holds what a part lacks, or the whole file; ``None`` when the part lacks nothing."""
    try:
        return _open(url, part.headers())
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not part.size:
            raise
        error.close()
        whole = error.headers.get("Content-Range") == f"bytes */{part.size}"
        return None if whole else _open(url, {})


class _StayEncrypted(urllib.request.HTTPRedirectHandler):
    """Follow no redirect from https to http: hashes come from lists that are read so."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it leads from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Headers) -> Any:
    words = {"User-Agent": f"medcontext/{medcontext.__version__}", **headers}
    opener = urllib.request.build_opener(_StayEncrypted)
    return opener.open(urllib.request.Request(url, headers=words), timeout=TIMEOUT)


def _blocks(response: Any, url: str) -> Iterator[bytes]:
    with _told_clearly(url):
        while block := response.read1(BLOCK):
            yield block


@contextlib.contextmanager
def _told_clearly(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way into ConnectionErrors of one sentence."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        advice = "check the address" if error.code in NOT_THERE else "call again later, or check that you may read it"
        raise ConnectionError(f"{url} answered {error.code} {error.reason}; {advice}.") from error
    except urllib.error.URLError as error:
        advice = "check the address and the network, and call again"
        raise ConnectionError(f"{url} cannot be reached ({error.reason}); {advice}.") from error
    except TimeoutError as error:
        raise ConnectionError(f"{url} was silent for {TIMEOUT:g} seconds; call again to go on.") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url} broke off ({error or type(error).__name__}); call again to go on.") from error


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn what goes wrong on the disk into OSErrors of one sentence; others have one already."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}); mend this and call again, what has arrived is kept."
        ) from error
