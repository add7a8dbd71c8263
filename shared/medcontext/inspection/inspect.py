"""Inspecting a bundle: what it would run, and whether it is intact."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medcontext.inspection.checksums import CODE, Checksum, checksums
from medcontext.inspection.findings import Finding, config_findings, log_findings
from medcontext.storage.archives import open_source
from medcontext.text import printable

__all__ = ["Inspection", "inspect_bundle", "line"]

_CONFIGS = (".json", ".yaml", ".yml")
_PROGRAMS = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".exe", ".ts", ".pth")
"""Endings of files with programs, and of TorchScript."""
_WIDTH = 160


@dataclass(frozen=True)
class Inspection:
    """What a bundle would run, and its checksums.

    Attributes:
        findings: all that it would run.
        checksums: files that were compared with what they should be.
    """

    findings: tuple[Finding, ...]
    checksums: tuple[Checksum, ...]

    @property
    def items(self) -> tuple[Finding | Checksum, ...]:
        """All findings and checksums."""
        return (*self.findings, *self.checksums)

    @property
    def problems(self) -> tuple[Finding | Checksum, ...]:
        """What is not on the allow-list, and files that differ."""
        return tuple(item for item in self.items if item.problem)

    @property
    def sentence(self) -> str:
        """The result, in words."""
        kinds = [finding.kind for finding in self.findings]
        counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("expression", "import", "component"))
        others, differ = (sum(bool(item.problem) for item in items) for items in (self.findings, self.checksums))
        listed = f"{others} not on the allow-list" if others else "all on the allow-list"
        sums = f"{differ} of {len(self.checksums)} checksums differ" if differ else "all checksums agree"
        return f"{counts}: {listed}; {sums if self.checksums else 'no checksums to compare'}."


def line(item: Finding | Checksum) -> str:
    """Return a line for the terminal that says what was found and whether it is refused, and why."""
    if isinstance(item, Checksum):
        text = f"{'checksum':<10} {item.file}, by {item.by}"
    else:
        shown = " ".join(item.text.split())
        text = f"{item.kind:<10} {item.file} {item.key}: {shown if len(shown) <= _WIDTH else f'{shown[:_WIDTH]}…'}"
    return printable(f"REFUSED {text} ({item.problem})" if item.problem else f"ok      {text}")


def inspect_bundle(path: str | Path) -> Inspection:
    """List what a bundle would run, and compare its files with their checksums; nothing of it is run.

    Args:
        path: folder of the bundle, or its zip or tar, which is unpacked into a temporary folder.

    Raises:
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it is no bundle, or an archive that is damaged or not safe to unpack.
    """
    given = Path(path)
    with _unpacked(given) as folder:
        bundle = _bundle_in(folder, given)
        return Inspection(tuple(_findings(bundle)), tuple(checksums(given, bundle)))


@contextlib.contextmanager
def _unpacked(given: Path) -> Iterator[Path]:
    with open_source(given, junk=None) as source, tempfile.TemporaryDirectory() as temporary:
        if given.is_dir():
            yield given
            return
        for name in source.files:
            target = Path(temporary, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open(name) as stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file)
        yield Path(temporary)


def _bundle_in(folder: Path, given: Path) -> Path:
    """Return the folder that holds ``configs``: the given one, or the only one in an archive."""
    for candidate in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        if (candidate / "configs").is_dir():
            return candidate
    raise ValueError(f"{given} is no bundle, it has no folder configs; give the folder or the zip of one.")


def _findings(bundle: Path) -> Iterator[Finding]:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        file = path.relative_to(bundle).as_posix()
        if file.startswith("configs/") and path.suffix in _CONFIGS:
            yield from config_findings(file, path.read_bytes())
        elif path.suffix == ".conf":
            yield from log_findings(file, path.read_bytes())
        elif path.suffix in _PROGRAMS and not file.startswith(f"{CODE}/"):
            yield Finding(file, "", "code", file, "it is a program, which may do anything once it is imported or run")
