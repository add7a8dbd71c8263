"""Finding the images to predict: files, folders, patterns, datasets and DICOM series."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike

from medcontext.data.datalist import Case, case_files, case_name, load_cases
from medcontext.dicom import find_series, is_dicom
from medcontext.scans import is_volume_file, volume_name
from medcontext.text import printable

__all__ = ["list_images"]

logger = logging.getLogger(__name__)


def list_images(source: PathLike | Sequence[PathLike]) -> list[Case]:
    """List the images to predict, as cases without labels.

    Args:
        source: one file; a datalist such as ``dataset.json``, with any name ending in ``.json``, or the folder that
            holds a ``dataset.json`` (their test cases); a folder of volumes or, if it holds none, of DICOM files,
            which may be in folders below; a pattern of any of these, such as ``scans/**/*.nii.gz``; or several of
            these. An image that is named twice is listed once.

    Returns:
        Cases with ``image``, a path or several, and ``case``, a unique name: that of the (first) file, preceded by as
        many folders as tell the cases apart. Images in DICOM have all files of a series, and ``series_instance_uid``
        too. Series that should be volumes and are none, and files that cannot be read, have a ``problem`` instead, the
        reason. Label maps and probabilities beside their image are not listed.

    Raises:
        FileNotFoundError: If there is nothing to predict.
        ImportError: If there are DICOM files and the libraries for them are missing.
        ValueError: If two images have the same name, so that one prediction would overwrite the other; if none of the
            DICOM series is a volume; or if a JSON file is not a datalist.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    listed = [case for each in sources for case in _cases_at(each)]
    cases = list({tuple(map(os.path.abspath, case_files(case))): case for case in listed}.values())
    if not cases:
        raise FileNotFoundError("There is nothing to predict in an empty list; give images as --dataset_dir.")
    return [{**case, "case": name} for case, name in zip(cases, _unique_names(cases, source), strict=True)]


def _cases_at(source: PathLike) -> list[Case]:
    path = Path(source).expanduser().absolute()
    pattern = os.path.expanduser(source)
    matches = [path] if path.exists() else [Path(match).absolute() for match in glob.glob(pattern, recursive=True)]
    datalists = {match: match / "dataset.json" if match.is_dir() else match for match in sorted(matches)}
    # a JSON file is a datalist where it is asked for; 'scans/*' finds others beside images
    asked = str(source).endswith(".json")
    datalists = {match: file for match, file in datalists.items() if _is_json(file) and (asked or match.is_dir())}
    if path.is_file() and path not in datalists and not _is_image(path):  # what it is is said when it is checked
        cases: list[Case] = [{"image": str(path)}]
    else:
        listed = [case for datalist in datalists.values() for case in load_cases(datalist, "test")]
        cases = [{"image": case["image"]} for case in listed]
        images = {file for match in matches if match not in datalists for file in _image_files(match)}
        cases += _cases_of_files(images, source)
    if not cases:
        raise FileNotFoundError(
            f"There is nothing to predict at {source}; give a volume (NIfTI, MGH, Analyze, NRRD or "
            "MetaImage), a folder of them, a pattern such as 'scans/**/*.nii.gz', a folder of DICOM series, or a "
            "dataset.json with test cases as --dataset_dir."
        )
    return cases


def _is_json(path: Path) -> bool:
    return path.name.endswith(".json") and path.is_file()


def _stem(path: Path) -> str:
    return str(path.parent / volume_name(path))


def _is_image(path: Path) -> bool:
    return is_volume_file(path) or is_dicom(path)


def _image_files(path: Path) -> list[Path]:
    """Return a file if it is an image, or the images in a folder: volumes, else DICOM files at any depth."""
    if path.is_dir():
        return [file for file in path.iterdir() if is_volume_file(file)] or [
            file for file in path.rglob("*") if file.is_file() and is_dicom(file)
        ]
    return [path] if _is_image(path) else []


def _cases_of_files(files: set[Path], source: PathLike) -> list[Case]:
    """Return cases of volumes, except predictions of others among them, and of the series among DICOM files."""
    volumes = {_with_voxels(file) for file in files if is_volume_file(file)}
    predictions = {_stem(file) + ending for file in volumes for ending in ("_seg", "_probabilities")}
    cases: list[Case] = [{"image": str(file)} for file in sorted(volumes) if _stem(file) not in predictions]
    others = {file for file in files if not is_volume_file(file)}
    if not others:
        return cases
    series, left_out = find_series(others)
    if not series and not cases:
        raise ValueError(f"There is no volume among the DICOM files at {source}: {'; '.join(map(str, left_out))}.")
    for one in left_out:
        logger.warning("not predicted: %s.", printable(str(one)))
    cases += [{"image": list(one.files), "case": one.name, "series_instance_uid": one.uid} for one in series]
    faults = [one for one in left_out if one.is_fault]
    return cases + [{"image": list(one.files), "case": one.name, "problem": f"{one}."} for one in faults]


def _with_voxels(path: Path) -> Path:
    """Return a file or, if it is the header of a pair, the one with the voxels."""
    voxels = path.with_suffix(".img")
    return voxels if path.suffix == ".hdr" and voxels.exists() else path


def _unique_names(cases: Sequence[Case], source: PathLike | Sequence[PathLike]) -> list[str]:
    """Name each case by its own name, or by that of its file after as many folders as tell all apart."""
    short = [str(case.get("case") or case_name(case)) for case in cases]
    folders = [() if "case" in case else Path(case_files(case)[0]).parent.parts[1:] for case in cases]
    for depth in range(max(map(len, folders)) + 1):
        names = [
            "_".join([*parts[max(len(parts) - depth, 0) :], name]) for parts, name in zip(folders, short, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    repeated = next(name for name in short if short.count(name) > 1)
    raise ValueError(
        f"{source} holds several images called {repeated}, whose predictions would be one file; rename them."
    )
