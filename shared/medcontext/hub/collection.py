"""Collections of bundles, listed in a ``model_info.json`` from ``ci/package_bundles.py`` or a model zoo.

MONAI reads such lists too, but only from GitHub, and takes version 0.9.0 for newer than 0.10.0.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from packaging.version import InvalidVersion, Version

from medcontext.checks import nearest_name
from medcontext.storage.archives import leads_out
from medcontext.storage.fetch import Digest, is_address, read_address
from medcontext.storage.json_files import parse_json
from medcontext.text import printable

__all__ = ["LISTING", "Collection", "ListedBundle", "read_collection"]

logger = logging.getLogger(__name__)

LISTING = "model_info.json"
LIMIT, LONGEST = 1 << 24, 2000
KEY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,99})_v(?P<version>\d[\w.+!-]{0,99})", re.ASCII)


@dataclass(frozen=True)
class ListedBundle:
    """One version of a bundle.

    Attributes:
        name: name of the bundle and of its folder.
        version: version as written in the list.
        source: address or path of its zip.
        digest: hash that the zip must have; ``None`` if the list has none.
    """

    name: str
    version: str
    source: str
    digest: Digest | None

    @property
    def key(self) -> str:
        """Key of the bundle in the list."""
        return f"{self.name}_v{self.version}"


@dataclass(frozen=True)
class Collection:
    """Bundles that can be downloaded.

    Attributes:
        address: address or path of the ``model_info.json``.
        bundles: all versions of all bundles, by name, each from the oldest to the latest.
    """

    address: str
    bundles: tuple[ListedBundle, ...]

    def find(self, wanted: str) -> ListedBundle:
        """Return the bundle ``NAME@VERSION``, or the latest of ``NAME`` that is not a preview.

        Raises:
            ValueError: If there is none; the message names those that there are.
        """
        name, _, version = wanted.partition("@")
        versions = [bundle for bundle in self.bundles if bundle.name == name]
        if not versions:
            names = sorted({bundle.name for bundle in self.bundles})
            hint = nearest_name(name, names) or f" It has {', '.join(names) or 'nothing'}."
            raise ValueError(f"{self.address} has no bundle {name!r}.{hint}")
        if not version:
            finished = [bundle for bundle in versions if not _version_key(bundle.version)[1].is_prerelease]
            return (finished or versions)[-1]
        for bundle in versions:
            if version == bundle.version or _version_key(version) == _version_key(bundle.version):
                return bundle
        available = ", ".join(bundle.version for bundle in versions)
        raise ValueError(f"{self.address} has no version {version!r} of {name}; it has {available}.")


def read_collection(source: str | os.PathLike[str]) -> Collection:
    """Read the list of a collection.

    Args:
        source: address or path of a ``model_info.json``, or of the folder that holds it.

    Raises:
        ConnectionError: If the address cannot be read; the message says what to do.
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it is not such a list, or no entry can be understood; single entries are left out.
    """
    text = os.fspath(source)
    if is_address(text):
        parts = urlsplit(text)
        listing = parts.path if parts.path.endswith(".json") else f"{parts.path.rstrip('/')}/{LISTING}"
        address = parts._replace(path=listing).geturl()
        content = read_address(address, LIMIT)
    else:
        path = Path(text) / LISTING if Path(text).is_dir() else Path(text)
        if not path.is_file():
            raise FileNotFoundError(f"There is no {path}; give a {LISTING} or its folder, or a web address.")
        address, content = str(path), path.read_bytes()
    try:
        listed = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{address} is not a list of bundles ({error}); give the address of a {LISTING}.") from error
    if not isinstance(listed, dict):
        raise ValueError(f"{address} is not a list of bundles, but {type(listed).__name__}; give a {LISTING}.")
    bundles, problems = [], []
    for key, entry in listed.items():
        try:
            bundles.append(_parse_entry(address, key, entry))
        except ValueError as error:
            problems.append(error)
    if problems and not bundles:
        raise problems[0]
    for problem in problems:
        logger.warning("Left out: %s", problem)
    return Collection(address, tuple(sorted(bundles, key=lambda bundle: (bundle.name, _version_key(bundle.version)))))


def _parse_entry(address: str, key: str, entry: Any) -> ListedBundle:
    """Parse one entry of a list.

    Raises:
        ValueError: If it cannot be understood.
    """
    subject, parts = f"{key!r} in {address}", KEY.fullmatch(key)
    if parts is None:
        raise ValueError(f"{subject} is not the name of a bundle, _v, and a version.")
    if not isinstance(entry, Mapping) or not _is_place(entry.get("source")):
        raise ValueError(f"{subject} has no address of its zip under 'source'.")
    kind, value = ("sha256", entry["sha256"]) if entry.get("sha256") else ("sha1", entry.get("checksum"))
    source = _zip_location(address, entry["source"], subject)
    digest = Digest.parse(kind, value, subject) if value else None
    return ListedBundle(parts["name"], parts["version"], source, digest)


def _is_place(value: object) -> bool:
    """Return whether a value may be an address or a path."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or printable(value) != value:
        return False
    try:
        _ = urlsplit(value).port  # which raises where host or port are none
    except ValueError:
        return False
    return True


def _zip_location(address: str, source: str, subject: str) -> str:
    """Return where a zip is: beside its list if possible, so the downloaded files of a release are a collection too.

    Raises:
        ValueError: If it is neither on the web nor in the list's folder.
    """
    remote = is_address(source)
    if not remote and leads_out(source):
        raise ValueError(f"{subject} points out of its folder, to {source!r}; do not use it.")
    if is_address(address):
        return urljoin(address, source)
    path = Path(address).parent / (PurePosixPath(urlsplit(source).path).name if remote else source)
    return source if remote and not path.is_file() else str(path)


def _version_key(version: str) -> tuple[bool, Version, str]:
    """Return the key by which versions are sorted; those that are invalid by the rules of packaging come first."""
    try:
        return True, Version(version), ""
    except InvalidVersion:
        return False, Version("0"), version
