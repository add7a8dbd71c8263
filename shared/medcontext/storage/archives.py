"""Downloads of a provider: a folder, a zip or a tar, read without unpacking it."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from medcontext.faults import explained

__all__ = ["Source", "SourceFile", "leads_out", "open_source"]

JUNK = re.compile(r"(^|/)(\.|__MACOSX/|Thumbs\.db$)")
"""Hidden files, among them the ``._*`` companions that macOS packs into archives."""

MOST_RATIO, ALWAYS_TAKEN = 200, 1 << 29
"""How many times an archive's bytes its files may have, unless they are less than 512 MiB."""

_DAMAGE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: path below the source, with forward slashes.
        size: size in bytes.
        stamp: text that changes whenever the file is likely to have changed.
        path: path of the file, or ``None`` inside an archive.
    """

    name: str
    size: int
    stamp: str
    path: Path | None = None


@dataclass(frozen=True)
class Source:
    """A folder or an archive.

    Attributes:
        path: path of the folder or archive.
        files: files in it by name, in the order in which they are best read.
        reader: opens a file for reading bytes.
    """

    path: Path
    files: dict[str, SourceFile]
    reader: Callable[[str], IO[bytes]]

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading.

        Raises:
            ValueError: If the archive is damaged at this place, or encrypted.
        """
        with explained(partial(_explain_damage, self.path)), self.reader(name) as stream:
            yield stream


@contextlib.contextmanager
def open_source(path: str | os.PathLike[str], *, junk: re.Pattern[str] | None = JUNK) -> Iterator[Source]:
    """Open a folder, a zip or a tar (compressed or not); nothing is written.

    Args:
        path: path of the folder or archive.
        junk: files to leave out; ``None`` keeps all.

    Raises:
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it is not an archive, or is damaged, or has members that lead out of it: absolute paths, ``..``,
            links and devices; or if its files are far larger than it, as no scans are.
    """
    path = Path(path)
    if path.is_dir():
        yield _without_junk(junk, _read_folder(path))
    elif not path.is_file():
        raise FileNotFoundError(f"There is no {path}; give the downloaded archive, or the folder it was unpacked into.")
    elif zipfile.is_zipfile(path):
        with explained(partial(_explain_damage, path)):
            archive = zipfile.ZipFile(path)
        with archive:
            yield _without_junk(junk, _read_zip(path, archive))
    elif tarfile.is_tarfile(path):
        with explained(partial(_explain_damage, path)):
            tar = tarfile.open(path)  # noqa: SIM115 closed by the with statement below
        with tar:
            yield _without_junk(junk, _read_tar(path, tar))
    else:
        raise ValueError(f"{path} is neither a folder nor a complete zip or tar archive; download it again.")


def _explain_damage(path: Path, error: Exception) -> Exception | None:
    """Return a ValueError of one sentence for an archive that cannot be read."""
    if isinstance(error, _DAMAGE_ERRORS):
        return ValueError(f"{path} is damaged ({error}); download it again.")
    if isinstance(error, RuntimeError) and "password" in str(error):  # of zipfile
        return ValueError(f"{path} is encrypted; unpack it and give the folder.")
    return None


def _read_folder(folder: Path) -> Source:
    files, visited = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        for path in (Path(root, name) for name in names):
            if path.is_file():
                status = path.stat()
                name = path.relative_to(folder).as_posix()
                files.append(SourceFile(name, status.st_size, f"{status.st_size}:{status.st_mtime_ns}", path))
    return Source(folder, _by_name(sorted(files, key=lambda file: file.name)), lambda name: (folder / name).open("rb"))


def _read_zip(path: Path, archive: zipfile.ZipFile) -> Source:
    members = archive.infolist()
    for member in members:
        _refuse_unsafe(
            path, member.filename, stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        )
    _refuse_bomb(path, sum(member.file_size for member in members))
    plain: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = PurePosixPath(member.filename).as_posix()
        if not member.is_dir() and plain.setdefault(name, member) is not member:
            raise ValueError(f"{path} holds {name!r} twice, of which programs take either; do not use it.")
    files = [SourceFile(name, member.file_size, f"{member.file_size}:{member.CRC}") for name, member in plain.items()]
    return Source(path, _by_name(files), lambda name: archive.open(plain[name]))


def _read_tar(path: Path, archive: tarfile.TarFile) -> Source:
    with explained(partial(_explain_damage, path)):
        members = archive.getmembers()
    for member in members:
        _refuse_unsafe(path, member.name, member.isreg() or member.isdir())
    _refuse_bomb(path, sum(member.size for member in members))
    plain = {PurePosixPath(member.name).as_posix(): member for member in members if member.isreg()}
    files = [SourceFile(name, member.size, f"{member.size}:{member.mtime}") for name, member in plain.items()]

    def read(name: str) -> IO[bytes]:
        stream = archive.extractfile(plain[name])
        if stream is None:
            raise tarfile.ReadError(f"{name} is not a regular file")
        return stream

    return Source(path, _by_name(files), read)


def _by_name(files: list[SourceFile]) -> dict[str, SourceFile]:
    return {file.name: file for file in files}


def _without_junk(junk: re.Pattern[str] | None, source: Source) -> Source:
    kept = {name: file for name, file in source.files.items() if junk is None or not junk.search(name)}
    return replace(source, files=kept)


def _refuse_bomb(archive: Path, size: int) -> None:
    packed = archive.stat().st_size
    if size > max(ALWAYS_TAKEN, MOST_RATIO * packed):
        raise ValueError(
            f"{archive} of {packed} bytes would unpack to {size} bytes, which no archive of scans does; do not use it, "
            "or unpack it and give the folder if you trust it."
        )


def leads_out(name: str) -> bool:
    """Return whether a file of this name could be written outside of the folder that it is meant for."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]


def _refuse_unsafe(archive: Path, name: str, regular: bool) -> None:
    """Raise for members that no provider's archive holds, even though few files are written under their own names."""
    if leads_out(name) or not regular:
        reason = "leads out of the archive" if regular else "is a link or a device"
        raise ValueError(
            f"{archive} holds {name!r}, which {reason}; this is not the provider's archive, do not use it."
        )
