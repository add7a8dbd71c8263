"""What the ``dataset.json`` of nnU-Net and the Decathlon says of labels and channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from medcontext.labels import check_ignored, is_ignore, is_label_id
from medcontext.providers.own import OwnDataset
from medcontext.storage.archives import Source
from medcontext.storage.json_files import parse_json
from medcontext.text import printable

__all__ = ["described_dataset", "find_description", "names_by_id", "read_object"]

BACKGROUND = "background"


def find_description(source: Source) -> str:
    """Return the name of the only ``dataset.json`` of the highest folder that has one.

    Raises:
        ValueError: If there is none, or several in folders of the same depth.
    """
    names = [PurePosixPath(name) for name in source.files if PurePosixPath(name).name == "dataset.json"]
    top = min((len(name.parts) for name in names), default=0)
    highest = [str(name) for name in names if len(name.parts) == top]
    if not highest:
        raise ValueError(
            f"{source.path} holds no dataset.json, which describes an nnU-Net or Decathlon dataset; give the folder "
            "that has one, or your images and labels with --dataset folder."
        )
    if len(highest) > 1:
        raise ValueError(
            f"{source.path} holds several datasets ({', '.join(sorted(highest))}); give the folder of one."
        )
    return highest[0]


def described_dataset(source: Source, form: str, description: str, content: Mapping[str, Any]) -> OwnDataset:
    """Return a dataset without its cases, as its description names it.

    Args:
        source: where it is.
        form: the form that the description is in, such as ``nnU-Net``.
        description: name of the ``dataset.json`` in the source.
        content: what it says.

    Raises:
        ValueError: If it does not name channels and labels.
    """
    place = f"{description} of {source.path}"
    return OwnDataset(
        source=source,
        edition=f"{form} dataset {source.path.resolve()}",
        name=text_of(content, "name") or PurePosixPath(description).parent.name or source.path.name,
        modality=channel_names(content, place),
        labels=names_by_id(content.get("labels"), f"labels of {place}"),
        about=about(content),
    )


def read_object(source: Source, name: str) -> dict[str, Any]:
    """Read a JSON object from a source.

    Raises:
        ValueError: If it is not one.
    """
    with source.open(name) as stream:
        text = stream.read()
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name} of {source.path} is not valid JSON ({error}); repair it or get it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} of {source.path} must be a JSON object, got {type(content).__name__}; get it again.")
    return content


def names_by_id(labels: object, place: str) -> dict[int, str]:
    """Return names by label id from either direction: name to id as in nnU-Net v2, or id to name as before it.

    Args:
        labels: the labels.
        place: where they were given, for messages.

    Returns:
        Names by id in ascending order, the background and, where there is one, ``ignore`` included.

    Raises:
        ValueError: If they are something else, or labels that no single id stands for.

    Example:
        >>> names_by_id({"liver": 1}, "labels"), names_by_id({"1": "liver"}, "labels")
        ({0: 'background', 1: 'liver'}, {0: 'background', 1: 'liver'})
    """
    pairs = _pairs(labels, place)
    for name, index in pairs:
        _check_label(name, index, place)
    names = {0: BACKGROUND} | {index: name for name, index in pairs}
    if len({index for _, index in pairs}) < len(pairs) or len(set(names.values())) < len(names):
        raise ValueError(f"{place} gives one name or one id twice ({dict(pairs)}); give each id one name.")
    check_ignored(names, place)
    if not any(index and not is_ignore(name) for index, name in names.items()):
        raise ValueError(f"{place} names no structure beside the background; name at least one.")
    return dict(sorted(names.items()))


def _pairs(labels: object, place: str) -> list[tuple[str, Any]]:
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"{place} must name the label ids, such as {{'background': 0, 'liver': 1}}, got {labels!r}.")
    if all(isinstance(name, str) and is_label_id(index) for index, name in labels.items()):
        return [(name, int(index)) for index, name in labels.items()]
    return [(str(name), index) for name, index in labels.items()]


def _check_label(name: str, index: Any, place: str) -> None:
    if isinstance(index, list | tuple):
        raise ValueError(
            f"{place} makes {name!r} a region of the ids {list(index)}; give each id a name of its own there, such as "
            f"'label_{index[0] if index else 1}', and name the region in `reported` when you train."
        )
    if printable(name) != name:
        raise ValueError(f"{place} names {name!r}, which has control characters; rename it.")
    if isinstance(index, bool) or not isinstance(index, int) or not is_label_id(index) or not name.strip():
        raise ValueError(f"{place} gives {name!r} the id {index!r}; an id is a whole number, 0 for the background.")
    if name.lower() == BACKGROUND and index:
        raise ValueError(f"{place} gives {name!r} the id {index}; the background must have the id 0.")


def channel_names(content: Mapping[str, Any], place: str) -> dict[int, str]:
    """Return the names of the channels: ``channel_names`` of nnU-Net v2, or ``modality`` as before it.

    Raises:
        ValueError: If neither names the channels from 0 upwards.
    """
    key = "channel_names" if "channel_names" in content else "modality"
    names = content.get(key)
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) and name for name in names.values()):
        raise ValueError(f"{key} of {place} must name the channels, such as {{'0': 'CT'}}, got {names!r}.")
    if sorted(names) != sorted(map(str, range(len(names)))):
        raise ValueError(f"{key} of {place} must number the channels from 0 to {len(names) - 1}, got {sorted(names)}.")
    return {channel: printable(names[str(channel)]) for channel in range(len(names))}


def text_of(content: Mapping[str, Any], key: str) -> str:
    """Return the text under a key, empty if there is none."""
    value = content.get(key)
    return printable(value) if isinstance(value, str) else ""


def about(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what a description says of its dataset and the licence."""
    keys = ("description", "reference", "licence", "license", "release")
    return {key: text_of(content, key) for key in keys if text_of(content, key)}
