"""Pack every bundle as one zip that runs without this repository, and list the zips in ``model_info.json``.

python ci/package_bundles.py --output dist --base_url https://github.com/OWNER/REPO/releases/download/v0.1.0

The same commit gives the same bytes, with the packages of ``constraints.txt``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fire

from archives import build_wheel, checksums, digest, read_zip, write_zip
from bundle_documents import packaged_documents
from bundle_rules import SCHEMA
from medcontext.storage.git import ask_git
from phantom_bundle import WEIGHTS, phantom_files, phantom_name
from repository import ROOT, SHARED
from software_bill import pinned, software_bill
from sync_bundles import BUNDLES, bundle_files, bundle_folders


class Package(NamedTuple):
    """A bundle to be packed: its name and version, and its files and documents by path below it."""

    name: str
    version: str
    files: dict[str, bytes]


def packages(weights: Path | None, base_url: str) -> Iterator[Package]:
    """All bundles, each followed by the one that carries weights where there are any.

    Raises:
        FileNotFoundError: When ``weights`` holds none.
    """
    found = False
    for folder in bundle_folders(BUNDLES):
        files = packaged_files(folder)
        version = json.loads(files["configs/metadata.json"])["version"]
        yield Package(folder.name, version, files)
        trained = weights / folder.name / "model.pt" if weights else None
        if trained is not None and trained.is_file():
            found, name = True, phantom_name(folder.name)
            url = f"{base_url}/{_weights_name(name, version)}"
            yield Package(name, version, phantom_files(folder.name, files, trained, url))
    if weights and not found:
        raise FileNotFoundError(f"{weights} holds no BUNDLE/model.pt with the name of a bundle.")


def packaged_files(folder: Path) -> dict[str, bytes]:
    """What a package holds of a bundle, by path below its folder: its own files, and the documents it shares."""
    files = {path: (folder / path).read_bytes() for path in bundle_files(folder)}
    return {**files, **packaged_documents(folder.name, files)}


def packed(package: Package, wheel: Path, epoch: int) -> dict[str, bytes]:
    """All files of a zip: those of the bundle, and what it needs to run and to be checked without the repository."""
    declared = requirements(json.loads(package.files["configs/metadata.json"]))
    pins = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    bill = software_bill(package.name, package.version, declared, pins, wheel, epoch)
    files = {
        **package.files,
        **{name: data for name, data in read_zip(wheel).items() if name.startswith("medcontext/")},
        f"wheels/{wheel.name}": wheel.read_bytes(),
        "requirements.txt": "".join(f"{name}=={number}\n" for name, number in declared.items()).encode(),
        "constraints.txt": (ROOT / "constraints.txt").read_bytes(),
        "eval/schema.json": SCHEMA.read_bytes(),
        "sbom.cdx.json": bill.encode(),
    }
    files["SHA256SUMS"] = checksums(files)
    return {f"{package.name}/{path}": data for path, data in files.items()}


def requirements(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The packages that a bundle's metadata declares, and their versions."""
    own = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}
    return {**{name: metadata[key] for name, key in own.items()}, **metadata["required_packages_version"]}


def listing(zips: Mapping[str, bytes], base_url: str, published: Mapping[str, Any]) -> dict[str, Any]:
    """The zips in the form of the model zoo's ``model_info.json``, with SHA-256 beside its SHA-1.

    Args:
        zips: contents by file name.
        base_url: the folder they will be downloaded from; empty for the folder of ``model_info.json`` itself.
        published: what is listed already and stays so.

    Raises:
        ValueError: When a version was published with other bytes.
    """
    entries = dict(published)
    for name, content in zips.items():
        key = name.removesuffix(".zip")
        entry = {
            "checksum": digest(content, "sha1"),
            "source": f"{base_url}/{name}" if base_url else name,
            "sha256": digest(content),
        }
        if key in published and published[key]["checksum"] != entry["checksum"]:
            raise ValueError(f"{key} was published with other content; give the changed bundle a new version.")
        entries[key] = published.get(key, entry)
    return dict(sorted(entries.items()))


def source_time() -> int:
    """``$SOURCE_DATE_EPOCH``, else the time of the commit.

    Raises:
        ValueError: When there is neither.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH") or ask_git(ROOT, "log", "-1", "--format=%ct")
    if not given.isdigit():
        raise ValueError("Without a git commit, set SOURCE_DATE_EPOCH to the time to give to the files.")
    return int(given)


def _weights_name(name: str, version: str) -> str:
    return f"{name}_v{version}_model.pt"


def package_bundles(
    output: Path, base_url: str = "", weights: Path | None = None, published: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write zips, wheel, weights, ``model_info.json`` and ``SHA256SUMS`` into a folder and return their paths."""
    if weights and not base_url:
        raise ValueError("Weights are downloaded by themselves too; say by --base_url from where.")
    epoch, zips, assets = source_time(), {}, {}
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        wheel = build_wheel(ROOT, Path(work), epoch)
        assets[wheel.name] = wheel.read_bytes()
        for package in packages(weights, base_url):
            path = write_zip(output / f"{package.name}_v{package.version}.zip", packed(package, wheel, epoch), epoch)
            zips[path.name] = path.read_bytes()
            if WEIGHTS in package.files:
                assets[_weights_name(package.name, package.version)] = package.files[WEIGHTS]
    info = json.dumps(listing(zips, base_url, published or {}), indent=4) + "\n"
    assets["model_info.json"] = info.encode()
    assets["SHA256SUMS"] = checksums(zips | assets)
    for name, content in assets.items():
        (output / name).write_bytes(content)
    return [output / name for name in sorted(zips | assets)]


def main(output: str = "dist", base_url: str = "", weights: str | None = None, published: str | None = None) -> None:
    """Pack all bundles.

    Args:
        output: folder to write into.
        base_url: the folder that the zips will be downloaded from; without it ``model_info.json`` names them alone,
            which is enough for ``python -m medcontext download``.
        weights: folder with a ``BUNDLE/model.pt`` for each bundle that is to be packed with weights too; trained with
            ``train.json``, ``btcv.json`` and ``phantom.json``, and beside it the ``summary.json`` of its evaluation.
        published: the ``model_info.json`` of earlier versions, which stay listed.
    """
    earlier = json.loads(Path(published).read_text(encoding="utf-8")) if published else {}
    if ask_git(ROOT, "status", "--porcelain", "--", "bundles", *SHARED):
        print("package_bundles: packing uncommitted changes; no commit gives these bytes", file=sys.stderr)
    try:
        paths = package_bundles(Path(output), base_url.rstrip("/"), Path(weights) if weights else None, earlier)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"package_bundles: {error}")
    for path in paths:
        print(f"{path.stat().st_size:>10} {path}")


if __name__ == "__main__":
    fire.Fire(main)
