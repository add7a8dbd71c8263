"""The complete state of a training run: saving, also when a signal ends the run, and resuming from it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medcontext.data.datalist import Case, data_hash
from medcontext.engines.trainer import MedContextEvents, MedContextTrainer
from medcontext.networks import (
    CheckpointWriteError,
    TokenMasking,
    find_token_masking,
    load_checkpoint,
    plain_network,
    save_checkpoint,
)

__all__ = [
    "ResumeError",
    "ResumeTraining",
    "RunFacts",
    "TrainingCheckpoint",
    "TrainingInterrupted",
    "training_states",
]

logger = logging.getLogger(__name__)

LAST_FILE, PREVIOUS_FILE = "last.pt", "previous.pt"
"""The training state, and the one that was saved before it."""


class ResumeError(ValueError):
    """A checkpoint does not match the run being resumed."""


class TrainingInterrupted(SystemExit):
    """A signal ended a run whose state is saved.

    Args:
        number: number of the signal.
        step: the last step of the state.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(128 + number)
        self.sentence = f"ended by {signal.Signals(number).name} after step {step}; resume.json resumes the run there."


class RunFacts:
    """What a resumed run must have in common with the run before: its seed, its mode and its cases.

    Args:
        seed: seed of the run.
        mode: mode of the trainer.
        cases: cases by section.
    """

    def __init__(self, seed: int, mode: str, cases: Mapping[str, Sequence[Case]]) -> None:
        self.facts: dict[str, Any] = {"seed": int(seed), "mode": str(mode)}
        self.facts |= {f"{section} cases": data_hash(listed) for section, listed in cases.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the facts, cases as a hash of their names and sizes."""
        return dict(self.facts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare the facts.

        Raises:
            ResumeError: If they differ; the message names the keys to set.
        """
        if self.facts == state:
            return
        for name in ("seed", "mode"):
            if self.facts[name] != state.get(name):
                raise ResumeError(
                    f"{name} was {state.get(name)!r} and is {self.facts[name]!r} now; resume with the overlays and "
                    f"overrides that the run was started with, or train anew under another run_name."
                )
        changed = [name for name in {**state, **self.facts} if state.get(name) != self.facts.get(name)]
        raise ResumeError(
            f"other {' and '.join(changed)} than before; resume with the same data, fold, validation_cases, "
            "train_fraction, train_cases and unlabelled scans, or train anew under another run_name."
        )


class TrainingCheckpoint:
    """Save the complete training state as ``last.pt``, and keep the one before.

    It holds the student (including the mask token of token masking), the teacher, optimizer, gradient scaler, counters,
    and ``objects``; nothing random, which follows from seed and step (:class:`~medcontext.handlers.Seeding`).

    The state is saved at the end of epochs, and before a run ends between two steps: by a signal
    (``engine.stop_signal``), or by an error such as an image that cannot be read. A signal is heeded at the end of a
    step and, in validation, of a case; a validation that is cut short is done again by the resumed run. Of several
    processes, all end after the same step.

    List it last, after the handlers that change what it saves.

    Args:
        ckpt_dir: folder of the file.
        objects: further objects to save by name, each with ``state_dict`` and ``load_state_dict``, such as the
            learning-rate scheduler and the :class:`ModelCheckpoint`; ``None`` is left out.
        interval: number of epochs between two saves; the last epoch is always saved, and one that ends training early.
        evaluators: engines that validate, which a signal interrupts.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    def __init__(
        self,
        ckpt_dir: str,
        objects: Mapping[str, Any] | None = None,
        interval: int = 1,
        evaluators: Sequence[Engine] = (),
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval must be 1 or more epochs, got {interval}.")
        self.path = Path(ckpt_dir) / LAST_FILE
        self.objects = {name: item for name, item in (objects or {}).items() if item is not None}
        self.interval = interval
        self.evaluators = tuple(evaluators)
        self._between_steps = False
        self._saved_step = 0

    def attach(self, engine: MedContextTrainer) -> None:
        """Subscribe to steps, epochs, and the end of a run that is cut short."""
        engine.add_event_handler(Events.STARTED, self.finish_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._leave)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(MedContextEvents.RUN_ABORTED, self._rescue)
        for evaluator in self.evaluators:
            evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._case_validated, engine)
            evaluator.add_event_handler(Events.COMPLETED, self._leave)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Save the state from which the next epoch starts."""
        engine.state.epoch_unfinished, self._between_steps = False, True
        asked = _stop_signal(engine)
        last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs
        if asked and not last:
            self._stop(engine, asked)
        if last or engine.state.epoch % self.interval == 0:
            self._save(engine)

    def finish_epoch(self, engine: MedContextTrainer) -> None:
        """Complete the epoch whose end was cut short, in a run that was resumed there."""
        if engine.state.epoch_unfinished:
            engine.fire_event(Events.EPOCH_COMPLETED)

    def _leave(self) -> None:
        """Note that the state is not one to resume from until further notice."""
        self._between_steps = False

    def _step_completed(self, engine: MedContextTrainer) -> None:
        self._between_steps = engine.closes_window
        if not self._between_steps:
            return
        engine.state.epoch_unfinished = engine.state.iteration % engine.state.epoch_length == 0
        asked = _stop_signal(engine)
        if asked:
            self._stop(engine, asked)

    def _case_validated(self, engine: MedContextTrainer) -> None:
        """Heed a signal, each process for itself, since they validate different numbers of cases."""
        if engine.stop_signal:
            self._save(engine)
            raise TrainingInterrupted(engine.stop_signal, engine.state.iteration)

    def _stop(self, engine: MedContextTrainer, number: int) -> None:
        self._save(engine)
        idist.barrier()  # a process that ends first would have the others killed
        raise TrainingInterrupted(number, engine.state.iteration)

    def _rescue(self, engine: MedContextTrainer) -> None:
        """Save the state of a run that an error ends between two steps."""
        if self._between_steps and isinstance(engine.state.exception, Exception):
            with contextlib.suppress(CheckpointWriteError):  # the error says more
                self._save(engine)

    def _save(self, engine: MedContextTrainer) -> None:
        if engine.state.rank > 0 or self._saved_step == engine.state.iteration:
            return
        engine.fire_event(MedContextEvents.STATE_SAVING)
        state = {name: item.state_dict() for name, item in _training_objects(engine, self.objects).items()}
        save_checkpoint(state, self.path, self.path.with_name(PREVIOUS_FILE))
        self._saved_step = engine.state.iteration


def _stop_signal(engine: MedContextTrainer) -> int:
    """Return the number of the signal that asks any of the processes to stop, 0 if there is none."""
    return int(idist.all_reduce(float(engine.stop_signal), "MAX")) if idist.get_world_size() > 1 else engine.stop_signal


class ResumeTraining:
    """Restore the training state of a :class:`TrainingCheckpoint` when training starts.

    If ``last.pt`` is damaged, the state that was saved before it is restored, with a warning.

    The learning rate follows the configuration of the resumed run: if ``max_epochs`` or ``learning_rate`` has changed,
    the schedule continues at the same step of the new curve. A finished run completes without a step, so that a job
    restarted by a scheduler ends normally.

    Args:
        path: the ``last.pt`` to resume from.
        objects: objects to restore, under the same names as in :class:`TrainingCheckpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it and the one before are damaged, or if it holds no training state, was trained with another
            epoch length, or has trained for more epochs than ``max_epochs``.
        ResumeError: If the run has another seed, mode or other cases (:class:`RunFacts`), or, once training starts, a
            saved state does not match it.
    """

    def __init__(self, path: str, objects: Mapping[str, Any] | None = None) -> None:
        self.path, self.content = _load_newest(Path(path))
        self.objects = {name: item for name, item in (objects or {}).items() if item is not None}
        if not isinstance(self.content, dict) or not {"trainer", "optimizer"} <= self.content.keys():
            raise ValueError(f"{self.path} holds weights but no training state; resume from a {LAST_FILE}.")

    def attach(self, engine: MedContextTrainer) -> None:
        """Check that the checkpoint matches, and restore it when the engine starts."""
        for name, item in self.objects.items():
            if isinstance(item, RunFacts):
                item.load_state_dict(self._saved(name))
        done, asked = self.content["trainer"]["iteration"], engine.state.max_epochs * engine.state.epoch_length
        if self.content["trainer"]["epoch_length"] != engine.state.epoch_length:
            raise ValueError(
                f"{self.path} was trained with {self.content['trainer']['epoch_length']} steps per epoch, this run has "
                f"{engine.state.epoch_length}; resume with the same data, batch_size and number of processes."
            )
        trained = f"{self.path} has already trained {done // engine.state.epoch_length} epochs"
        if done > asked:
            raise ValueError(f"{trained}; max_epochs is {engine.state.max_epochs}, raise it to continue.")
        if done == asked and not self.content["trainer"].get("epoch_unfinished"):
            logger.warning("%s, as many as max_epochs; raise it to continue.", trained)
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: MedContextTrainer) -> None:
        """Restore the training state."""
        max_epochs = engine.state.max_epochs
        schedules = {id(item): _schedule_settings(item) for item in self.objects.values() if isinstance(item, LambdaLR)}
        for name, item in _training_objects(engine, self.objects).items():
            saved = self._saved(name)
            if isinstance(item, Optimizer) and _has_other_settings(item, saved):
                raise ResumeError(
                    f"{self.path} was trained with another optimizer; resume with the overlays of that run."
                )
            try:
                item.load_state_dict(saved)
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                raise ResumeError(f"{name!r} of {self.path} does not match this run: {reason}") from error
        engine.state.max_epochs = max_epochs
        for item in self.objects.values():
            if isinstance(item, LambdaLR):
                item.__dict__.update(schedules[id(item)])
                _set_learning_rates(item)
        self.content = {}

    def _saved(self, name: str) -> Mapping[str, Any]:
        if name not in self.content:
            raise ResumeError(f"{self.path} holds no {name!r}; resume with the overlays that it was trained with.")
        state: Mapping[str, Any] = self.content[name]
        return state


def training_states(ckpt_dir: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a training run's states, the newest first: ``last.pt`` and the one before."""
    return [path for path in (Path(ckpt_dir) / LAST_FILE, Path(ckpt_dir) / PREVIOUS_FILE) if path.is_file()]


def _load_newest(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a training state and its file: the one asked for or, if it is damaged or gone, the one before."""
    previous = path.with_name(PREVIOUS_FILE)
    try:
        return path, load_checkpoint(path)
    except (FileNotFoundError, ValueError):
        if path.name != LAST_FILE or not previous.is_file():
            raise
        try:
            content = load_checkpoint(previous)
        except ValueError as error:
            raise ValueError(f"{path} and {previous} are both damaged; train again, under another run_name.") from error
    if idist.get_rank() == 0:
        logger.warning("%s is damaged or gone; the run resumes from %s, which was saved before it.", path, previous)
    return previous, content


def _training_objects(engine: MedContextTrainer, objects: Mapping[str, Any]) -> dict[str, Any]:
    stateful: dict[str, Any] = {"network": plain_network(engine.network), **objects}
    masking = find_token_masking(engine.network)
    if masking is not None:
        stateful["token_masking"] = _MaskToken(masking)
    if engine.teacher is not None:
        stateful["teacher"] = engine.teacher
    return {**stateful, "optimizer": engine.optimizer, "scaler": engine.scaler, "trainer": engine}


def _has_other_settings(optimizer: Optimizer, state: Mapping[str, Any]) -> bool:
    """Return whether a state is of an optimizer with other settings, which ``load_state_dict`` accepts all the same."""
    own, saved = (set(groups[0]) for groups in (optimizer.param_groups, state["param_groups"]))
    return bool(own - saved and saved - own)


def _schedule_settings(schedule: LambdaLR) -> dict[str, Any]:
    """Return the attributes of a schedule that the configuration sets, without its progress."""
    progress = ("last_epoch", "_step_count", "_last_lr", "lr_lambdas", "optimizer")
    return {name: value for name, value in vars(schedule).items() if name not in progress}


def _set_learning_rates(schedule: LambdaLR) -> None:
    """Set the optimizer's learning rates to those of the schedule at its current step."""
    rates = [
        base * curve(schedule.last_epoch) for base, curve in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, base, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, rates, strict=True):
        group["initial_lr"], group["lr"] = base, rate
    schedule._last_lr = rates


class _MaskToken:
    """The mask token as an object with a state."""

    def __init__(self, masking: TokenMasking) -> None:
        self.masking = masking

    def state_dict(self) -> dict[str, Any]:
        return {"mask_token": self.masking.mask_token.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.masking.mask_token.copy_(state["mask_token"])
