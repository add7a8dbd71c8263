from __future__ import annotations

import hashlib
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from http_server import FileServer, serve
from medcontext.storage import fetch as fetching
from medcontext.storage.fetch import Digest, _StayEncrypted, fetch
from platforms import posix_only
from waiting import until

CONTENT = hashlib.shake_128(b"content").digest(300_000)
OTHER = hashlib.shake_128(b"other").digest(300_000)
CUT = 3_000


def digest_of(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "x").write_bytes(CONTENT)
    with serve(tmp_path / "served") as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "x"


def cut(server: FileServer, target: Path) -> None:
    """A download that breaks off after some bytes."""
    server.break_off = CUT
    with pytest.raises(ConnectionError, match=rf"/x was cut off after {CUT} of 300000 bytes; call again to resume"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    server.break_off = None
    assert not target.exists()
    assert target.with_name("x.part").read_bytes() == CONTENT[:CUT]


def assert_arrived(server: FileServer, target: Path, *ranges: str | None, content: bytes = CONTENT) -> None:
    """The next call brings the whole file, leaves nothing else, and asks for these ranges."""
    before = len(server.requests)
    assert fetch(f"{server.url}/x", target, digest_of(content)) == target
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]
    assert [asked for _, asked in server.requests[before:]] == list(ranges)


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",), ("ETag", "Last-Modified"), ()])
def test_continues_after_a_cut(validators: tuple[str, ...], server: FileServer, target: Path) -> None:
    server.validators = validators
    cut(server, target)
    assert_arrived(server, target, f"bytes={CUT}-")
    assert_arrived(server, target)  # what is there is not asked for again


def test_a_server_that_does_not_say_how_much_it_sends(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.length = False
    monkeypatch.setattr(fetching, "MOST_UNDECLARED", len(CONTENT) - 1)
    with pytest.raises(ValueError, match="/x sends more than 299999 bytes without an end; do not use it"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(fetching, "MOST_UNDECLARED", len(CONTENT))
    assert_arrived(server, target, None)


def test_continues_after_several_cuts(server: FileServer, target: Path) -> None:
    cut(server, target)
    server.break_off = CUT
    with pytest.raises(ConnectionError, match=f"was cut off after {2 * CUT} of 300000 bytes"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    server.break_off = None
    assert_arrived(server, target, f"bytes={2 * CUT}-")


def test_begins_again_without_ranges(server: FileServer, target: Path) -> None:
    cut(server, target)
    server.ranges = False
    assert_arrived(server, target, f"bytes={CUT}-")


@pytest.mark.parametrize(("validators", "ranges"), [(("ETag",), [f"bytes={CUT}-"]), ((), [f"bytes={CUT}-", None])])
def test_begins_again_when_the_file_was_another(
    validators: tuple[str, ...], ranges: list[str | None], server: FileServer, target: Path
) -> None:
    """A server that knows its versions sends the right one whole; else the hash tells."""
    server.validators = validators
    (server.folder / "x").write_bytes(OTHER)
    server.break_off = CUT
    with pytest.raises(ConnectionError, match="was cut off"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    server.break_off = None
    (server.folder / "x").write_bytes(CONTENT)
    assert_arrived(server, target, *ranges)


def test_begins_again_when_another_file_is_wanted(server: FileServer, target: Path) -> None:
    cut(server, target)
    (server.folder / "x").write_bytes(OTHER)
    assert_arrived(server, target, None, content=OTHER)


@pytest.mark.parametrize(("kept", "ranges"), [(CONTENT, ["bytes=300000-"]), (CONTENT * 2, ["bytes=600000-", None])])
def test_as_much_as_there_is_or_more(kept: bytes, ranges: list[str | None], server: FileServer, target: Path) -> None:
    """Killed before the whole file got its name, the next call needs no more of it."""
    cut(server, target)
    target.with_name("x.part").write_bytes(kept)
    assert_arrived(server, target, *ranges)


def test_begins_again_when_the_server_sends_another_range(server: FileServer, target: Path) -> None:
    cut(server, target)
    server.skipped = 1
    assert_arrived(server, target, f"bytes={CUT}-", None)


@pytest.mark.parametrize("note", [b"", b"[]", b'{"digest": 1}'])
def test_begins_again_when_the_note_is_damaged(note: bytes, server: FileServer, target: Path) -> None:
    cut(server, target)
    target.with_name("x.part.json").write_bytes(note)
    assert_arrived(server, target, None)


def test_replaces_what_is_damaged(server: FileServer, target: Path) -> None:
    target.write_bytes(b"damaged")
    assert_arrived(server, target, None)


def test_a_wrong_hash_leaves_nothing(server: FileServer, target: Path) -> None:
    with pytest.raises(ValueError, match="/x is not the published file .its sha256 is not .*; call again and, if"):
        fetch(f"{server.url}/x", target, digest_of(OTHER))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha512"])
def test_other_hashes(kind: str, server: FileServer, target: Path) -> None:
    digest = Digest.parse(kind.upper(), hashlib.new(kind, CONTENT).hexdigest().upper(), "x")
    assert fetch(f"{server.url}/x", target, digest) == target


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"/x answered 404 Not Found; check the address.$"),
        (403, r"/x answered 403 Forbidden; call again later, or check that you may read it.$"),
        (416, r"/x answered 416 "),
        (503, r"/x answered 503 Service Unavailable; call again later"),
    ],
)
def test_an_error_of_the_server_costs_nothing(status: int, message: str, server: FileServer, target: Path) -> None:
    server.status = status
    with pytest.raises(ConnectionError, match=message):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    server.status = None
    cut(server, target)
    if status != 416:
        server.status = status
        with pytest.raises(ConnectionError, match=message):
            fetch(f"{server.url}/x", target, digest_of(CONTENT))
        server.status = None
    assert_arrived(server, target, f"bytes={CUT}-")


def test_a_server_that_is_silent(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    server.break_off = CUT
    server.silent.clear()
    with pytest.raises(ConnectionError, match=r"/x was silent for 0.2 seconds; call again to resume.$"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))
    server.silent.set()
    server.break_off = None
    assert_arrived(server, target, f"bytes={CUT}-")


def test_nobody_listens(target: Path) -> None:
    with pytest.raises(ConnectionError, match="127.0.0.1:9/x is unreachable .*Connection refused.*; check the addr"):
        fetch("http://127.0.0.1:9/x", target, digest_of(CONTENT))


FETCH = """
import sys
from pathlib import Path
from medcontext.storage.fetch import Digest, _StayEncrypted, fetch
limit = int(sys.argv[4])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    fetch(sys.argv[1], Path(sys.argv[2]), Digest("sha256", sys.argv[3]))
except OSError as error:
    sys.exit(str(error))
"""


def words(server: FileServer, target: Path, limit: int = 0) -> list[str]:
    return [sys.executable, "-c", FETCH, f"{server.url}/x", str(target), digest_of(CONTENT).value, str(limit)]


@posix_only
def test_a_full_disk(server: FileServer, target: Path) -> None:
    result = subprocess.run(words(server, target, limit=150_000), capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert last == f"{target}.part cannot be written (File too large); fix this and call again to resume."
    kept = target.with_name("x.part").stat().st_size
    assert 0 < kept <= 150_000
    assert_arrived(server, target, f"bytes={kept}-")


def test_too_little_room_is_seen_before(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="out needs 0.0 GB and has 0.0 GB free; make room there, and call again.$"):
        fetch(f"{server.url}/x", target, digest_of(CONTENT))


def test_killed_in_the_midst(server: FileServer, target: Path) -> None:
    server.break_off = CUT
    server.silent.clear()
    process = subprocess.Popen(words(server, target), stderr=subprocess.DEVNULL)
    part = target.with_name("x.part")
    until(lambda: part.exists() and part.stat().st_size == CUT)
    process.kill()
    process.wait()
    server.silent.set()
    server.break_off = None
    assert not target.exists()
    assert_arrived(server, target, f"bytes={CUT}-")


@pytest.mark.parametrize(
    ("kind", "value"), [("sha256", None), ("sha256", "ab"), ("sha256", "g" * 64), ("crc", "ab"), (None, "ab" * 16)]
)
def test_what_is_no_hash(kind: object, value: object) -> None:
    with pytest.raises(ValueError, match="^file x has no hash to check it by"):
        Digest.parse(kind, value, "file x")


@pytest.mark.parametrize(
    ("old", "new", "followed"),
    [
        ("https://a.org/x", "https://b.org/x", True),
        ("http://a.org/x", "http://b.org/x", True),
        ("http://a.org/x", "https://a.org/x", True),
        ("https://a.org/x", "http://a.org/x", False),
    ],
)
def test_no_redirect_leads_out_of_encryption(old: str, new: str, followed: bool) -> None:
    arguments = (urllib.request.Request(old), None, 302, "Found", {}, new)
    if followed:
        assert _StayEncrypted().redirect_request(*arguments).full_url == new
    else:
        with pytest.raises(urllib.error.URLError, match="it redirects from https to http://a.org/x"):
            _StayEncrypted().redirect_request(*arguments)
