"""Trained bundles as MLflow models: the code that ``mlflow.pyfunc.load_model`` runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from monai.bundle import create_workflow

from medcontext.literals import as_literal

__all__ = ["SegmentationModel"]


class SegmentationModel(PythonModel):
    """Segment volumes by the bundle's own ``inference.json``, with the settings of the training run.

    Its artifact is the ``bundle``, with ``configs/inference.json``, and in ``models`` the weights and ``model.json``,
    the settings that they need.
    """

    def load_context(self, context: Any) -> None:
        """Store the path of the configuration."""
        self.configs = Path(context.artifacts["bundle"]) / "configs"

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Write the label map of each image, in its own geometry, with a summary as JSON beside it.

        Args:
            context: MLflow's context; not used.
            model_input: table whose only column holds inputs of ``inference.json``: NIfTI files, or folders of DICOM
                series. MLflow also makes it from a path or a list of paths.
            params: ``output_dir``, the folder of the label maps.

        Returns:
            A table with each image, its ``prediction`` and, for every label, its volume in ml (``liver_ml``).

        Raises:
            MlflowException: If an image does not exist or cannot be segmented, or ``output_dir`` holds predictions of
                another image of the same name. A server answers with its message.
        """
        output_dir = Path((params or {}).get("output_dir", "predictions"))
        try:
            cases = self._segment(list(model_input.iloc[:, 0]), output_dir)
        except SystemExit as error:  # it ends a command, but must not end a server
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame([_row(output_dir, case["case"]) for case in cases])

    def _segment(self, images: list[str], output_dir: Path) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            workflow = create_workflow(
                config_file=str(self.configs / "inference.json"),
                workflow_type="inference",
                logging_file=False,
                dataset_dir=as_literal(images),
                output_dir=as_literal(folder),
                predictions_dir=as_literal(str(output_dir)),
                save_overlay=False,
                num_workers=0,
            )
            workflow.run()
            cases: list[dict[str, Any]] = workflow.parser.get_parsed_content("cases")
        return cases


def _row(folder: Path, case: str) -> dict[str, Any]:
    summary = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
    volumes = {f"{label}_ml": entry["volume_ml"] for label, entry in summary["labels"].items()}
    return {"image": summary["image"], "prediction": str(folder / f"{case}_seg.nii.gz"), **volumes}


set_model(SegmentationModel())
