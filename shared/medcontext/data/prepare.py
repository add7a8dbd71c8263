"""From a provider's download to a folder that the bundles train on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tqdm.auto import tqdm

from medcontext.data.datasets import load_split
from medcontext.data.phantoms import MARKER, PHANTOM_DATASETS

__all__ = ["prepare_dataset"]


def prepare_dataset(
    dataset: str, source: str | os.PathLike[str], output_dir: str | os.PathLike[str], *, link: bool = False
) -> Path:
    """Bring a dataset's unpacked download into ``output_dir`` and write its ``dataset.json`` with the published split.

    The source is never changed. A call that was cut off can be repeated: files that are there already are kept.

    Args:
        dataset: ``btcv``, whose download holds ``Training/img/img0001.nii.gz`` and ``Training/label/label0001.nii.gz``.
        source: the unpacked download, or any folder above its ``Training`` folder.
        output_dir: where the dataset shall lie.
        link: make symbolic links instead of copies.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        FileNotFoundError: Naming the cases of the split that the source lacks.
        ValueError: When the dataset is not known, or ``output_dir`` holds a generated cohort.
    """
    if dataset != "btcv":
        raise ValueError(f"dataset must be 'btcv', got {dataset!r}; for other data write a dataset.json by hand.")
    layout, split, output_dir = PHANTOM_DATASETS[dataset], load_split(dataset), Path(output_dir)
    _refuse_phantoms(output_dir)
    root = _find_training(Path(source))
    sections = {
        section: [{"image": layout.image.format(case), "label": layout.label.format(case)} for case in cases]
        for section, cases in split.items()
    }
    files = [path for cases in sections.values() for case in cases for path in case.values()]
    missing = [path for path in files if not (root / path).is_file()]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise FileNotFoundError(f"{root} lacks {shown}; unpack the whole RawData.zip of Synapse syn3193805.")
    for path in tqdm(files, desc="linking" if link else "copying", unit="file"):
        _place(root / path, output_dir / path, link)
    content = {
        "name": "BTCV",
        "description": "Multi-Atlas Labeling Beyond the Cranial Vault, abdomen, with the split of TransUNet",
        "reference": "https://www.synapse.org/Synapse:syn3193805",
        "tensorImageSize": "3D",
        "modality": {str(channel): name for channel, name in layout.modality.items()},
        "labels": {str(index): name for index, name in layout.labels.items()},
        "numTraining": len(sections["training"]),
        "numTest": len(sections["test"]),
        **sections,
    }
    datalist = output_dir / "dataset.json"
    datalist.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return datalist


def _find_training(source: Path) -> Path:
    """The folder that holds ``Training/img``, at or below ``source``."""
    found = sorted(path.parent.parent for path in source.glob("**/Training/img") if path.is_dir())
    if not found:
        raise FileNotFoundError(f"No Training/img folder at or below {source}; give the unpacked RawData folder.")
    return found[0]


def _refuse_phantoms(folder: Path) -> None:
    datalist = folder / "dataset.json"
    generated = datalist.is_file() and "phantom" in json.loads(datalist.read_text(encoding="utf-8"))
    if generated or (folder / MARKER).exists():
        raise ValueError(
            f"{folder} holds generated phantoms; give another folder, so that nobody takes them for patients."
        )


def _place(source: Path, target: Path, link: bool) -> None:
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    if link:
        part.symlink_to(source.resolve())
    else:
        shutil.copy2(source, part)
    part.replace(target)
