"""Let nnU-Net make a label map of logits, and print what it took; run by nnU-Net's Python for ``prediction_costs.py``.

python ci/nnunet_export.py FOLDER X Y Z     of FOLDER/logits.npy at the spacing X × Y × Z mm, for FOLDER/scan.nii.gz
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

PLANS: dict[str, Any] = {
    "plans_name": "plans",
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
}
PROBABILITIES = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
"""What nnU-Net plans by itself for resampling a network's output."""


def export(folder: Path, spacing: list[float]) -> None:
    """Write ``FOLDER/nnunet.nii.gz``."""
    scan, properties = SimpleITKIO().read_images([str(folder / "scan.nii.gz")])
    shape = scan.shape[1:]
    logits = np.load(folder / "logits.npy").transpose(0, 3, 2, 1)  # ITK's arrays are slices, rows, columns
    properties |= {
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, voxels] for voxels in shape],
    }
    configuration = {
        "spacing": spacing[::-1],
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": PROBABILITIES,
        "architecture": {},
    }
    plans = PlansManager({**PLANS, "configurations": {"3d": configuration}})
    names = ["background", *(f"label {index}" for index in range(1, len(logits)))]
    dataset = {"labels": {name: index for index, name in enumerate(names)}, "file_ending": ".nii.gz"}
    export_prediction_from_logits(
        logits, properties, plans.get_configuration("3d"), plans, dataset, str(folder / "nnunet"), num_threads_torch=1
    )


def main() -> None:
    """Export, and print the seconds as JSON."""
    torch.set_num_threads(1)
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    export(Path(sys.argv[1]), [float(value) for value in sys.argv[2:5]])
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"processor_s": used, "clock_s": time.perf_counter() - clock}))


if __name__ == "__main__":
    main()
