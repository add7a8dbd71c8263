"""The files of a ranking: a table, a page with pictures, and a list for annotation tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medcontext.ranking.order import RankedScan
from medcontext.ranking.trained import TrainedNetwork
from medcontext.report import prediction_figure
from medcontext.report.page import data_uri, png, render
from medcontext.report.planes import ras_spacing, to_ras
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text
from medcontext.storage.tables import csv_bytes

__all__ = ["write_ranking"]

PAGE = "ranking.html"
PICTURES = 10
EVIDENCE = "In our trial on the hippocampus, ranked scans taught a network no more than random ones did."


def write_ranking(
    ranked: Sequence[RankedScan],
    trained: TrainedNetwork,
    output_dir: str | os.PathLike[str],
    *,
    labeled: int,
    left_out: int = 0,
) -> Path:
    """Write ``ranking.csv``, ``ranking.json`` for annotation tools, and ``ranking.html`` with ten pictures.

    The JSON has under ``scans``, by rank, the ``id`` of each scan, the name of its file without ending as MONAI Label
    uses it, its ``image``, a path or several, ``rank`` and ``score``.

    Args:
        ranked: scans by rank, from :func:`~medcontext.ranking.order_scans`.
        trained: the network, whose predictions are drawn.
        output_dir: folder of the files; made if it does not exist.
        labeled: number of labelled scans that they were compared with.
        left_out: number of scans that are not ranked because they are labelled.

    Returns:
        The path of the page.
    """
    output = Path(output_dir)
    rows = [_row(scan) for scan in ranked]
    write_file(output / "ranking.csv", csv_bytes(pd.DataFrame(rows)))
    listed = [{"id": row["case"], **{key: row[key] for key in ("image", "rank", "score")}} for row in rows]
    content = {"weights": str(trained.path.absolute()), "labeled": labeled, "scans": listed}
    write_file(output / "ranking.json", json_text(content).encode())
    shown = [{**row, "picture": _picture(trained, scan)} for row, scan in zip(rows, ranked[:PICTURES], strict=False)]
    page = render("ranking.html.j2", scans=rows, shown=shown, labeled=labeled, left_out=left_out, evidence=EVIDENCE)
    return write_file(output / PAGE, page.encode())


def _row(scan: RankedScan) -> dict[str, Any]:
    return {
        "rank": scan.rank,
        "case": scan.case["case"],
        "score": scan.score,
        "disagreement": scan.disagreement,
        "distance": scan.distance,
        "image": scan.case["image"],
    }


def _picture(trained: TrainedNetwork, scan: RankedScan) -> str:
    """Return a scan with the outlines of its prediction, as the network sees it."""
    image = trained.load(scan.case)
    label = trained.predict(image).argmax(1)[0].cpu().numpy()
    orientation = str(trained.settings["orientation"])
    figure = prediction_figure(
        to_ras(image[0, 0].cpu().numpy(), orientation),
        to_ras(label, orientation),
        trained.settings["labels"],
        spacing=ras_spacing(trained.settings["spacing"], orientation),
        margin=None,
    )
    return data_uri(png(figure))
