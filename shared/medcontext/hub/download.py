"""Downloading bundles from a collection: checked, unpacked and moved into place completely, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from medcontext.hub.collection import ListedBundle, read_collection
from medcontext.storage.archives import Source, leads_out, open_source
from medcontext.storage.fetch import Digest, DigestError, fetch, is_address
from medcontext.storage.file_memory import FileMemory
from medcontext.storage.transfer import transfer_files

if sys.platform != "win32":
    import fcntl

__all__ = ["download_bundle", "large_files"]

MOST_FILES = 10_000
MOST_RATIO = 100
SMALL = 1 << 24
MOST_LIST_BYTES, MOST_BRACKETS = 1 << 15, 200
ALIAS = re.compile(r"(?:^|[\s\[{,:])[&*]\w")
"""An anchor or alias of YAML, by which a short list becomes an endless one."""
LOCK, UNPACKED, MEMORY = "lock", "unpacked", ".files.jsonl"


class LargeFile(NamedTuple):
    """A file that is not in the zip: its path below the bundle, its address, and the hash that it must have."""

    path: str
    url: str
    digest: Digest


def download_bundle(wanted: str, source: str | os.PathLike[str], bundle_dir: str | os.PathLike[str] = ".") -> Path:
    """Download a bundle, with the large files that it names.

    An interrupted call can be repeated: finished downloads are kept in a hidden folder beside the bundle.

    Args:
        wanted: name of the bundle, or ``NAME@VERSION``; without a version the latest.
        source: address or path of the collection's ``model_info.json``, or of the folder that holds it.
        bundle_dir: folder to create the bundle's folder in.

    Returns:
        Folder of the bundle.

    Raises:
        OSError: If something cannot be downloaded or written, or exists already; the message says what to do.
        ValueError: If there is no such bundle, or it is not the published one, or not safe to unpack.
    """
    listed = read_collection(source).find(wanted)
    target = Path(bundle_dir) / listed.name
    _refuse_existing(target)
    with _work_folder(target.parent / f".{listed.key}.part") as work:
        _refuse_existing(target)
        bundle = _unpack(_get_zip(listed, work), listed.name, work / UNPACKED)
        _add_large_files(bundle, work)
        bundle.rename(target)
    return target


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already; remove it, or choose another bundle_dir.")


@contextlib.contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Create a folder for this process only, and keep of it after a failure what the next call can use."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot write to {folder.parent} ({error.strerror}); choose another bundle_dir.") from error
    with _locked(folder):
        shutil.rmtree(folder / UNPACKED, ignore_errors=True)
        reusable = True
        try:
            yield folder
            reusable = False
        except DigestError:  # the files with the right hash are kept
            raise
        except ValueError:  # wrong contents stay wrong
            reusable = False
            raise
        finally:
            shutil.rmtree(folder / UNPACKED, ignore_errors=True)
            if not reusable or {path.name for path in folder.iterdir()} <= {LOCK}:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":  # has no such locks, and deletes no open file
        yield
        return
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"Another process is downloading into {folder}; wait until it is done.") from error
        yield


def _get_zip(listed: ListedBundle, work: Path) -> Path:
    """Return the path of the zip, downloaded and checked."""
    if listed.digest is None:
        raise ValueError(f"{listed.key} is listed without a hash to check it by; get it by other means.")
    if is_address(listed.source):
        return fetch(listed.source, work / f"{listed.key}.zip", listed.digest)
    path = Path(listed.source)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}, although the collection lists it; get it, and call again.")
    if not listed.digest.matches(path):
        raise ValueError(f"{path} is not the published file (its {listed.digest.kind} differs); get it again.")
    return path


def _unpack(archive: Path, name: str, folder: Path) -> Path:
    """Unpack a zip into a new folder; MONAI's ``extractall`` writes some files before it refuses others."""
    folder.mkdir()
    with open_source(archive, junk=None) as source:
        _check_contents(source, name)
        transfer_files(source, {path: path for path in source.files}, folder, FileMemory(folder / MEMORY))
    return folder / name


def _check_contents(source: Source, name: str) -> None:
    """Raise ValueError unless there is one folder of the bundle's name, of a plausible size."""
    tops = sorted({path.partition("/")[0] for path in source.files})
    if tops != [name] or name in source.files:
        content = ", ".join(tops[:5]) or "nothing"
        raise ValueError(f"{source.path} must hold one folder, {name}, but holds {content}; this is not that bundle.")
    size, packed = sum(file.size for file in source.files.values()), source.path.stat().st_size
    if len(source.files) > MOST_FILES or size > max(SMALL, MOST_RATIO * packed):
        raise ValueError(
            f"{source.path} of {packed} bytes would unpack to {len(source.files)} files of {size} bytes, which no "
            "bundle does; do not use it."
        )


def _add_large_files(bundle: Path, work: Path) -> None:
    """Download the files that ``large_files.yml`` lists, check them, and move them into place.

    MONAI's ``download_large_files`` accepts files without a hash, and leaves the first in place if the second fails.
    """
    arrived = {}
    for large in large_files(bundle):
        path = bundle / large.path
        if not path.is_file():
            arrived[path] = fetch(large.url, work / large.digest.value, large.digest)
        elif not large.digest.matches(path):
            raise ValueError(f"{large.path} in the zip has another hash than in the bundle's list of large files.")
    for path, file in arrived.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)


def large_files(bundle: Path) -> Iterator[LargeFile]:
    """Yield the large files that a bundle lists for MONAI."""
    lists = sorted(path for path in bundle.glob("large_files*") if path.suffix in (".yml", ".yaml", ".json"))
    for file in lists:
        _refuse_slow_list(file, bundle.name)
        try:
            entries = ConfigParser.load_config_file(file)["large_files"]
            yield from [_large_file(entry, file.name) for entry in entries]
        except ValueError:
            raise
        except Exception as error:  # from the parsers of YAML
            raise ValueError(f"{file.name} of {bundle.name} cannot be understood ({error!r}).") from error


def _refuse_slow_list(file: Path, bundle: str) -> None:
    """Raise ValueError for a list that takes long to parse: a large, deeply nested or self-referring one."""
    text = file.read_bytes()[: MOST_LIST_BYTES + 1].decode(errors="replace")
    if len(text) > MOST_LIST_BYTES or text.count("[") + text.count("{") > MOST_BRACKETS or ALIAS.search(text):
        raise ValueError(f"{file.name} of {bundle} is too large, nested or has aliases, as no list has; do not use it.")


def _large_file(entry: Any, file: str) -> LargeFile:
    path, url = str(entry["path"]), str(entry["url"])
    if leads_out(path):
        raise ValueError(f"{file} lists {path!r}, which leads out of the bundle; do not use it.")
    if not is_address(url):
        raise ValueError(f"{file} lists {path!r} at {url!r}, which is not a web address.")
    kind = entry.get("hash_type") or "sha256"
    return LargeFile(path, url, Digest.parse(kind, entry.get("hash_val"), f"{path!r} in {file}"))
