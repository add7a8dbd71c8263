"""The final weights, where prediction finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ignite.engine import Engine, Events

from medcontext.networks import CheckpointWriteError
from medcontext.networks.model_file import MODEL_FILE, STUDENT_FILE, TEACHER_FILE, read_model_file
from medcontext.networks.weights import write_model_file
from medcontext.storage.files import whole_file

__all__ = ["InstalledModel"]


class InstalledModel:
    """Copy the final weights and their ``model.json`` to another folder when training has finished.

    The folder may be that of a bundle, from which ``inference.json`` and programs such as MONAI Label predict. Its
    earlier weights are replaced; a run that is stopped leaves them as they are. Attach it to the trainer, after a
    :class:`~medcontext.handlers.FinalModel`.

    Args:
        ckpt_dir: folder of the run's weights.
        install_dir: folder that gets the copy; created if it does not exist.
    """

    def __init__(self, ckpt_dir: str, install_dir: str) -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.install_dir = Path(install_dir)

    def attach(self, engine: Engine) -> None:
        """Subscribe to the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Copy the files.

        Raises:
            CheckpointWriteError: If one cannot be written.
        """
        target = self.install_dir / MODEL_FILE
        content = read_model_file(self.ckpt_dir / MODEL_FILE)
        write_model_file(target, {**content, "sha256_before": read_model_file(target).get("sha256")})
        for name in (MODEL_FILE, STUDENT_FILE, TEACHER_FILE):
            self._copy(name)

    def _copy(self, name: str) -> None:
        source, target = self.ckpt_dir / name, self.install_dir / name
        if not source.is_file():
            target.unlink(missing_ok=True)
            return
        try:
            with source.open("rb") as content, whole_file(target) as stream:
                shutil.copyfileobj(content, stream)
        except OSError as error:
            raise CheckpointWriteError(target, error) from error
