"""Copying or linking files from a source such that an interrupted call can be repeated."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from tqdm.auto import tqdm

from medcontext.storage.archives import Source, SourceFile
from medcontext.storage.file_memory import FileMemory, sha256_of
from medcontext.storage.files import require_space

__all__ = ["is_link_to", "transfer_files"]

BLOCK = 1 << 20


def transfer_files(
    source: Source, plan: Mapping[str, str], folder: Path, memory: FileMemory, *, link: bool = False
) -> dict[str, str]:
    """Copy or link files into a folder.

    Files of an earlier call are kept unless they or their source have changed. A file gets its name only when it is
    complete.

    Args:
        source: source of the files; it is never changed.
        plan: name in the source by path below the folder.
        folder: folder to transfer the files to.
        memory: memory of the folder's files; it keeps the origin of each, and its SHA-256.
        link: link instead of copying; the source must be a folder.

    Returns:
        SHA-256 by path below the folder.

    Raises:
        OSError: If a file cannot be written; finished files are kept.
        ValueError: If the source is damaged, or still being written.
    """
    order = {name: index for index, name in enumerate(source.files)}
    ordered = sorted(plan, key=lambda path: order[plan[path]])
    todo = [path for path in ordered if not _is_transferred(source.files[plan[path]], folder / path, memory, link)]
    sizes = {path: source.files[plan[path]].size for path in todo}
    if not link:
        require_space(folder, sum(sizes.values()), "make room, or link")
    with tqdm(total=sum(sizes.values()), desc="linking" if link else "copying", unit="B", unit_scale=True) as bar:
        for path in todo:
            file, target = source.files[plan[path]], folder / path
            try:
                _transfer(source, file, target, memory, link)
            except OSError as error:
                raise OSError(
                    f"{file.name} could not be transferred to {target} ({error.strerror or error}). "
                    "Fix this and call again; finished files are kept."
                ) from error
            if not is_link_to(target, file):
                memory.remember(target, "source", _origin(file))
            bar.update(sizes[path])
    return {path: sha256_of(folder / path, memory) for path in plan}


def is_link_to(target: Path, file: SourceFile) -> bool:
    """Return whether a path leads to a source's file, by a link of either kind or because it is that file."""
    return file.path is not None and target.exists() and target.samefile(file.path)


def _origin(file: SourceFile) -> str:
    return f"copy of {file.name} {file.stamp}"


def _is_transferred(file: SourceFile, target: Path, memory: FileMemory, link: bool) -> bool:
    if is_link_to(target, file):
        return link
    return target.is_file() and memory.recall(target, "source") == _origin(file)


def _transfer(source: Source, file: SourceFile, target: Path, memory: FileMemory, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        linked = link and file.path is not None and _link(file.path.resolve(), part)
        digest = None if linked else _copy(source, file, part)
        part.replace(target)
        if digest is not None:
            memory.remember(target, "sha256", digest)
    finally:
        part.unlink(missing_ok=True)


def _link(original: Path, link: Path) -> bool:
    """Create a hard link or, on another disk, a symbolic one; return whether the system lets either be created.

    A hard link outlives the moving of either folder, needs no rights on Windows, and is there in a container that sees
    only one of them.
    """
    for create in (link.hardlink_to, link.symlink_to):
        with contextlib.suppress(OSError):
            create(original)
            return True
    return False


def _copy(source: Source, file: SourceFile, part: Path) -> str:
    digest, size = hashlib.sha256(), 0
    with source.open(file.name) as stream, part.open("wb") as copy:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += copy.write(block)
    if size != file.size:
        raise ValueError(f"{file.name} in {source.path} changed while it was read; call again when it is complete.")
    return digest.hexdigest()
