"""Downloading a task of the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["download_task"]


def download_task(task: str, folder: str | os.PathLike[str]) -> Path:
    """Download a task's archive unless it exists, and check its hash.

    Args:
        task: the task's name, such as ``Task04_Hippocampus`` (27 MB) or ``Task01_BrainTumour`` (7 GB).
        folder: folder to download the archive to.

    Returns:
        Path of the archive.

    Raises:
        OSError: If it cannot be downloaded.
        ValueError: If its checksum is not the published one.
    """
    from monai.apps import DecathlonDataset, download_url  # takes seconds to import, and only a download needs it
    from monai.apps.utils import HashCheckError

    archive = Path(folder) / f"{task}.tar"
    try:
        download_url(DecathlonDataset.resource[task], archive, DecathlonDataset.md5[task], "md5")
    except HashCheckError as error:
        raise ValueError(
            f"{archive} is not the published archive (its checksum differs); remove it, and try again."
        ) from error
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{archive.name} could not be downloaded ({error}); get it elsewhere and give it as the source."
        ) from error
    if not archive.is_file():
        raise OSError(f"{archive} could not be written; give another folder as the source.")
    return archive
