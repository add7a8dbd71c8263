"""Hold bundles to the rules of the model zoo's contribution guide, in the repository and packed.

python ci/verify_bundles.py                      the repository's bundles
python ci/verify_bundles.py dist/*.zip           packed ones
python ci/verify_bundles.py --tag v0.1.0         and that their versions are that of the release
python ci/verify_bundles.py --mode min           all but the network, which takes half a minute for each
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fire
from packaging.version import InvalidVersion, Version

from archives import digest
from bundle_rules import RULES, Bundle, Rule, readable_configs
from medcontext import __version__
from medcontext.storage.git import ask_git
from repository import SHARED
from sync_bundles import BUNDLES, bundle_folders


class Finding(NamedTuple):
    """What is wrong with a bundle, and by which rule."""

    bundle: str
    rule: str
    message: str


def verify(path: Path, *, network: bool, base: str | None, published: Mapping[str, Any]) -> list[Finding]:
    """All findings on a bundle's folder or zip.

    Args:
        path: of the folder or zip.
        network: check the network too.
        base: git revision that a changed folder needs a higher version than, if any.
        published: content of the ``model_info.json`` whose versions must not change.

    Raises:
        ValueError: When the path is neither, or ``base`` is no revision.
    """
    with tempfile.TemporaryDirectory() as work:
        bundle = _opened(path, Path(work))
        unreadable = list(readable_configs(bundle))
        if unreadable:  # the other rules have nothing to look at
            return [Finding(path.name, "readable configs", text) for text in unreadable]
        found = [Finding(path.name, rule, text) for rule, check in RULES.items() for text in _tried(check, bundle)]
        versions = _tried(lambda bundle: changed(bundle, base, published), bundle)
        found += [Finding(path.name, "new version", text) for text in versions]
        if network:
            found += [Finding(path.name, "network", text) for text in _network(bundle)]
    return found


def _opened(path: Path, work: Path) -> Bundle:
    if (path / "configs").is_dir():
        return Bundle(path.resolve().name, path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a bundle's folder nor a zip.")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(work)
    folders = sorted(folder for folder in work.iterdir() if (folder / "configs").is_dir())
    if not folders:
        raise ValueError(f"{path} holds no folder with configs.")
    return Bundle(folders[0].name, folders[0], path)


def _tried(check: Rule, bundle: Bundle) -> list[str]:
    try:
        return list(check(bundle))
    except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
        # another rule tells that the metadata break the schema
        return [f"cannot be checked: {type(error).__name__}: {error}"]


def changed(bundle: Bundle, base: str | None, published: Mapping[str, Any]) -> Iterator[str]:
    """A bundle with other content than its version had before; a packed one holds the package's code too."""
    number = bundle.json("configs/metadata.json").get("version")
    if bundle.archive is not None:
        entry = published.get(f"{bundle.name}_v{number}")
        if entry is not None and entry["checksum"] != digest(bundle.archive.read_bytes(), "sha1"):
            yield f"{number} was published with other content; it needs a new version"
    elif base is not None:
        folder, packed = bundle.folder.resolve(), (".", *(f":/{path}" for path in SHARED))
        if not ask_git(folder, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"):
            raise ValueError(f"git knows no revision {base} in {folder}; fetch it or give another as --base.")
        earlier = ask_git(folder, "show", f"{base}:./configs/metadata.json")
        same = ask_git(folder, "status", "--porcelain", "--", *packed) == ""
        same &= ask_git(folder, "diff", "--stat", base, "--", *packed) == ""
        before = json.loads(earlier)["version"] if earlier and not same else None
        if before is not None and Version(number) <= Version(before):
            yield f"it or what is packed with it changed since {base}; it needs a version above {before}, not {number}"


def last_release(path: Path, tag: str | None = None) -> str | None:
    """The tag of the release before the commit that a path lies in, other than ``tag``; ``None`` before the first."""
    other = ("--exclude", tag) if tag else ()
    return ask_git(path, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", *other) or None


def mistagged(folders: Sequence[Path], tag: str) -> Iterator[Finding]:
    """What has another version than its release: the package or a bundle."""
    metadata = {folder.name: Bundle(folder.name, folder).json("configs/metadata.json") for folder in folders}
    versions = {name: content.get("version") for name, content in metadata.items()}
    for name, number in {"medcontext": __version__, **versions}.items():
        if tag != f"v{number}":
            yield Finding(name, "tag", f"has version {number}, but the release's tag is {tag}")


def _network(bundle: Bundle) -> list[str]:
    """Run the check of the network from inside the bundle, whose own package comes first if it has one."""
    script = Path(__file__).with_name("verify_network.py")
    path = os.pathsep.join(filter(None, [str(bundle.folder.resolve()), os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, script],
        cwd=bundle.folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode and not result.stdout.strip():
        return [f"cannot be checked: {result.stderr.strip().splitlines()[-1]}"]
    return result.stdout.strip().splitlines()


def table(findings: list[Finding]) -> str:
    """One line for each finding, in columns."""
    rows = [Finding("bundle", "rule", "finding"), *findings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{row.bundle:{widths[0]}}  {row.rule:{widths[1]}}  {row.message}" for row in rows)


def main(
    *paths: str, mode: str = "full", base: str | None = None, published: str | None = None, tag: str | None = None
) -> None:
    """Print a table of all findings; exit code 1 if there are any.

    Args:
        paths: folders or zips; the repository's bundles if none are given.
        mode: ``full``, or ``min`` to leave the networks out, as in the model zoo's own script.
        base: git revision that changed bundles need a new version since; the last tag ``v…`` by default.
        published: a ``model_info.json`` whose versions must not change.
        tag: of a release, which the versions of the package and of all folders must be.
    """
    if mode not in ("full", "min"):
        sys.exit(f"verify_bundles: mode must be full or min, got {mode}")
    everything = [Path(path) for path in paths] or bundle_folders(BUNDLES)
    known = json.loads(Path(published).read_text(encoding="utf-8")) if published else {}
    found = list(mistagged([path for path in everything if path.is_dir()], tag)) if tag else []
    try:
        for path in everything:
            print(f"verifying {path.name}", file=sys.stderr)
            since = base or last_release(path, tag)
            found += verify(path, network=mode == "full", base=since, published=known)
    except (ValueError, OSError) as error:
        sys.exit(f"verify_bundles: {error}")
    if found:
        print(table(found))
        sys.exit(1)
    print(f"{len(everything)} bundles keep all {len(RULES) + 1 + (mode == 'full') + bool(tag)} rules")


if __name__ == "__main__":
    fire.Fire(main)
