"""Trained networks as MLflow models without pickle: code, configuration and weights as plain files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from packaging.requirements import Requirement
from packaging.version import Version

from medcontext.labels import Labels
from medcontext.networks.model_file import MODEL_FILE, MODEL_INFO_FILE, read_settings

__all__ = ["log_model", "model_requirements", "save_model"]

FORMAT_PACKAGES = ("pydicom", "highdicom", "SimpleITK")


def log_model(client: MlflowClient, run_id: str, operation: dict[str, Any]) -> None:
    """Log a model to a run, and register it if ``operation`` names a registered model.

    Args:
        client: client of MLflow.
        run_id: id of the run that trained the model.
        operation: ``bundle_root`` and ``weights`` as for :func:`save_model`, and ``registered_model_name``. The id of
            the model is added to it, so that a second attempt completes the model of the first.
    """
    if "model_id" not in operation:
        experiment = client.get_run(run_id).info.experiment_id
        name = Path(operation["bundle_root"]).name
        operation["model_id"] = client.create_logged_model(experiment, name=name, source_run_id=run_id).model_id
    model_id = operation["model_id"]
    outputs = client.get_run(run_id).outputs
    if outputs is None or model_id not in {output.model_id for output in outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        identity = Model(
            artifact_path=client.get_logged_model(model_id).artifact_location, run_id=run_id, model_id=model_id
        )
        save_model(path, bundle_root=operation["bundle_root"], weights=operation["weights"], model=identity)
        client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    if operation["registered_model_name"]:
        _register(client, operation["registered_model_name"], model_id, run_id)


def _register(client: MlflowClient, name: str, model_id: str, run_id: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    # not models:/ID, which a database without a server resolves at MLflow's global address
    source = client.get_logged_model(model_id).artifact_location
    if not any(version.source == source for version in client.search_model_versions(f"name='{name}'")):
        client.create_model_version(name, source, run_id=run_id, model_id=model_id, await_creation_for=0)


def save_model(path: str | Path, *, bundle_root: str, weights: str, model: Model | None = None) -> None:
    """Write an MLflow model that segments as the bundle's ``inference.json`` does, with the settings of the weights.

    The package itself is included, so that the model can be loaded where it is not installed.

    Args:
        path: folder to write to.
        bundle_root: folder of the bundle, with ``configs/inference.json``.
        weights: path of ``model.pt``, beside ``model.json``.
        model: MLflow's record of the model, if it was created already.

    Raises:
        FileNotFoundError: If the bundle or the weights do not exist.
        ValueError: If there is no ``model.json`` that names the labels.
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"There are no weights {weights} to log as a model.")
    labels = read_settings(weights).get("labels")
    if labels is None:
        raise ValueError(f"{MODEL_INFO_FILE} beside {weights} does not name its labels; train again to log a model.")
    code = Path(str(importlib.util.find_spec("medcontext.tracking.pyfunc_model").origin))  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / Path(bundle_root).name
        (bundle / "configs").mkdir(parents=True)
        for name in ("inference.json", "metadata.json"):
            shutil.copy(Path(bundle_root) / "configs" / name, bundle / "configs" / name)
        (bundle / "models").mkdir()
        for name in (MODEL_FILE, MODEL_INFO_FILE):
            shutil.copy(Path(weights).with_name(name), bundle / "models" / name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example was not provided")  # an example would be a scan
            mlflow.pyfunc.save_model(
                str(path),
                python_model=str(code),
                code_paths=[str(code.parents[1])],
                artifacts={"bundle": str(bundle)},
                signature=_signature(labels),
                pip_requirements=model_requirements(bundle_root),
                mlflow_model=model,
            )
    for cache in list(Path(path).rglob("__pycache__")):
        shutil.rmtree(cache)


def _signature(labels: Labels) -> ModelSignature:
    volumes = [ColSpec("double", f"{label}_ml") for label in labels]
    return ModelSignature(
        inputs=Schema([ColSpec("string")]),  # a named column would reject the bare path of a file
        outputs=Schema([ColSpec("string", "image"), ColSpec("string", "prediction"), *volumes]),
        params=ParamSchema([ParamSpec("output_dir", "string", "predictions")]),
    )


def model_requirements(bundle_root: str) -> list[str]:
    """Return the requirements of the package in their installed versions, as pip takes them.

    If the package itself is not installed, its requirements are those in the bundle's metadata. Packages for formats
    other than NIfTI are included if they are installed. Local versions, such as PyTorch's builds for CPUs, are replaced
    by the public ones.

    Args:
        bundle_root: folder of the bundle.

    Raises:
        PackageNotFoundError: If a required package is missing.
    """
    try:
        listed = importlib.metadata.requires("medcontext") or []
    except importlib.metadata.PackageNotFoundError:
        metadata = json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text(encoding="utf-8"))
        listed = ["torch", "monai", *metadata["required_packages_version"], *FORMAT_PACKAGES]
    needed = [
        requirement.name
        for requirement in map(Requirement, listed)
        if requirement.name in FORMAT_PACKAGES
        or requirement.marker is None
        or requirement.marker.evaluate({"extra": ""})
    ]
    installed = {name: _installed_version(name) for name in needed}
    return [f"{name}=={version.public}" for name, version in installed.items() if version is not None]


def _installed_version(name: str) -> Version | None:
    """Return the version of a package, or ``None`` if it is missing and optional.

    Raises:
        PackageNotFoundError: If it is missing and required.
    """
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if name in FORMAT_PACKAGES:
            return None
        raise
