from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collections_of_bundles import CONTENT, publish, unzipped, with_large_files, zipped
from http_server import FileServer, serve
from medcontext import cli
from medcontext.hub import download as downloading
from medcontext.hub.download import download_bundle
from platforms import posix_only
from waiting import until

WEIGHTS = hashlib.shake_128(b"weights").digest(200_000)
OTHERS = hashlib.shake_128(b"others").digest(50_000)
BIG = {**CONTENT, "a/models/model.pt": WEIGHTS}
NOTE = "a/configs/metadata.json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    publish(tmp_path / "served", content=zipped(BIG))
    with serve(tmp_path / "served") as made:
        yield made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def republish(server: FileServer, content: bytes, **entry: Any) -> None:
    publish(server.folder, content=content, **entry)


@pytest.mark.parametrize("place", ["web", "folder"])
def test_brings_a_bundle_and_nothing_else(place: str, server: FileServer, out: Path) -> None:
    umask = os.umask(0o022)
    folder = download_bundle("a", server.url if place == "web" else server.folder, out)
    os.umask(umask)
    assert folder == out / "a"
    assert contents(out) == BIG
    assert [path.name for path in out.iterdir()] == ["a"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "models" / "model.pt").stat().st_mode & 0o777 == 0o644


def test_the_version_that_is_asked_for(server: FileServer, out: Path) -> None:
    publish(server.folder, "a_v0.10.0", zipped({NOTE: b"ten"}))
    publish(server.folder, "a_v0.9.0", zipped({NOTE: b"nine"}))
    assert (download_bundle("a@0.9.0", server.url, out) / "configs" / "metadata.json").read_bytes() == b"nine"
    assert (download_bundle("a", server.url, out / "latest") / "configs" / "metadata.json").read_bytes() == b"ten"


def test_an_existing_folder_stays_as_it_is(server: FileServer, out: Path) -> None:
    download_bundle("a", server.url, out)
    (out / "a" / NOTE[2:]).write_bytes(b"mine")
    before = contents(out)
    server.requests.clear()
    with pytest.raises(FileExistsError, match="out/a exists already; remove it, or choose another bundle_dir.$"):
        download_bundle("a", server.url, out)
    assert contents(out) == before
    assert [path for path, _ in server.requests] == ["/model_info.json"]


def test_even_a_broken_link_stays(server: FileServer, out: Path) -> None:
    out.mkdir()
    (out / "a").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="exists already"):
        download_bundle("a", server.url, out)


def test_continues_after_a_cut(server: FileServer, out: Path) -> None:
    server.break_off = 70_000
    with pytest.raises(ConnectionError, match="a_v0.1.0.zip was cut off after 70000 of .* call again to resume"):
        download_bundle("a", server.url, out)
    assert not (out / "a").exists()
    server.break_off = None
    download_bundle("a", server.url, out)
    assert server.requests[-1] == ("/a_v0.1.0.zip", "bytes=70000-")
    assert contents(out) == BIG


@pytest.mark.parametrize("kind", ["sha256", "sha1"])
def test_a_wrong_hash(kind: str, server: FileServer, out: Path) -> None:
    """Without a SHA-256 the model zoo's SHA-1 counts."""
    republish(server, zipped(BIG), checksum="0" * 40, sha256="0" * 64)
    if kind == "sha1":
        info = server.folder / "model_info.json"
        info.write_text(info.read_text().replace('"sha256"', '"other"'))
    with pytest.raises(ValueError, match=f"a_v0.1.0.zip is not the published file .its {kind} is not 000"):
        download_bundle("a", server.url, out)
    assert list(out.iterdir()) == []
    with pytest.raises(ValueError, match=f"a_v0.1.0.zip is not the published file .its {kind} differs.; get it again"):
        download_bundle("a", server.folder, out)


def test_a_list_without_hashes_can_be_read_but_nothing_of_it_is_taken(server: FileServer, out: Path) -> None:
    republish(server, zipped(BIG), checksum="", sha256="")
    publish(server.folder, "b_v0.1.0", zipped({"b/x": b"x"}))
    with pytest.raises(ValueError, match="^a_v0.1.0 is listed without a hash to check it by; get it by"):
        download_bundle("a", server.url, out)
    assert list(out.iterdir()) == []
    assert download_bundle("b", server.url, out) == out / "b"


def test_a_zip_that_is_listed_but_not_there(server: FileServer, out: Path) -> None:
    (server.folder / "a_v0.1.0.zip").unlink()
    with pytest.raises(ConnectionError, match="a_v0.1.0.zip answered 404 Not Found; check the address"):
        download_bundle("a", server.url, out)
    assert list(out.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="There is no .*a_v0.1.0.zip, although the collection lists it"):
        download_bundle("a", server.folder, out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({**CONTENT, "../evil": b"x"}), "a_v0.1.0.zip holds '../evil', which leads out of the archive"),
        (zipped({**CONTENT, "a/../../evil": b"x"}), "leads out of the archive"),
        (zipped({**CONTENT, "/evil": b"x"}), "leads out of the archive"),
        (zipped({**CONTENT, "a\\..\\..\\evil": b"x"}), "leads out of the archive"),
        (zipped(CONTENT, {"a/link": "/etc/passwd"}), "holds 'a/link', which is a link or a device"),
        (zipped({**CONTENT, "b/x": b"x"}), "must hold one folder, a, but holds a, b; this is not that bundle"),
        (zipped({"b/x": b"x"}), "must hold one folder, a, but holds b"),
        (zipped({"configs/metadata.json": b"x", "LICENSE": b""}), "but holds LICENSE, configs"),
        (zipped({"a": b"x"}), "must hold one folder, a, but holds a"),
        (zipped({}), "but holds nothing"),
        (zipped({**CONTENT, "a/zeros": bytes(1 << 25)}), "of .* bytes would unpack to 4 files of 33554457 bytes"),
        (b"no zip", "is neither a folder nor a complete zip or tar archive"),
        (zipped(BIG)[:-100], "is neither a folder nor a complete zip"),
        (zipped(BIG).replace(WEIGHTS[:50], WEIGHTS[:49] + b"?"), "is damaged .*; download it again"),
    ],
    ids=lambda value: "zip" if isinstance(value, bytes) else None,  # zips hold the time
)
def test_a_zip_that_is_not_safe_leaves_nothing(content: bytes, message: str, server: FileServer, out: Path) -> None:
    republish(server, content)
    with pytest.raises(ValueError, match=message):
        download_bundle("a", server.url, out)
    assert list(out.iterdir()) == []
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "served"]


def test_a_zip_of_too_many_files(server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "MOST_FILES", 3)
    with pytest.raises(ValueError, match="would unpack to 4 files"):
        download_bundle("a", server.url, out)


def large(server: FileServer, **contents: bytes) -> bytes:
    """A bundle with large files on the server, whose addresses end in their names."""
    for name, content in contents.items():
        (server.folder / name).write_bytes(content)
    return with_large_files({f"models/{name}.pt": (f"{server.url}/{name}", c) for name, c in contents.items()})


def test_large_files_come_too(server: FileServer, out: Path) -> None:
    republish(server, large(server, model=WEIGHTS, teacher=OTHERS))
    folder = download_bundle("a", server.url, out)
    assert (folder / "models" / "model.pt").read_bytes() == WEIGHTS
    assert (folder / "models" / "teacher.pt").read_bytes() == OTHERS
    assert [path.name for path in out.iterdir()] == ["a"]


def test_large_files_go_on_after_a_cut(server: FileServer, out: Path) -> None:
    """The bundle waits for all of them; what was finished before the cut is not asked for again."""
    republish(server, large(server, teacher=OTHERS, model=WEIGHTS))
    server.break_off = 100_000
    with pytest.raises(ConnectionError, match="/model was cut off after 100000 of 200000 bytes"):
        download_bundle("a", server.url, out)
    assert not (out / "a").exists()
    server.break_off = None
    server.requests.clear()
    download_bundle("a", server.url, out)
    assert server.requests == [("/model_info.json", None), ("/model", "bytes=100000-")]
    assert (out / "a" / "models" / "model.pt").read_bytes() == WEIGHTS


def test_a_large_file_that_is_in_the_zip_is_not_downloaded(server: FileServer, out: Path) -> None:
    files = with_large_files({"models/model.pt": (f"{server.url}/none", WEIGHTS)})
    inside = {**unzipped(files), "a/models/model.pt": WEIGHTS}
    republish(server, zipped(inside))
    download_bundle("a", server.url, out)
    assert contents(out) == inside
    shutil.rmtree(out)
    republish(server, zipped({**inside, "a/models/model.pt": OTHERS}))
    with pytest.raises(ValueError, match="models/model.pt in the zip has another hash than in the bundle's list"):
        download_bundle("a", server.url, out)


def test_a_large_file_with_a_wrong_hash(server: FileServer, out: Path) -> None:
    republish(server, large(server, model=WEIGHTS))
    (server.folder / "model").write_bytes(OTHERS)
    with pytest.raises(ValueError, match="/model is not the published file"):
        download_bundle("a", server.url, out)
    (server.folder / "model").write_bytes(WEIGHTS)
    server.requests.clear()
    folder = download_bundle("a", server.url, out)
    assert (folder / "models" / "model.pt").read_bytes() == WEIGHTS
    assert [path for path, _ in server.requests] == ["/model_info.json", "/model"]  # the zip was right, and is kept
    assert list(out.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("path: ../x\n  url: http://h/x", "large_files.yml lists '../x', which leads out of the bundle"),
        ("path: x\n  url: file:///x", "file:///x cannot be read; give an address"),
        ("path: x\n  url: y", "large_files.yml lists 'x' at 'y', which is not a web address"),
        ("path: x\n  url: http://h/x", "'x' in large_files.yml has no hash to check it by .sha256: None."),
        ("path: x\n  url: http://h/x\n  hash_val: ''", "no hash to check it by"),
        ("path: x", r"large_files.yml of a cannot be understood \(KeyError\('url'\)\)"),
        ("path: " + "[" * 300, "large_files.yml of a is too large, nested or has aliases, as no list has"),
        ("path: &x [a]\n  url: *x", "too large, nested or has aliases"),
        ("path: x\n" * 8000, "too large, nested or has aliases"),
        ("path: [", "large_files.yml of a cannot be understood .ParserError"),
    ],
)
def test_a_list_of_large_files_that_is_not_safe(lines: str, message: str, server: FileServer, out: Path) -> None:
    republish(server, zipped({**CONTENT, "a/large_files.yml": f"large_files:\n- {lines}\n".encode()}))
    with pytest.raises(ValueError, match=message):
        download_bundle("a", server.url, out)
    assert list(out.iterdir()) == []


def in_another_process(call: Callable[[], object], limit: int | None = None) -> multiprocessing.Process:
    """Start a call in a fork of this process, whose files may not grow beyond a limit."""

    def limited() -> None:
        if limit is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            call()
        except OSError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(3)

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    return process


@posix_only
@pytest.mark.parametrize("limit", [150_000, len(zipped(BIG)) - 1])
def test_a_full_disk(limit: int, server: FileServer, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    process = in_another_process(lambda: download_bundle("a", server.url, out), limit)
    process.join()
    assert process.exitcode == 3
    assert "a_v0.1.0.zip.part cannot be written (File too large); fix this and call again" in capfd.readouterr().err
    assert [path.name for path in out.iterdir()] == [".a_v0.1.0.part"]
    download_bundle("a", server.url, out)
    assert server.requests[-1][1] is not None
    assert contents(out) == BIG


@posix_only
def test_a_disk_that_is_full_while_unpacking(server: FileServer, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    republish(server, zipped({**BIG, "a/zeros": bytes(1 << 20)}))
    process = in_another_process(lambda: download_bundle("a", server.url, out), 300_000)
    process.join()
    assert process.exitcode == 3
    assert "a/zeros could not be transferred to " in capfd.readouterr().err
    assert sorted(path.name for path in (out / ".a_v0.1.0.part").iterdir()) == ["a_v0.1.0.zip", "lock"]
    server.requests.clear()
    download_bundle("a", server.url, out)
    assert server.requests == [("/model_info.json", None)]


@posix_only
def test_killed_and_called_again(server: FileServer, out: Path) -> None:
    """And no other process may do the same meanwhile."""
    republish(server, large(server, model=WEIGHTS))
    server.break_off = 100_000
    server.silent.clear()
    process = in_another_process(lambda: download_bundle("a", server.url, out))
    work = out / ".a_v0.1.0.part"
    until(lambda: any(path.stat().st_size == 100_000 for path in work.glob("*.part")))
    with pytest.raises(OSError, match="Another process is downloading into .*; wait until it is done.$"):
        download_bundle("a", server.url, out)
    process.kill()
    process.join()
    server.silent.set()
    server.break_off = None
    assert (work / "unpacked").exists()
    server.requests.clear()
    download_bundle("a", server.url, out)
    assert server.requests == [("/model_info.json", None), ("/model", "bytes=100000-")]
    assert [path.name for path in out.iterdir()] == ["a"]


def test_ctrl_c_keeps_what_has_arrived(server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(downloading, "transfer_files", interrupt)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            download_bundle("a", server.url, out)
    server.requests.clear()
    download_bundle("a", server.url, out)
    assert server.requests == [("/model_info.json", None)]


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Cannot write to .*file \(Not a directory\); choose another bundle_dir"):
        download_bundle("a", server.url, tmp_path / "file")


def test_the_command(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["medcontext", "download", *words])
        cli.main()
        return capsys.readouterr().out

    publish(server.folder, "a_v0.2.0")
    publish(server.folder, "b_v1.0.0")
    assert call("--source", server.url) == "a 0.1.0\na 0.2.0\nb 1.0.0\n"
    assert call("a@0.1.0", "--source", server.url, "--bundle_dir", str(out)) == f"{out / 'a'}\n"
    monkeypatch.chdir(out.parent)
    assert call("--source", "served/model_info.json", "a") == "a\n"
    with pytest.raises(SystemExit, match="^medcontext: .*has no bundle 'c'. It has a, b.$"):
        call("c", "--source", server.url)
    with pytest.raises(SystemExit, match="^medcontext: a exists already"):
        call("a", "--source", server.url)
