"""The command that chooses scans to label."""

from __future__ import annotations

from medcontext.text import printable

__all__ = ["rank"]


def rank(
    ckpt_dir: str,
    images: str,
    labeled: str | None = None,
    output_dir: str = "ranking",
    device: str | None = None,
) -> None:
    """Rank scans without labels by what labelling them is expected to be worth.

    First come scans in which the network and its moving average disagree, also where parts of organs are dropped, and
    that differ from the labelled scans and from each other. Ranked scans have not been shown to teach a network more
    than random ones do.

    Args:
        ckpt_dir: folder of ``model.pt`` and ``model.json`` of a network trained on what is labelled so far.
        images: the scans: a folder, a pattern, a folder of DICOM series, or a folder with a ``dataset.json``, of which
            the unlabelled scans are ranked.
        labeled: folder with the ``dataset.json`` of the labelled scans, or of their images; without it, distance from
            labelled scans does not count.
        output_dir: folder for ``ranking.html``, ``ranking.csv`` and ``ranking.json``, the list for annotation tools.
        device: device to compute on, such as ``cpu``; the GPU by default, if there is one.
    """
    from medcontext.bundle.errors import MISTAKES, STOPS, one_sentence
    from medcontext.ranking.rank import rank_folder

    with one_sentence(kinds=MISTAKES + STOPS):
        ranked, page = rank_folder(ckpt_dir, images, labeled, output_dir, device)
    for scan in ranked[:10]:
        print(printable(f"{scan.rank:>3}  {scan.case['case']}  score {scan.score:.3f}"))
    print(page)
