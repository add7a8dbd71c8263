"""Measuring all cases of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from medcontext.audit.findings import Finding, find_unusual
from medcontext.audit.measures import label_shift, measure_labels
from medcontext.data.datalist import Case, case_files, case_name
from medcontext.data.partial import annotated_names, without_ignored
from medcontext.scans import read_volume

__all__ = ["audit_cases", "read_case"]

Array = npt.NDArray[Any]


def audit_cases(cases: Sequence[Case], labels: Mapping[str, int], ignored: int | None = None) -> list[Finding]:
    """Report the cases whose label maps are unlike those of the other cases.

    Args:
        cases: cases that :func:`~medcontext.data.check_dataset` finds no problems in; those without a label are left
            out.
        labels: names and ids of the structures in the files. A case is not compared in those that are not annotated.
        ignored: id of ignored voxels.

    Returns:
        Findings in the order of the cases; none for fewer than five cases.
    """
    structures, shifts = [], []
    labelled = [case for case in cases if "label" in case]
    for case in tqdm(labelled, desc="auditing label maps", unit="case"):
        image, label, affine = read_case(case)
        label = without_ignored(label, ignored)
        shift, gain = label_shift(image, label)
        annotated = {name: labels[name] for name in annotated_names(case, labels)}
        structures += [{"case": case_name(case), **row} for row in measure_labels(image, label, affine, annotated)]
        shifts.append({"case": case_name(case), "shift": shift, "gain": gain})
    return find_unusual(pd.DataFrame(structures), pd.DataFrame(shifts)) if structures else []


def read_case(case: Case) -> tuple[Array, Array, Array]:
    """Read the first channel of an image, its label map, both (X, Y, Z) in RAS order, and the affine (4, 4) in mm."""
    image, label = (nib.as_closest_canonical(read_volume(file)) for file in (case_files(case)[0], case["label"]))
    intensities = np.asarray(image.dataobj, dtype=np.float32)
    ids = np.rint(np.asarray(label.dataobj)).astype(np.int32)
    return intensities[..., 0] if intensities.ndim == 4 else intensities, ids, np.asarray(label.affine)
