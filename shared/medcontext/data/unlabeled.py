"""Scans without labels that are trained on beside the labelled ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import Dataset
from monai.data.utils import set_rnd
from monai.transforms import Randomizable

from medcontext.data.datalist import Case, load_cases, load_listed
from medcontext.data.images import list_images
from medcontext.keys import MedContextKeys

__all__ = ["PairedDataset", "load_unlabeled", "pair_unlabeled"]


def load_unlabeled(
    datalist: str | os.PathLike[str],
    unlabeled: str | None = None,
    unlabeled_dir: PathLike | Sequence[PathLike] | None = None,
    **split: Any,
) -> list[Case]:
    """List the unlabelled scans of a training run.

    Args:
        datalist: path of the ``dataset.json``.
        unlabeled: ``"dataset"`` for those that ``dataset.json`` lists under ``unlabeled``; ``"rest"`` for the images of
            the training cases that ``train_cases`` or ``train_fraction`` leaves out, never their labels; ``None``.
        unlabeled_dir: a folder of scans, or any other source that :func:`~medcontext.data.list_images` takes, in NIfTI
            or DICOM; added to the others.
        split: choice of the labelled cases, as for :func:`~medcontext.data.load_cases`.

    Returns:
        Cases with ``image`` alone.

    Raises:
        FileNotFoundError: If a file or folder is missing, or holds no scans.
        ValueError: If ``unlabeled`` is unknown, there are no such scans, or DICOM files cannot be used.
    """
    if unlabeled not in (None, "dataset", "rest"):
        raise ValueError(
            f"unlabeled must be 'dataset', 'rest' or null, got {unlabeled!r}; give a folder as unlabeled_dir."
        )
    cases: list[Case] = []
    if unlabeled == "dataset":
        cases += [{"image": case["image"]} for case in load_listed(datalist, "unlabeled")]
        if not cases:
            raise ValueError(
                f"{datalist} lists no scans under 'unlabeled'; add them there, or give unlabeled_dir FOLDER, or "
                "unlabeled rest for the training cases that train_cases leaves out."
            )
    if unlabeled == "rest":
        cases += [{"image": case["image"]} for case in load_cases(datalist, "rest", **split)]
        if not cases:
            raise ValueError(
                "unlabeled rest needs training cases that are left out, but all are labelled cases of this run; lower "
                "train_cases, or give unlabeled_dir FOLDER."
            )
    if unlabeled_dir is not None:
        listed = list_images(unlabeled_dir)
        problems = [case["problem"] for case in listed if "problem" in case]
        if problems:
            raise ValueError(f"{unlabeled_dir} holds scans that cannot be used; leave them out: {' | '.join(problems)}")
        cases += [{"image": case["image"]} for case in listed]
    return cases


def pair_unlabeled(labeled: Dataset, unlabeled: Dataset | None) -> Dataset:
    """Return the labelled dataset, with an unlabelled crop beside each of its crops if there are any."""
    return labeled if unlabeled is None or not len(unlabeled) else PairedDataset(labeled, unlabeled)


class PairedDataset(Randomizable, Dataset):
    """Labelled crops, each with a crop of a random unlabelled scan beside it.

    It has the length and order of the labelled dataset, so samplers, epochs and schedules do not depend on the number
    of unlabelled scans. The draw depends on the random state alone.

    Args:
        labeled: dataset of dictionaries, or of lists of them for several crops of a case.
        unlabeled: the same, with ``unlabeled_image`` and ``unlabeled_strong``.
    """

    def __init__(self, labeled: Dataset, unlabeled: Dataset) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled
        self.data = labeled.data

    def __len__(self) -> int:
        """Return the number of labelled cases."""
        return len(self.labeled)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> PairedDataset:
        """Seed the draw of scans, and the transforms of both datasets."""
        super().set_random_state(seed, state)
        if seed is not None:
            set_rnd(self.labeled, seed)
            set_rnd(self.unlabeled, seed + 1)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw a scan."""
        self._drawn = int(self.R.randint(len(self.unlabeled)))

    def __getitem__(self, index: int) -> Any:
        """Return the crops of a labelled case with unlabelled ones."""
        labeled = _as_list(self.labeled[index])
        self.randomize()
        unlabeled = _as_list(self.unlabeled[self._drawn])
        keys = (MedContextKeys.UNLABELED_IMAGE, MedContextKeys.UNLABELED_STRONG)
        return [{**crop, **{key: unlabeled[i % len(unlabeled)][key] for key in keys}} for i, crop in enumerate(labeled)]


def _as_list(item: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [item] if isinstance(item, Mapping) else item
