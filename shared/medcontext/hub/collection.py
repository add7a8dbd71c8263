"""Collections of bundles, as a ``model_info.json`` lists them: that of ``ci/package_bundles.py``, or a model zoo's.

MONAI reads such lists too, but only from GitHub, and puts version 0.9.0 above 0.10.0.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from packaging.version import InvalidVersion, Version

from medcontext.storage.archives import leads_out
from medcontext.storage.fetch import Digest, is_address, read_address

__all__ = ["LISTING", "Collection", "ListedBundle", "read_collection"]

logger = logging.getLogger(__name__)

LISTING = "model_info.json"
LIMIT = 1 << 24
KEY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)_v(?P<version>\d[\w.+!-]*)", re.ASCII)


@dataclass(frozen=True)
class ListedBundle:
    """One version of a bundle.

    Attributes:
        name: of the bundle, and of its folder.
        version: as it is written in the list.
        source: address of its zip, or its path.
        digest: what the zip must hash to; ``None`` where the list does not tell.
    """

    name: str
    version: str
    source: str
    digest: Digest | None

    @property
    def key(self) -> str:
        """The name that it is listed under."""
        return f"{self.name}_v{self.version}"


@dataclass(frozen=True)
class Collection:
    """What there is to download.

    Attributes:
        address: of its ``model_info.json``, or the path.
        bundles: all versions of all bundles, by name, each from the oldest to the latest.
    """

    address: str
    bundles: tuple[ListedBundle, ...]

    def find(self, wanted: str) -> ListedBundle:
        """The bundle that ``NAME@VERSION`` or ``NAME`` means; without a version the latest that is no preview.

        Raises:
            ValueError: If there is none, naming what there is.
        """
        name, _, version = wanted.partition("@")
        versions = [bundle for bundle in self.bundles if bundle.name == name]
        if not versions:
            names = sorted({bundle.name for bundle in self.bundles})
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(names) or 'nothing'}."
            raise ValueError(f"{self.address} has no bundle {name!r}; {hint}")
        if not version:
            finished = [bundle for bundle in versions if not _order(bundle.version)[1].is_prerelease]
            return (finished or versions)[-1]
        for bundle in versions:
            if version == bundle.version or _order(version) == _order(bundle.version):
                return bundle
        there = ", ".join(bundle.version for bundle in versions)
        raise ValueError(f"{self.address} has no version {version!r} of {name}; it has {there}.")


def read_collection(source: str | os.PathLike[str]) -> Collection:
    """Read what a collection holds.

    Args:
        source: address or path of a ``model_info.json``, or of the folder that holds it.

    Raises:
        ConnectionError: If the address cannot be read, with what to do.
        FileNotFoundError: If there is nothing of that name.
        ValueError: If it is no such list, or nothing in it can be understood; single entries are left out.
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
            raise FileNotFoundError(f"There is no {path}; give a {LISTING} or its folder, or an address of the web.")
        address, content = str(path), path.read_bytes()
    try:
        listed = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{address} is no list of bundles ({error}); give the address of a {LISTING}.") from error
    if not isinstance(listed, dict):
        raise ValueError(f"{address} is no list of bundles, but {type(listed).__name__}; give a {LISTING}.")
    bundles, problems = [], []
    for key, entry in listed.items():
        try:
            bundles.append(_bundle(address, key, entry))
        except ValueError as error:
            problems.append(error)
    if problems and not bundles:
        raise problems[0]
    for problem in problems:
        logger.warning("Left out: %s", problem)
    return Collection(address, tuple(sorted(bundles, key=lambda bundle: (bundle.name, _order(bundle.version)))))


def _bundle(address: str, key: str, entry: Any) -> ListedBundle:
    """One entry of a list.

    Raises:
        ValueError: If it cannot be understood.
    """
    subject, parts = f"{key!r} in {address}", KEY.fullmatch(key)
    if parts is None:
        raise ValueError(f"{subject} is not the name of a bundle, _v, and a version.")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
        raise ValueError(f"{subject} does not say under 'source' where its zip lies.")
    kind, value = ("sha256", entry["sha256"]) if entry.get("sha256") else ("sha1", entry.get("checksum"))
    source = _source(address, entry["source"], subject)
    digest = Digest.parse(kind, value, subject) if value else None
    return ListedBundle(parts["name"], parts["version"], source, digest)


def _source(address: str, source: str, subject: str) -> str:
    """Where a zip lies: beside its list if it is there, so that the downloaded files of a release are a collection too.

    Raises:
        ValueError: If that is neither on the web nor in the list's folder.
    """
    remote = is_address(source)
    if not remote and leads_out(source):
        raise ValueError(f"{subject} points out of the folder that it lies in, to {source!r}; do not use it.")
    if is_address(address):
        return urljoin(address, source)
    path = Path(address).parent / (PurePosixPath(urlsplit(source).path).name if remote else source)
    return source if remote and not path.is_file() else str(path)


def _order(version: str) -> tuple[bool, Version, str]:
    """By what versions are sorted and compared; those that are none by the rules of packaging come first."""
    try:
        return True, Version(version), ""
    except InvalidVersion:
        return False, Version("0"), version
