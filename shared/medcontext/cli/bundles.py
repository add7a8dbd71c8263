"""Commands for bundles and their weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["convert_weights", "download", "inspect"]


def download(name: str | None = None, *, source: str, bundle_dir: str = ".") -> None:
    """Download a bundle from any collection, check it, and unpack it; without a name, list the bundles.

    What the bundle would run beyond the allow-list of ``inspect`` is reported, and should be read before it is run.

    Args:
        name: name of the bundle, or ``NAME@VERSION``; by default the latest version.
        source: address or path of the collection's ``model_info.json``, or of the folder that holds it.
        bundle_dir: folder to create the bundle's folder in; an existing bundle is never overwritten, and an interrupted
            call can be repeated.
    """
    from medcontext.hub.collection import read_collection

    if name is not None:
        _download(str(name), str(source), str(bundle_dir))
        return
    for bundle in read_collection(str(source)).bundles:
        print(bundle.name, bundle.version)


def _download(name: str, source: str, bundle_dir: str) -> None:
    from medcontext.hub.download import download_bundle
    from medcontext.inspection import inspect_bundle, line

    folder = download_bundle(name, source, bundle_dir)
    print(folder)
    inspection = inspect_bundle(folder)
    print(*map(line, inspection.problems), inspection.sentence, sep="\n", file=sys.stderr)


def inspect(bundle: str) -> None:
    """List what a bundle would run, whether each is on an allow-list, and its checksums; nothing of it is run.

    Every expression, import, ``_target_``, log handler and program is listed. The command ends with an error if one is
    not on the list, or a checksum differs: read these before you run the bundle.

    Args:
        bundle: folder or archive of a bundle.
    """
    from medcontext.inspection import inspect_bundle, line

    inspection = inspect_bundle(str(bundle))
    print(*map(line, inspection.items), sep="\n")
    if inspection.problems:
        sys.exit(f"medcontext: {inspection.sentence}")
    print(inspection.sentence)


def convert_weights(
    source: str,
    config_file: str | Sequence[str],
    output: str = "model.pt",
    strict: bool = True,
    entry: str | None = None,
    **override: Any,
) -> None:
    """Convert a published checkpoint to a bundle's ``model.pt``, for use from a folder given as ``--ckpt_dir``.

    Args:
        source: path of the published file; code in it is never run.
        config_file: ``train.json`` of the bundle, with overlays as for training.
        output: path of the file to write; an existing one is never overwritten.
        strict: with ``False``, accept a checkpoint that holds only a part of the network, such as its encoder.
        entry: network to convert from a file that holds several, such as ``student_state_dict``.
        override: values of configuration keys, as for training.
    """
    from medcontext.bundle import build_network, open_workflow
    from medcontext.networks.published import convert_checkpoint, describe_conversion

    workflow = open_workflow(config_file, **override)
    report = convert_checkpoint(source, build_network(workflow), output, strict=strict, entry=entry)
    print(f"{describe_conversion(report, source)}\n{output}")
