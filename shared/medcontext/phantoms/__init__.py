"""Generated cohorts in the layouts of real datasets."""

from __future__ import annotations

from medcontext.phantoms.acdc import make_acdc_phantom
from medcontext.phantoms.brats import make_brats_phantom
from medcontext.phantoms.btcv import make_btcv_phantom
from medcontext.phantoms.cohort import write_phantoms
from medcontext.phantoms.hippocampus import make_hippocampus_phantom
from medcontext.phantoms.sketch import Phantom

__all__ = [
    "Phantom",
    "make_acdc_phantom",
    "make_brats_phantom",
    "make_btcv_phantom",
    "make_hippocampus_phantom",
    "write_phantoms",
]
