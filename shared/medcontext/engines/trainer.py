"""The MedContext training step on MONAI's supervised trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

import torch
from ignite.engine import EventEnum
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer, default_prepare_batch
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcontext.keys import MedContextKeys
from medcontext.losses import MedContextLoss, full_resolution
from medcontext.networks import TokenMasking, plain_network

__all__ = ["MedContextEvents", "MedContextTrainer", "TrainingMode"]


class TrainingMode(StrEnum):
    """What a step consists of.

    ``medcontext`` is the method; ``baseline`` is plain supervised training and ``masking_only`` plain training on the
    masked image, the two controls.
    """

    MEDCONTEXT = "medcontext"
    BASELINE = "baseline"
    MASKING_ONLY = "masking_only"
    PATCH_DROPOUT = "patch_dropout"
    PSEUDO_LABELS = "pseudo_labels"
    MEDCONTEXT_UNLABELED = "medcontext_unlabeled"


class MedContextEvents(EventEnum):
    """Events beside ignite's and MONAI's.

    ``OPTIMIZER_STEPPED`` fires after the optimizer, so once per accumulation window. ``RUN_ABORTED`` fires when
    an exception, ``KeyboardInterrupt`` included, ends a run; it stands in ``engine.state.exception``.
    """

    OPTIMIZER_STEPPED = "optimizer_stepped"
    RUN_ABORTED = "run_aborted"


class MedContextTrainer(SupervisedTrainer):
    """Train a network to segment and, from the same labels, to reconstruct what was dropped from its input.

    One step segments the whole image, segments the masked image against the full label, and holds the latter to the
    teacher's view of the whole image. By default the supervised pass is back-propagated before the masked pass
    starts, so only one graph is alive and peak memory stays near that of plain training; the gradients are those of
    the summed loss. With ``batched=True`` both images go through the network in one batch, which is faster where
    small batches leave the device idle; networks with batch normalisation then share their statistics between the
    two, which separate passes do not.

    ``engine.state.output`` holds ``image``, ``label``, ``pred``, the scalar ``loss`` and the unweighted terms of
    :class:`~medcontext.losses.MedContextLoss` by name, with ``masked_fraction`` and, in the mode ``medcontext``,
    ``masked_pred`` and ``teacher_pred``.

    Args:
        network: the student, plain or wrapped in DDP or :class:`~medcontext.networks.TokenMasking`. Token masking
            makes the masked pass see the whole image with the tokens under ``context_mask`` replaced.
        loss_function: the objective.
        teacher: the slowly moving copy, updated by :class:`~medcontext.handlers.TeacherUpdate`. ``None`` leaves the
            consistency term out; ``baseline`` and ``masking_only`` never use it.
        mode: one of :class:`TrainingMode`.
        batched: run the two student passes as one batch.
        max_grad_norm: clip the norm of all gradients to this before each step; ``None`` does not clip.
        kwargs: all else that MONAI's ``SupervisedTrainer`` takes. With ``amp`` the forward passes run under
            ``torch.autocast`` on the trainer's device, with gradient scaling where the device is CUDA.

    Raises:
        ValueError: When ``mode`` is unknown, ``max_grad_norm`` is not above 0, or the step cannot do what is asked.
        TypeError: When ``loss_function`` is no ``MedContextLoss``.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725).
    """

    loss_function: MedContextLoss

    def __init__(
        self,
        *,
        network: nn.Module,
        loss_function: MedContextLoss,
        teacher: nn.Module | None = None,
        mode: str = TrainingMode.MEDCONTEXT,
        batched: bool = False,
        max_grad_norm: float | None = None,
        prepare_batch: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if mode not in list(TrainingMode):
            raise ValueError(f"mode must be one of {[str(m) for m in TrainingMode]}, got {mode!r}.")
        if not isinstance(loss_function, MedContextLoss):
            raise TypeError(f"loss_function must be a MedContextLoss, got {type(loss_function).__name__}.")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {max_grad_norm}; use None not to clip.")
        if prepare_batch is None:
            keys = [MedContextKeys.MASKED_IMAGE, MedContextKeys.CONTEXT_MASK]
            prepare_batch = default_prepare_batch if mode == TrainingMode.BASELINE else PrepareBatchExtraInput(keys)
        # handlers are attached inside MONAI's constructor and look at these
        self.mode = TrainingMode(mode)
        self.teacher = teacher
        self.batched = batched
        self.max_grad_norm = max_grad_norm
        super().__init__(
            network=network,
            loss_function=loss_function,
            prepare_batch=prepare_batch,
            event_names=[*(kwargs.pop("event_names", None) or []), MedContextEvents],
            **kwargs,
        )
        device = self.state.device.type
        half = self.amp and self.amp_kwargs.get("dtype", torch.float16) is torch.float16
        self._masks_tokens = any(isinstance(module, TokenMasking) for module in network.modules())
        self.scaler = torch.amp.GradScaler(device, enabled=half and device == "cuda")

    def run(self) -> None:
        """Train, keeping the gradient scaler that a checkpoint restored, and tell handlers if the run is cut short."""
        try:
            Workflow.run(self)
        except BaseException as error:
            self.state.exception = error
            self.fire_event(MedContextEvents.RUN_ABORTED)
            raise

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Run the passes of one batch and, at the end of an accumulation window, step the optimizer."""
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        image, label, masked_image, context_mask = self._unpack(batchdata)
        first, last = self._accumulation_window()
        self.network.train()
        if first:
            self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        output: dict[str, Any] = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
        self.state.output = output
        if context_mask is not None:
            output[MedContextKeys.MASKED_FRACTION] = context_mask.float().mean()
        if self.mode is not TrainingMode.MEDCONTEXT:
            self._single_pass(output, image if masked_image is None else masked_image, label, sync=last)
        elif self.batched:
            self._batched_passes(output, image, label, masked_image, context_mask, sync=last)
        else:
            self._separate_passes(output, image, label, masked_image, context_mask, sync=last)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            self._optimizer_step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _unpack(self, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The batch as plain tensors on the device; MetaTensor would tax every operation of the network."""
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        image, label = batch[:2]
        extra: Sequence[Any] = batch[2] if len(batch) > 2 else ()
        masked_image, context_mask = extra if extra else (None, None)
        return _plain(image), _plain(label), _plain(masked_image), _plain(context_mask)

    def _accumulation_window(self) -> tuple[bool, bool]:
        """Whether this iteration opens and whether it closes a window; the end of an epoch closes one too."""
        steps, length = self.accumulation_steps, self.state.epoch_length
        position = self.state.iteration - 1 if length is None else (self.state.iteration - 1) % length
        return position % steps == 0, (position + 1) % steps == 0 or position + 1 == length

    def _single_pass(self, output: dict[str, Any], image: Tensor, label: Tensor, *, sync: bool) -> None:
        with self._gradient_sync(sync):
            with self._autocast():
                pred = self.inferer(image, self.network)
                loss = self.loss_function.supervised(pred, label)
            self._backward(loss)
        output[CommonKeys.PRED] = _detached(pred)
        output[CommonKeys.LOSS] = output[MedContextKeys.LOSS_SUPERVISED] = loss.detach()

    def _separate_passes(
        self, output: dict[str, Any], image: Tensor, label: Tensor, masked_image: Any, context_mask: Any, *, sync: bool
    ) -> None:
        self._single_pass(output, image, label, sync=False)
        teacher_pred = self._teach(image)
        with self._gradient_sync(sync):
            with self._autocast():
                if self._masks_tokens:
                    masked_pred = self.inferer(image, self.network, context_mask)
                else:
                    masked_pred = self.inferer(masked_image, self.network)
                terms = self.loss_function.context_terms(masked_pred, label, teacher_pred, context_mask)
                loss = self.loss_function.weighted(terms)
            self._backward(loss)
        self._record(output, terms, masked_pred, teacher_pred)
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + loss.detach()

    def _batched_passes(
        self, output: dict[str, Any], image: Tensor, label: Tensor, masked_image: Any, context_mask: Any, *, sync: bool
    ) -> None:
        teacher_pred = self._teach(image)
        with self._gradient_sync(sync):
            with self._autocast():
                if self._masks_tokens:
                    masks = torch.cat([torch.zeros_like(context_mask), context_mask])
                    both = self.inferer(torch.cat([image, image]), self.network, masks)
                else:
                    both = self.inferer(torch.cat([image, masked_image]), self.network)
                pred, masked_pred = _halves(both)
                terms = self.loss_function(pred, label, masked_pred, teacher_pred, context_mask)
                loss = terms.pop(CommonKeys.LOSS)
            self._backward(loss)
        output[CommonKeys.PRED] = _detached(pred)
        self._record(output, terms, masked_pred, teacher_pred)
        output[CommonKeys.LOSS] = loss.detach()

    def _teach(self, image: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with torch.no_grad(), self._autocast():
            prediction: Tensor = full_resolution(self.inferer(image, self.teacher.eval()))
        return prediction

    def _record(self, output: dict[str, Any], terms: dict[str, Tensor], masked_pred: Any, teacher_pred: Any) -> None:
        output.update({name: term.detach() for name, term in terms.items()})
        output[MedContextKeys.MASKED_PRED] = _detached(masked_pred)
        if teacher_pred is not None:
            output[MedContextKeys.TEACHER_PRED] = teacher_pred

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)

    def _gradient_sync(self, sync: bool) -> AbstractContextManager[None]:
        """Between processes only the last backward pass of a step exchanges gradients; they add up until then."""
        if isinstance(self.network, nn.parallel.DistributedDataParallel) and not sync:
            return self.network.no_sync()
        return nullcontext()

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.accumulation_steps).backward()

    def _optimizer_step(self) -> None:
        if self.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.fire_event(MedContextEvents.OPTIMIZER_STEPPED)

    def optimizer_step_index(self) -> int:
        """Number of the optimizer step that this iteration belongs to, from 0, for schedules that follow steps."""
        epochs, iterations = divmod(self.state.iteration - 1, int(self.state.epoch_length))
        return epochs * self._optimizer_steps_per_epoch() + iterations // self.accumulation_steps

    def total_optimizer_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._optimizer_steps_per_epoch() * int(self.state.max_epochs)

    def _optimizer_steps_per_epoch(self) -> int:
        return -(-int(self.state.epoch_length) // self.accumulation_steps)

    @property
    def student(self) -> nn.Module:
        """The plain network that is evaluated and saved."""
        return plain_network(self.network)


def _plain(value: Any) -> Any:
    return value.as_tensor() if hasattr(value, "as_tensor") else value


def _detached(prediction: Any) -> Tensor:
    return full_resolution(prediction).detach()


def _halves(both: Tensor | Sequence[Tensor]) -> tuple[Any, Any]:
    if isinstance(both, Tensor):
        return tuple(both.chunk(2))  # type: ignore[return-value]
    pairs: Iterator[Any] = zip(*(output.chunk(2) for output in both), strict=True)
    return tuple(list(part) for part in pairs)  # type: ignore[return-value]
