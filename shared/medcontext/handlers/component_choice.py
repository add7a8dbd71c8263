"""Choice of postprocessing at the end of a training run, on its validation cases."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.utils import CommonKeys, ImageMetaKey, convert_to_tensor
from torch import nn

from medcontext.handlers.checkpoints import ModelCheckpoint
from medcontext.labels import Labels
from medcontext.metrics import choose_components, component_counts
from medcontext.networks import CheckpointWriteError, load_weights, plain_network
from medcontext.networks.model_file import MODEL_FILE, read_model_file
from medcontext.networks.weights import write_model_file
from medcontext.storage.files import write_file
from medcontext.storage.tables import csv_bytes

__all__ = ["COMPONENTS_FILE", "ComponentChoice"]

logger = logging.getLogger(__name__)

COMPONENTS_FILE = "components.csv"
"""File beside the checkpoints with the counts of voxels that decided."""


class ComponentChoice:
    """Find the labels whose Dice rises if only the largest connected component of their prediction is kept.

    At the end of training, the weights in ``model.pt`` segment the validation cases. ``model.json`` then records the
    labels that gain, with the mean Dice of each with and without, and ``components.csv`` the counts of voxels by case.
    Attach it to the trainer, after the :class:`~medcontext.handlers.FinalModel`.

    Args:
        checkpoint: the checkpoint that saves ``model.pt``.
        evaluator: engine that evaluates any network on the validation cases, with one-hot ``pred`` and label maps.
        labels: names with their ids.
        reported: labels and regions that must not lose.
        unannotated: what values below -1 of a label map stand for, from :func:`medcontext.data.unannotated_labels`.
    """

    def __init__(
        self,
        checkpoint: ModelCheckpoint,
        evaluator: Evaluator,
        labels: Labels,
        reported: Labels,
        unannotated: Sequence[Sequence[int]] = (),
    ) -> None:
        self.path = checkpoint.ckpt_dir / MODEL_FILE
        self.evaluator = evaluator
        self.labels = labels
        self.reported = reported
        self.unannotated = unannotated
        self._cases: dict[str, list[dict[str, Any]]] = {}

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Segment the validation cases, choose, and write the choice in the first process."""
        self._cases.clear()
        network, self.evaluator.network = self.evaluator.network, self._saved_network(engine.network)
        try:
            with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.count):
                self.evaluator.run()
        finally:
            self.evaluator.network = network
        shares: Any = idist.all_gather(self._cases) if idist.get_world_size() > 1 else [self._cases]
        cases = {name: rows for share in shares for name, rows in share.items()}
        if idist.get_rank() == 0 and any(cases.values()):
            self._write(pd.DataFrame([{"case": name, **row} for name, rows in cases.items() for row in rows]))

    def count(self, engine: Engine) -> None:
        """Count the voxels of the cases of one iteration."""
        for item in engine.state.output:
            name = _label_file(item[CommonKeys.LABEL]) or f"case_{len(self._cases)}_{idist.get_rank()}"
            prediction, label = (
                convert_to_tensor(item[key], track_meta=False) for key in (CommonKeys.PRED, CommonKeys.LABEL)
            )
            self._cases[name] = component_counts(prediction, label, self.labels, self.reported, self.unannotated)

    def _saved_network(self, network: nn.Module) -> nn.Module:
        """Return a network with the weights in ``model.pt``, which only the first process can be sure to read."""
        saved: nn.Module = copy.deepcopy(plain_network(network))
        if idist.get_rank() == 0:
            load_weights(saved, self.path)
        if idist.get_world_size() > 1:
            saved.load_state_dict({name: idist.broadcast(value, src=0) for name, value in saved.state_dict().items()})
        return saved

    def _write(self, counts: pd.DataFrame) -> None:
        evidence, file = choose_components(counts), self.path.with_name(COMPONENTS_FILE)
        try:
            write_file(file, csv_bytes(counts))
        except OSError as error:
            raise CheckpointWriteError(file, error) from error
        write_model_file(self.path, {**read_model_file(self.path), "postprocessing": asdict(evidence)})
        logger.info(evidence.sentence)


def _label_file(label: torch.Tensor) -> str:
    """Return the path of the file that a label was read from, ``""`` if it is unknown."""
    return str(getattr(label, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, ""))
