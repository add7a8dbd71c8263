"""The folder that a dataset is prepared in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medcontext.data.datalist import load_datalist
from medcontext.data.datasets import PHANTOM_MARKER
from medcontext.storage.archives import Source
from medcontext.storage.files import write_file
from medcontext.storage.json_files import parse_json
from medcontext.storage.locks import locked

__all__ = ["indented", "make_output_folder", "phantom_record", "refuse_output_in", "reserved"]


def refuse_output_in(source: Path, output: Path) -> None:
    """Refuse an output folder that is a source folder or lies inside it.

    Raises:
        ValueError: If it is or does.
    """
    if source.is_dir() and source.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(
            f"output_dir {output} is inside the source {source}, which must not be changed; choose another."
        )


def reserved(output: Path) -> contextlib.AbstractContextManager[None]:
    """Reserve an output folder for this process within a block.

    Raises:
        ValueError: If another process is preparing it.
    """
    return locked(output, f"Another process is preparing {output}; wait for it, or choose another output_dir.")


def make_output_folder(output: Path, edition: str) -> Path:
    """Create the output folder, and remove a ``dataset.json`` that is about to be outdated.

    Args:
        output: the folder.
        edition: what its ``dataset.json`` names as the edition if it was prepared before.

    Returns:
        Path of the ``dataset.json`` to write.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If it holds phantoms or another dataset.
    """
    datalist = output / "dataset.json"
    present = load_datalist(datalist) if datalist.is_file() else {}
    if (output / PHANTOM_MARKER).exists() or ("phantom" in present and "prepared" not in present):
        raise ValueError(
            f"{output} holds generated phantoms; give another folder, so that nobody mistakes them for patients."
        )
    prepared = present.get("prepared")
    if present and not (isinstance(prepared, dict) and prepared.get("edition") == edition):
        raise ValueError(f"{output} holds another dataset ({present.get('name', 'unnamed')}); give another folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / ".writable", b"")
        (output / ".writable").unlink()
        datalist.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be written ({error.strerror}); choose another.") from error
    return datalist


def phantom_record(source: Source) -> Any:
    """Return the record of a generated cohort, so that nobody mistakes it for patients once it is prepared."""
    for name in source.files:
        if name.rsplit("/", 1)[-1] != "dataset.json":
            continue
        with source.open(name) as stream, contextlib.suppress(ValueError):
            content = parse_json(stream.read())
            if isinstance(content, dict) and "phantom" in content:
                return content["phantom"]
    return None


def indented(lines: Iterable[str]) -> str:
    """Return lines of a list below a sentence."""
    return "\n".join(f"  {line}" for line in lines)
