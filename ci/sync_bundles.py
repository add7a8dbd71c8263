"""Keep the bundles one: every file is that of the reference bundle, but for the keys and sections allowed below.

python ci/sync_bundles.py --check     say what differs; exit code 1 if anything does
python ci/sync_bundles.py --write     make the other bundles follow the reference
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fire

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
REFERENCE = "medcontext_unetr"
SWIN, NNFORMER, PLUS = "medcontext_swin_unetr", "medcontext_nnformer", "medcontext_unetr_plus_plus"
RESENC = "medcontext_resenc_unet"
EVERY = (SWIN, NNFORMER, PLUS, RESENC)
DEPTH_FIRST = (NNFORMER, PLUS, RESENC)  # axes S, P, L and nnU-Net's recipe, as their authors trained them

GEOMETRY = dict.fromkeys(("orientation", "spacing", "roi_size"), DEPTH_FIRST)
RECIPE = dict.fromkeys(("learning_rate", "warmup_fraction", "max_grad_norm"), DEPTH_FIRST)

# file → key (of nested ones the path, joined by #) or section of a document → bundles with a value of their own there;
# under the empty key the whole file is a bundle's own
Allowances = Mapping[str, Mapping[str, tuple[str, ...]]]
ALLOWED: Allowances = {
    "configs/train.json": {
        **dict.fromkeys(("network_def", "phantom"), EVERY),
        **GEOMETRY,
        **RECIPE,
        **dict.fromkeys(
            ("batch_size", "num_samples", "max_epochs", "val_interval", "checkpoint_interval"), DEPTH_FIRST
        ),
        **dict.fromkeys(("optimizer", "lr_scheduler#_target_", "segmentation_loss"), DEPTH_FIRST),
    },
    "configs/inference.json": {"network_def": EVERY, "phantom": EVERY, **GEOMETRY},
    "configs/btcv.json": {"phantom": EVERY, **GEOMETRY},
    "configs/phantom.json": {"network_def": EVERY, "learning_rate": (RESENC,)},
    "configs/acdc.json": {
        **dict.fromkeys(("network_def", "roi_size", "phantom"), EVERY),
        **dict.fromkeys(("orientation", "spacing", "max_epochs", "val_interval", "organ_dropout"), DEPTH_FIRST),
    },
    "configs/brats.json": {
        **dict.fromkeys(("network_def", "phantom"), EVERY),
        **dict.fromkeys(("orientation", "max_epochs", "val_interval"), DEPTH_FIRST),
    },
    "configs/hippocampus.json": {
        **dict.fromkeys(("network_def", "phantom"), EVERY),
        "orientation": DEPTH_FIRST,
        "roi_size": (SWIN,),
    },
    "configs/paper.json": {
        "masking#patch_size": EVERY,
        "token_masking#embedding": EVERY,
        "masking#ratio": DEPTH_FIRST,
        **dict.fromkeys(("consistency_weight", "protocol", "augmentation"), DEPTH_FIRST),
    },
    "configs/metadata.json": {
        **dict.fromkeys(("changelog", "name", "description", "references"), EVERY),
        "network_data_format#inputs#image#spatial_shape": DEPTH_FIRST,
        "network_data_format#outputs#pred#spatial_shape": DEPTH_FIRST,
    },
    "docs/README.md": {
        **dict.fromkeys(("Model overview", "Model configuration", "Memory", "Performance", "References"), EVERY),
        **dict.fromkeys(("Preprocessing", "Input"), DEPTH_FIRST),
    },
    "docs/preview.png": {"": EVERY},
}


class Problem(NamedTuple):
    """Something that differs, and the bytes that would mend it where writing can (none: the file has to go)."""

    message: str
    path: Path | None = None
    content: bytes | None = None


def problems(root: Path, allowed: Allowances = ALLOWED) -> Iterator[Problem]:
    """Compare the bundles under ``root`` with the reference, byte for byte but for the allowances."""
    reference = root / REFERENCE
    names = [path.name for path in bundle_folders(root) if path != reference]
    listed = {bundle for keys in allowed.values() for bundles in keys.values() for bundle in bundles}
    yield from (Problem(f"the table names {bundle}, which is no bundle") for bundle in sorted(listed - set(names)))
    files = bundle_files(reference)
    yield from (Problem(f"the table names {file}, which {REFERENCE} lacks") for file in allowed if file not in files)
    for name in names:
        own = bundle_files(root / name)
        for file in sorted(own - files):
            yield Problem(f"{name}/{file}: {REFERENCE} has no such file", root / name / file)
        for file in sorted(files):
            keys = [key for key, bundles in allowed.get(file, {}).items() if name in bundles]
            yield from _compare(root, name, file, keys)


def bundle_folders(root: Path) -> list[Path]:
    """The bundles in a folder, by name."""
    return sorted(path for path in root.iterdir() if (path / "configs").is_dir())


def bundle_files(bundle: Path) -> set[str]:
    """What belongs to a bundle, by path below it; weights and caches are made, not kept."""
    paths = (path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != "models" and "__pycache__" not in path.parts}


def _compare(root: Path, bundle: str, file: str, allowed: list[str]) -> Iterator[Problem]:
    path, label = root / bundle / file, f"{bundle}/{file}"
    content = (root / REFERENCE / file).read_bytes().replace(REFERENCE.encode(), bundle.encode())
    if not path.is_file():
        yield Problem(f"{label}: missing", path, content)
    elif allowed == [""]:
        if path.read_bytes() == content:
            yield Problem(f"{label}: may be its own, but is that of {REFERENCE}; take it off the table")
    else:
        if path.suffix in (".json", ".md"):
            parts, own = _parts(content, path.suffix), _parts(path.read_bytes(), path.suffix)
            yield from (Problem(f"{label}: {reason}") for key in allowed if (reason := _adopt(parts, own, key)))
            content = _joined(parts, path.suffix)
        if path.read_bytes() != content:
            yield Problem(f"{label}: differs from {REFERENCE} beyond what the table allows", path, content)


def _parts(content: bytes, suffix: str) -> dict[str, Any]:
    text = content.decode()
    return dict(json.loads(text)) if suffix == ".json" else sections(text)


def _joined(parts: Mapping[str, Any], suffix: str) -> bytes:
    text = json.dumps(parts, indent=4, ensure_ascii=False) + "\n" if suffix == ".json" else "".join(parts.values())
    return text.encode()


def sections(text: str) -> dict[str, str]:
    """The parts of a Markdown document by heading, with which each begins; what precedes the first is under ``""``.

    Raises:
        ValueError: When two parts have the same heading.
    """
    found, heading, fenced = {"": ""}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and re.match("#+ ", line):
            heading = line.lstrip("#").strip()
            if heading in found:
                raise ValueError(f"The heading {heading!r} occurs twice; sections need names of their own.")
            found[heading] = ""
        found[heading] += line
    return found


def _adopt(parts: dict[str, Any], own: dict[str, Any], key: str) -> str | None:
    """Put a bundle's own value of a key or section in the place of the reference's; say why not if that is wrong."""
    *path, last = key.split("#")
    for name in path:
        parts, own = parts.get(name, {}), own.get(name, {})
    if last not in parts:
        return f"the table allows {key!r}, which {REFERENCE} lacks"
    if last in own and own[last] == parts[last]:
        return f"{key!r} may differ, but does not; take it off the table"
    parts[last] = own.get(last, parts[last])
    return None


def main(check: bool = False, write: bool = False) -> None:
    """Say what differs, or mend it; exit code 1 if anything is left.

    Args:
        check: change nothing.
        write: make the other bundles follow the reference. What only the table can mend is left.
    """
    if check == write:
        sys.exit("sync_bundles: give either --check or --write")
    left = 0
    for problem in problems(BUNDLES):
        if write and problem.path is not None:
            _mend(problem.path, problem.content)
        left += not write or problem.path is None
        print(problem.message, "(mended)" if write and problem.path is not None else "")
    if left:
        sys.exit(f"{left} problems" + ("" if write else "; --write mends those that are not the table's"))
    print("the bundles are one")


def _mend(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    fire.Fire(main)
