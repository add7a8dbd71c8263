"""What a header claims, against its file and this machine's memory, before any of it is read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from medcontext.scans.geometry import Array, lengths_text, voxel_sizes
from medcontext.scans.headers import VolumeHeader
from medcontext.storage.parts import parts_of

__all__ = ["available_memory", "memory_problem", "size_problem"]

GIB = 1 << 30
_MOST_COMPRESSED = 1100
"""Bytes that one byte of gzip can become, 1032, and some more for tolerance."""
_SMALLEST = 4096
_RESAMPLING = 32.0
"""Bytes of a voxel's coordinates and value while MONAI resamples."""

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of a container's memory, in both versions of Linux's control groups."""


def size_problem(path: str, header: VolumeHeader) -> str | None:
    """Return that a file is too small for the voxels that its header claims, as a clause, ``None`` if it is not.

    Args:
        path: file of the volume.
        header: its header.
    """
    stored = sum(part.stat().st_size for part in parts_of(path))
    if header.bytes <= _MOST_COMPRESSED * stored + _SMALLEST:
        return None
    return (
        f"claims {lengths_text(header.shape)} voxels, {header.bytes / GIB:.3g} GiB, which a file of {stored} bytes "
        "cannot hold; get it again"
    )


def memory_problem(
    shape: Sequence[int], affine: Array, spacing: Sequence[float], orientation: str, channels: int
) -> str | None:
    """Return that this machine has too little memory for a volume at another spacing, ``None`` if it may have enough.

    One channel of the volume is needed and, at the network's spacing, what the network returns or, before that, what
    MONAI resamples with: coordinates and values in double precision. What else is needed is left out, so that nothing
    is refused that could be processed.

    Args:
        shape: number of voxels along each axis.
        affine: affine (4, 4) in mm.
        spacing: voxel sizes to resample to, in mm, along the axes that ``orientation`` names.
        orientation: ends that these axes run towards, such as ``"RAS"``.
        channels: channels that are held in single precision.
    """
    sizes, voxels = voxel_sizes(affine), float(np.prod([float(size) for size in shape[:3]]))
    extents = np.empty(3)
    extents[nib.io_orientation(affine)[:, 0].astype(int)] = np.asarray(shape[:3], dtype=float) * sizes
    places = nib.orientations.axcodes2ornt(orientation)[:, 0].astype(int)
    resampled = float(np.prod(np.maximum(extents[places] / np.asarray(spacing, dtype=float), 1)))
    needed = 4.0 * voxels + max(4.0 * channels, _RESAMPLING) * resampled
    available = available_memory()
    if needed <= available:
        return None
    return (
        f"has {lengths_text(shape[:3])} voxels of {lengths_text(sizes)} mm, for which spacing {lengths_text(spacing)} "
        f"mm needs more than {needed / GIB:.3g} GiB of memory, and {available / GIB:.3g} GiB are free; correct its "
        "header, or crop or resample it first"
    )


def available_memory() -> float:
    """Return the bytes of memory that this process can still use, by the machine and by its container's limit."""
    free = [float(psutil.virtual_memory().available)]
    for limit, used in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no container, or "max"
            free.append(float(Path(limit).read_text()) - float(Path(used).read_text()))
    return min(free)
