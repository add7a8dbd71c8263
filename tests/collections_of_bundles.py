"""Collections of tiny bundles, as ``ci/package_bundles.py`` lists them."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phantom_bundle import large_files

CONTENT = {"a/configs/metadata.json": b'{"version": "0.1.0"}', "a/docs/README.md": b"# a\n", "a/.hidden": b"h"}


def zipped(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A zip of files by name, and of symbolic links by name and target."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            member = zipfile.ZipInfo(name)
            member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, target)
    return buffer.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    """What :func:`zipped` was given."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def publish(folder: Path, key: str = "a_v0.1.0", content: bytes | None = None, **entry: Any) -> Path:
    """Put a zip into a folder and into its list; ``entry`` replaces what the list says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = zipped(CONTENT) if content is None else content
    (folder / f"{key}.zip").write_bytes(content)
    info = folder / "model_info.json"
    listed = json.loads(info.read_text()) if info.exists() else {}
    sums = {"checksum": hashlib.sha1(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    listed[key] = {"source": f"{key}.zip", **sums, **entry}
    info.write_text(json.dumps(listed))
    return folder


def with_large_files(files: Mapping[str, tuple[str, bytes]]) -> bytes:
    """The zip of a bundle that names large files, given as URL and content by path."""
    return zipped({**CONTENT, "a/large_files.yml": large_files(files)})
