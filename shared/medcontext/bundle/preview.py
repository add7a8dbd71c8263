"""Picture of the crops that a configuration trains on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data.utils import set_rnd
from monai.utils import set_determinism

from medcontext.bundle.checks import check_configuration
from medcontext.bundle.workflow import open_workflow
from medcontext.data import case_name
from medcontext.keys import MedContextKeys
from medcontext.networks import load_weights
from medcontext.networks.model_file import MODEL_FILE, TEACHER_FILE
from medcontext.report import preview_figure

__all__ = ["draw_preview"]


def draw_preview(
    config_file: str | Sequence[str],
    output: str,
    *,
    num_cases: int = 4,
    ckpt_dir: str | None = None,
    plane: str = "axial",
    **override: Any,
) -> str:
    """Draw crops as in training, but all of them masked, regardless of ``masked_share``.

    Args:
        config_file: ``train.json`` of a bundle, with overlays as for training.
        output: path of the PNG to write.
        num_cases: number of training cases to draw, one crop of each.
        ckpt_dir: folder with ``model.pt`` and ``teacher.pt``, to draw their predictions too.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        override: values of configuration keys, as for training.

    Returns:
        ``output``.

    Raises:
        SystemExit: If the configuration or its data are invalid; the message is one sentence.
        ValueError: If the configuration drops nothing.
    """
    workflow = open_workflow(config_file, **{"masked_share": 1.0, **override})
    check_configuration(workflow)
    for name in ("cases", "labels", "spacing", "orientation", "seed", "device"):
        if name not in workflow.properties:
            workflow.add_property(name, "True", name)
    transform = workflow.train_preprocessing
    set_determinism(workflow.seed)
    set_rnd(transform, workflow.seed)
    crops = [_first_crop(transform(case)) for case in workflow.cases["training"][:num_cases]]
    if ckpt_dir is not None:
        _predict(workflow, crops, Path(ckpt_dir))
    figure = preview_figure(
        crops,
        workflow.labels,
        spacing=workflow.spacing,
        orientation=workflow.orientation,
        plane=plane,
        titles=[case_name(case) for case in workflow.cases["training"][:num_cases]],
    )
    figure.savefig(output)
    return output


def _first_crop(crops: Any) -> dict[str, Any]:
    crop: dict[str, Any] = crops[0] if isinstance(crops, list) else crops
    if MedContextKeys.CONTEXT_MASK not in crop:
        raise ValueError("This configuration drops nothing; preview it without baseline.json.")
    return crop


@torch.no_grad()
def _predict(workflow: Any, crops: list[dict[str, Any]], ckpt_dir: Path) -> None:
    network = workflow.network_def.to(workflow.device).eval()
    for file, source, target in (
        (MODEL_FILE, MedContextKeys.MASKED_IMAGE, MedContextKeys.MASKED_PRED),
        (TEACHER_FILE, MedContextKeys.MASKED_IMAGE, MedContextKeys.TEACHER_PRED),
    ):
        if file == TEACHER_FILE and not (ckpt_dir / file).is_file():
            continue  # controls of an earlier version have no teacher
        load_weights(network, ckpt_dir / file)
        for crop in crops:
            crop[target] = network(crop[source][None].to(workflow.device))[0].cpu()
