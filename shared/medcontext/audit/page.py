"""The page of an audit: every unusual case with its picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcontext.audit.dataset import read_case
from medcontext.audit.findings import Finding
from medcontext.data.datalist import Case, case_name
from medcontext.report import prediction_figure
from medcontext.report.page import data_uri, png, render
from medcontext.storage.files import write_file
from medcontext.storage.tables import csv_bytes

__all__ = ["write_audit"]

PAGE = "audit.html"
MOST_PICTURES = 50


def write_audit(
    findings: Sequence[Finding], cases: Sequence[Case], labels: Mapping[str, int], output_dir: str | os.PathLike[str]
) -> Path:
    """Write findings as a page with pictures, ``audit.html``, and as a table, ``audit.csv``.

    Args:
        findings: from :func:`~medcontext.audit.audit_cases`.
        cases: the cases that were audited.
        labels: as for :func:`~medcontext.audit.audit_cases`.
        output_dir: folder of both files; made if it does not exist.

    Returns:
        The path of the page. The 50 cases with the most findings are shown.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(findings, columns=Finding._fields)
    written = table.assign(labels=table["labels"].map("; ".join))
    write_file(output / "audit.csv", csv_bytes(written))
    counts = table["case"].value_counts(sort=True)
    by_name = {case_name(case): case for case in cases if "label" in case}
    shown = [_shown(by_name[name], labels, findings) for name in counts.index[:MOST_PICTURES]]
    page = render("audit.html.j2", cases=shown, unusual=len(counts), audited=len(by_name))
    write_file(output / PAGE, page.encode())
    return output / PAGE


def _shown(case: Case, labels: Mapping[str, int], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what the page shows of a case: its findings, and a picture of the structures that they are about."""
    name = case_name(case)
    found = [finding for finding in findings if finding.case == name]
    image, label, affine = read_case(case)
    unusual = {structure: labels[structure] for finding in found for structure in finding.labels}
    shown = (
        unusual if all(finding.labels for finding in found) and np.isin(label, list(unusual.values())).any() else labels
    )
    spacing = [float(size) for size in np.linalg.norm(affine[:3, :3], axis=0)]
    picture = png(
        prediction_figure(
            image, np.where(np.isin(label, list(shown.values())), label, 0), shown, spacing=spacing, margin=None
        )
    )
    return {"name": name, "texts": [finding.text for finding in found], "picture": data_uri(picture)}
