"""From folders of scans to a ranking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from medcontext.data import case_files, case_name, check_images, list_images, load_listed
from medcontext.data.datalist import Case
from medcontext.ranking.measuring import measure_scans
from medcontext.ranking.order import RankedScan, order_scans
from medcontext.ranking.page import write_ranking
from medcontext.ranking.trained import TrainedNetwork
from medcontext.reliability import Agreement
from medcontext.storage.file_memory import sha256_of

__all__ = ["candidates", "labeled_cases", "rank_folder", "rank_scans"]

Source: TypeAlias = str | os.PathLike[str] | Sequence[str]
"""Folder, pattern or several of these."""


def labeled_cases(labeled: Source | None) -> list[Case]:
    """Return the scans that are labelled already.

    Args:
        labeled: folder with a ``dataset.json``, of which the training and validation cases count, or images as for
            prediction; ``None`` for none.
    """
    if labeled is None:
        return []
    datalist = _datalist(labeled)
    if datalist is None:
        return list_images(labeled)
    cases = [case for name in ("training", "validation") for case in load_listed(datalist, name) if "label" in case]
    return [{"image": case["image"], "case": case_name(case)} for case in cases]


def candidates(images: Source, labeled: Sequence[Case]) -> tuple[list[Case], int]:
    """List the scans to rank.

    Args:
        images: images as for prediction, or a folder with a ``dataset.json``, of which the unlabelled scans count.
        labeled: scans that are labelled already, which are not ranked, wherever a copy of them lies.

    Returns:
        The scans, and how many were left out because they are labelled.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If all of them are labelled, or a ``dataset.json`` lists none under ``unlabeled``.
    """
    datalist = _datalist(images)
    listed = list_images(images) if datalist is None else load_listed(datalist, "unlabeled")
    if not listed:
        raise ValueError(f"{datalist} lists no scans under 'unlabeled'; give a folder of scans as --images.")
    cases = [{"case": case_name(case), **case} for case in listed]
    sizes = {_file(case).stat().st_size for case in labeled}
    contents = {sha256_of(_file(case)) for case in labeled}
    left = [case for case in cases if _file(case).stat().st_size not in sizes or sha256_of(_file(case)) not in contents]
    if not left:
        raise ValueError(f"All scans of {images} are labelled already; give scans without labels as --images.")
    return left, len(cases) - len(left)


def _datalist(source: Source) -> Path | None:
    """Return the ``dataset.json`` of a folder that has one."""
    path = Path(source) / "dataset.json" if isinstance(source, str | os.PathLike) else None
    return path if path is not None and path.is_file() else None


def _file(case: Case) -> Path:
    """Return the first file of a scan."""
    return Path(case_files(case)[0])


def rank_scans(trained: TrainedNetwork, cases: Sequence[Case], labeled: Sequence[Case]) -> list[RankedScan]:
    """Measure scans and order them by their expected value for labelling.

    Args:
        trained: network trained on what is labelled.
        cases: scans without labels.
        labeled: scans that are labelled already, from which new ones should differ.

    Raises:
        ValueError: If an image cannot be predicted; the message lists the problems.
    """
    problems = check_images([*cases, *labeled], trained.settings["in_channels"])
    if problems:
        more = f" (and {len(problems) - 5} more problems)" if len(problems) > 5 else ""
        raise ValueError(" | ".join(problems[:5]) + more)
    known = measure_scans(trained, labeled, None) if labeled else []
    return order_scans(measure_scans(trained, cases, Agreement(trained.network, trained.path)), known)


def rank_folder(
    ckpt_dir: str, images: Source, labeled: Source | None, output_dir: str, device: str | None
) -> tuple[list[RankedScan], Path]:
    """Rank the scans in a folder and write the ranking; the arguments are those of the command ``rank``.

    Returns:
        The ranking, and the path of its page.

    Raises:
        FileNotFoundError: If weights or images are missing.
        ValueError: If the weights or an image are unusable, or there is nothing to rank.
    """
    trained = TrainedNetwork(ckpt_dir, device)
    known = labeled_cases(labeled)
    cases, left_out = candidates(images, known)
    ranked = rank_scans(trained, cases, known)
    return ranked, write_ranking(ranked, trained, output_dir, labeled=len(known), left_out=left_out)
