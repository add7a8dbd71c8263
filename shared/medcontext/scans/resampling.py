"""Resampling of scans beside whatever else a program keeps of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd

__all__ = ["SpacingScand"]


class SpacingScand(Spacingd):
    """MONAI's ``Spacingd`` that only sees the scans.

    MONAI's own takes everything under a key such as ``image_path`` for metadata of ``image``, and fails where it is
    something else, such as the path that MONAI Label keeps there.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return ``data`` with resampled scans."""
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(data)}, lazy)}
