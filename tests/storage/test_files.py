from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medcontext.storage import files
from medcontext.storage.files import open_unlinked, read_to_the_end, remove_unfinished, whole_file, write_file


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", b"old")
    with whole_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_file(tmp_path / "a.txt", b"old")

    def write() -> None:
        with whole_file(path) as stream:
            stream.write(b"half of it")
            raise error("half-way")

    with pytest.raises(error, match="half-way"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_before_is_kept_on_request(tmp_path: Path) -> None:
    for content in (b"1", b"2", b"3"):
        with whole_file(tmp_path / "a", tmp_path / "before") as stream:
            stream.write(content)
    assert (tmp_path / "a").read_bytes() == b"3"
    assert (tmp_path / "before").read_bytes() == b"2"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folders_entry_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    sync = os.fsync
    monkeypatch.setattr(
        files.os, "fsync", lambda entry: (synced.append(Path(f"/proc/self/fd/{entry}").is_dir()), sync(entry))
    )
    write_file(tmp_path / "a", b"1")
    assert synced == [False, True]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\nfrom medcontext.storage.files import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as stream:\n    stream.write(b'half')\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "last.pt")], check=False)
    (left,) = tmp_path.iterdir()
    names = (f".a.{files._HOST}-{os.getppid()}.tmp", ".b.elsewhere-1.tmp", ".old.12.tmp", ".note.tmp", "a.1.tmp")
    for name in names:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    two_days_ago = time.time() - 2 * 86_400
    for name in names:
        os.utime(tmp_path / name, (two_days_ago, two_days_ago))
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".note.tmp", "a.1.tmp"}
    remove_unfinished(tmp_path / "absent")


def test_links_are_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="link is a link, which is not followed; remove it"):
        open_unlinked(tmp_path / "link", "a")
    with open_unlinked(tmp_path / "file", "a") as stream:
        stream.write("a")
    assert (tmp_path / "file").read_text() == "a"
    assert not (tmp_path / "target").exists()


def test_a_flipped_bit_of_a_compressed_file_is_noticed(tmp_path: Path) -> None:
    content, path = gzip.compress(bytes(range(256)) * 40, mtime=0), tmp_path / "a.gz"
    path.write_bytes(content)
    read_to_the_end(path)
    for position in range(8 * (len(content) - 8), 8 * len(content)):  # checksum and length, at the end
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(OSError, match="CRC check failed|Incorrect length"):
            read_to_the_end(path)
    path.write_bytes(content[:-9])
    with pytest.raises(EOFError, match="ended before the end-of-stream marker"):
        read_to_the_end(path)
    path.rename(tmp_path / "a.nii")
    read_to_the_end(tmp_path / "a.nii")
