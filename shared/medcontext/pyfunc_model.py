"""A trained bundle as an MLflow model: the code that ``mlflow.pyfunc.load_model`` runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from monai.bundle import create_workflow

from medcontext.metrics import label_ids

__all__ = ["SegmentationModel"]


class SegmentationModel(PythonModel):
    """Segment volumes by the bundle's own ``inference.json``, set as the network was trained.

    Its artifacts are the ``bundle``, with ``configs/inference.json``, ``configs/model.json`` (what the training set
    otherwise) and ``labels.json``, and the ``weights``.
    """

    def load_context(self, context: Any) -> None:
        """Note where the artifacts lie."""
        self.configs = Path(context.artifacts["bundle"]) / "configs"
        self.weights = context.artifacts["weights"]
        self.labels = label_ids(json.loads((self.configs.parent / "labels.json").read_text(encoding="utf-8")))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Write the label map of each image, in its own geometry.

        Args:
            context: MLflow's; not used.
            model_input: a table whose one column holds NIfTI files; MLflow makes it of a file or a list of them too.
            params: ``output_dir``, the folder of the label maps.

        Returns:
            A table with the image, its ``prediction`` and, for every label, its volume in ml (``liver_ml``).

        Raises:
            FileNotFoundError: When an image is not there.
            ValueError: When it cannot be segmented.
        """
        output_dir = Path((params or {}).get("output_dir", "predictions"))
        output_dir.mkdir(parents=True, exist_ok=True)
        images = _images(model_input.iloc[:, 0])
        targets = [output_dir / f"{name}_seg.nii.gz" for name in _names(images)]
        for image, target in zip(images, targets, strict=True):
            self._segment(image, target)
        rows = [
            {"image": str(image), "prediction": str(target), **self._volumes(target)}
            for image, target in zip(images, targets, strict=True)
        ]
        return pd.DataFrame(rows)

    def _segment(self, image: Path, target: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                workflow = create_workflow(
                    config_file=[str(self.configs / f"{name}.json") for name in ("inference", "model")],
                    workflow_type="inference",
                    logging_file=False,
                    ckpt_path=self.weights,
                    dataset_dir=str(image),
                    output_dir=folder,
                    predictions_dir=f"{folder}/predictions",
                    num_workers=0,
                )
                workflow.run()
            except SystemExit as refusal:  # a command's way to say it, not a server's
                raise ValueError(str(refusal)) from refusal
            (written,) = Path(folder).glob("predictions/*_seg.nii.gz")
            shutil.move(written, target)

    def _volumes(self, path: Path) -> dict[str, float]:
        prediction = nib.load(path)
        voxels = np.asarray(prediction.dataobj)
        millilitres = float(np.prod(prediction.header.get_zooms()[:3])) / 1000
        counts = {name: np.isin(voxels, ids).sum() for name, ids in self.labels.items()}
        return {f"{name}_ml": float(count) * millilitres for name, count in counts.items()}


def _images(paths: Iterable[str]) -> list[Path]:
    images = [Path(path).absolute() for path in paths]
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"There is no image {missing}.")
    return images


def _names(images: list[Path]) -> list[str]:
    """A name for each image: that of its file, after its folder's where several files share one."""
    stems = [image.name.removesuffix(".gz").removesuffix(".nii") for image in images]
    names = [
        stem if stems.count(stem) == 1 else f"{image.parent.name}_{stem}"
        for image, stem in zip(images, stems, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ValueError("Two images have the same name and folder name; predict them in calls of their own.")
    return names


set_model(SegmentationModel())
