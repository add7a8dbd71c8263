"""The MedContext training step on MONAI's supervised trainer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from ignite.engine import EventEnum
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcontext.checks import check_above_zero, check_choice
from medcontext.keys import MedContextKeys
from medcontext.losses import MedContextLoss, full_resolution, sample_index, select_samples
from medcontext.networks import TokenMasking, plain_network

__all__ = ["Batch", "MedContextEvents", "MedContextTrainer", "TrainingMode", "TrainingPasses"]


class TrainingMode(StrEnum):
    """What a training run learns from, starting with the plain control.

    ``baseline`` is plain supervised training. ``patch_dropout`` and ``masking_only`` also train on masked crops, with
    patches dropped anywhere or with organs dropped, and use no teacher. ``medcontext`` is the method. The last two add
    unlabelled scans: ``pseudo_labels`` learns the teacher's labels of whole crops, ``medcontext_unlabeled`` those of
    crops from which the organs that the teacher finds were dropped.
    """

    BASELINE = "baseline"
    PATCH_DROPOUT = "patch_dropout"
    MASKING_ONLY = "masking_only"
    MEDCONTEXT = "medcontext"
    PSEUDO_LABELS = "pseudo_labels"
    MEDCONTEXT_UNLABELED = "medcontext_unlabeled"


USING_TEACHER = (TrainingMode.MEDCONTEXT, TrainingMode.PSEUDO_LABELS, TrainingMode.MEDCONTEXT_UNLABELED)
USING_UNLABELED = (TrainingMode.PSEUDO_LABELS, TrainingMode.MEDCONTEXT_UNLABELED)


class TrainingPasses(StrEnum):
    """How often a step sees each crop.

    ``single`` is one pass over a batch in which some crops are masked. The paper's form sees every crop twice, whole
    and masked: ``separate`` passes keep one graph alive at a time, ``batched`` passes run both as one batch.
    """

    SINGLE = "single"
    SEPARATE = "separate"
    BATCHED = "batched"


class MedContextEvents(EventEnum):
    """Events in addition to ignite's and MONAI's.

    ``OPTIMIZER_STEPPED`` fires after an optimizer step, hence once per accumulation window. ``STATE_SAVING`` fires
    before the training state is saved, from which a resumed run starts. ``RUN_ABORTED`` fires when an exception,
    ``KeyboardInterrupt`` included, ends a run; the exception is in ``engine.state.exception``.
    """

    OPTIMIZER_STEPPED = "optimizer_stepped"
    STATE_SAVING = "state_saving"
    RUN_ABORTED = "run_aborted"


class Batch(NamedTuple):
    """One batch on the device.

    Attributes:
        image: whole crops (B, C, *spatial).
        label: label ids (B, 1, *spatial).
        masked_image: the crops with the context dropped, (B, C, *spatial), if there is any.
        context_mask: 1 where voxels were dropped, (B, 1, *spatial).
        masked: which of the B crops are masked.
        unlabeled: unlabelled crops as the teacher sees them, (U, C, *spatial), if there are any.
        strong: the same crops, augmented for the student.
    """

    image: Tensor
    label: Tensor
    masked_image: Any
    context_mask: Any
    masked: list[bool]
    unlabeled: Any
    strong: Any


class MedContextTrainer(SupervisedTrainer):
    """Train a network to segment and, from the same labels, to reconstruct what was dropped from its input.

    By default, a step is one pass over a batch of which the transforms have masked some crops, against the full label.
    Where the objective compares masked crops with a teacher, the teacher sees them whole. Unlabelled crops join the
    same batch: the student learns from them what the teacher, which sees them less augmented, is confident of.

    The paper's form segments every crop whole and masked. In ``separate`` passes, the gradients add up to those of the
    summed loss while peak memory stays near that of plain training. ``batched`` passes are faster where small batches
    leave the device idle; networks with batch normalisation then share their statistics between the two.

    ``engine.state.output`` holds ``image``, ``label``, ``pred``, the scalar ``loss`` and the unweighted terms of
    :class:`~medcontext.losses.MedContextLoss` by name, with ``masked_fraction`` and, in the two-pass forms,
    ``masked_pred`` and ``teacher_pred``.

    MONAI's ``IterationEvents`` fire after the forward pass, the loss and the backward pass; with ``separate`` passes,
    after those of the second.

    Args:
        network: the student, plain or wrapped in DDP or :class:`~medcontext.networks.TokenMasking`. With token
            masking, the masked pass sees the whole image, with the tokens under ``context_mask`` replaced.
        loss_function: the objective.
        teacher: the moving average of the student, updated by :class:`~medcontext.handlers.TeacherUpdate`.
        mode: one of :class:`TrainingMode`.
        passes: one of :class:`TrainingPasses`; the modes without a teacher and those with unlabelled scans have the
            ``single`` form only.
        organ_dropout: called with unlabelled crops and the teacher's label ids to drop organs from the crops; required
            by the mode ``medcontext_unlabeled``.
        max_grad_norm: norm to which all gradients are clipped before each step; ``None`` does not clip.
        kwargs: other arguments as for MONAI's ``SupervisedTrainer``. With ``amp``, the forward passes run under
            ``torch.autocast`` on the trainer's device, with gradient scaling where the device is CUDA.

    Attributes:
        context_strength: factor of the consistency weight, set by :class:`~medcontext.handlers.ContextSchedule`.
        unlabeled_strength: the same for the unlabelled term; at 0, unlabelled crops are left out of the step.
        state.epoch_unfinished: whether all steps of an epoch are done, but not what is due at its end, such as
            validation.
        stop_signal: number of the signal that asks the run to stop, 0 if there is none; a
            :class:`~medcontext.handlers.TrainingCheckpoint` then saves the state and ends the run.

    Raises:
        ValueError: If ``mode`` or ``passes`` is unknown, the two cannot be combined, the mode lacks what it needs, or
            ``max_grad_norm`` is not above 0.
        TypeError: If ``loss_function`` is not a ``MedContextLoss``.

    Source: Gani et al., MedContext, MICCAI 2024 (arXiv 2402.17725); the single pass and unlabelled scans are added
        here.
    """

    loss_function: MedContextLoss

    def __init__(
        self,
        *,
        network: nn.Module,
        loss_function: MedContextLoss,
        teacher: nn.Module | None = None,
        mode: str = TrainingMode.MEDCONTEXT,
        passes: str = TrainingPasses.SINGLE,
        organ_dropout: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        max_grad_norm: float | None = None,
        **kwargs: Any,
    ) -> None:
        _check_arguments(mode, passes, loss_function, max_grad_norm)
        # MONAI's constructor attaches handlers, which read these attributes
        self.mode, self.passes = TrainingMode(mode), TrainingPasses(passes)
        self.teacher: Any = teacher
        self.organ_dropout = organ_dropout
        self.max_grad_norm = max_grad_norm
        self.context_strength = self.unlabeled_strength = 1.0
        self.stop_signal = 0
        if self.mode in USING_UNLABELED and teacher is None:
            raise ValueError(f"mode {mode!r} needs a teacher, whose predictions label the unlabelled scans.")
        if self.mode is TrainingMode.MEDCONTEXT_UNLABELED and organ_dropout is None:
            raise ValueError(
                "mode 'medcontext_unlabeled' needs organ_dropout, which drops organs from unlabelled crops."
            )
        super().__init__(
            network=network,
            loss_function=loss_function,
            event_names=[*(kwargs.pop("event_names", None) or []), MedContextEvents],
            **kwargs,
        )
        device = self.state.device.type
        half = self.amp and self.amp_kwargs.get("dtype", torch.float16) is torch.float16
        self._masks_tokens = any(isinstance(module, TokenMasking) for module in network.modules())
        self.scaler = torch.amp.GradScaler(device, enabled=half and device == "cuda")
        self.state.epoch_unfinished = False
        self.state_dict_user_keys.append("epoch_unfinished")

    def run(self) -> None:
        """Train, keeping the gradient scaler that a checkpoint restored, and fire an event if the run is cut short."""
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
        batch = self._unpack(batchdata)
        last = self.closes_window
        self.network.train()
        if self._opens_window:
            self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        output: dict[str, Any] = {CommonKeys.IMAGE: batch.image, CommonKeys.LABEL: batch.label}
        self.state.output = output
        if batch.context_mask is not None:
            output[MedContextKeys.MASKED_FRACTION] = batch.context_mask.float().mean()
        if self.passes is TrainingPasses.SINGLE or self.mode is not TrainingMode.MEDCONTEXT:
            self._single_pass(output, batch, sync=last)
        elif self.passes is TrainingPasses.BATCHED:
            self._batched_passes(output, batch, sync=last)
        else:
            self._separate_passes(output, batch, sync=last)
        if last:
            self._optimizer_step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _unpack(self, batchdata: dict[str, Any]) -> Batch:
        """Return the batch as plain tensors on the device; MetaTensor would tax every operation of the network."""
        image, label = map(
            _without_metadata, self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        )
        mask = None if self.mode is TrainingMode.BASELINE else batchdata.get(MedContextKeys.CONTEXT_MASK)
        # before the mask moves to the device, which would have to be synchronised
        masked = [False] * len(image) if mask is None else _without_metadata(mask).flatten(1).any(1).tolist()
        return Batch(
            image,
            label,
            None if mask is None else self._to_device(batchdata[MedContextKeys.MASKED_IMAGE]),
            None if mask is None else self._to_device(mask),
            masked,
            *(
                self._to_device(batchdata.get(key))
                for key in (MedContextKeys.UNLABELED_IMAGE, MedContextKeys.UNLABELED_STRONG)
            ),
        )

    def _to_device(self, value: Any) -> Any:
        return (
            None
            if value is None
            else _without_metadata(value).to(self.state.device, non_blocking=self.non_blocking, **self.to_kwargs)
        )

    @property
    def _position(self) -> int:
        """Place of this iteration in its epoch, from 0."""
        length = self.state.epoch_length
        return int(self.state.iteration - 1 if length is None else (self.state.iteration - 1) % length)

    @property
    def _opens_window(self) -> bool:
        """Whether gradients add up from this iteration on."""
        return self._position % self.accumulation_steps == 0

    @property
    def closes_window(self) -> bool:
        """Whether the optimizer steps at the end of this iteration; at the end of an epoch it always does."""
        done = self._position + 1
        return done % self.accumulation_steps == 0 or done == self.state.epoch_length

    def _single_pass(self, output: dict[str, Any], batch: Batch, *, sync: bool) -> None:
        """Run each crop once, masked or whole, with the unlabelled ones in the same batch."""
        count = len(batch.image)
        teacher_pred = None
        if self._compares_with_teacher and any(batch.masked):
            teacher_pred = self._teacher_logits(batch.image[sample_index(batch.masked, batch.image.device)])
        strong, unlabeled_pred = self._unlabeled_crops(batch)
        with self._gradient_sync(sync):
            with self._autocast():
                both = self.inferer(*self._student_inputs(batch, strong))
                self.fire_event(IterationEvents.FORWARD_COMPLETED)
                pred = both if strong is None else select_samples(both, slice(count))
                terms = self.loss_function.mixed(
                    pred, batch.label, batch.masked, teacher_pred, batch.context_mask, self.context_strength
                )
                loss = terms.pop(CommonKeys.LOSS)
                if unlabeled_pred is not None:
                    strong_pred = select_samples(both, slice(count, None))
                    unlabeled_terms = self.loss_function.unlabeled(unlabeled_pred, strong_pred, self.unlabeled_strength)
                    loss = loss + unlabeled_terms.pop(CommonKeys.LOSS)
                    terms |= unlabeled_terms
            self._record(output, pred, loss, terms)
            self._backward_recorded(loss)

    def _student_inputs(self, batch: Batch, strong: Tensor | None) -> tuple[Any, ...]:
        """Return the inferer's arguments: crops, the student and, where it masks tokens instead of voxels, masks."""
        unlabeled = [] if strong is None else [strong]
        if self._masks_tokens and self.mode in USING_TEACHER and batch.context_mask is not None:
            masks = [batch.context_mask, *(torch.zeros_like(crops[:, :1]) for crops in unlabeled)]
            return torch.cat([batch.image, *unlabeled]), self.network, torch.cat(masks)
        images = batch.image if batch.masked_image is None else batch.masked_image
        return torch.cat([images, *unlabeled]) if unlabeled else images, self.network

    def _unlabeled_crops(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return unlabelled crops as the student sees them, and the teacher's logits on the less augmented ones."""
        if batch.unlabeled is None or self.mode not in USING_UNLABELED:
            return None, None
        if not self.unlabeled_strength * self.loss_function.unlabeled_weight:
            return None, None
        teacher_pred = self._teacher_logits(batch.unlabeled)
        if self.organ_dropout is None or self.mode is not TrainingMode.MEDCONTEXT_UNLABELED:
            return batch.strong, teacher_pred
        return self.organ_dropout(batch.strong, teacher_pred.argmax(1, keepdim=True))[0], teacher_pred

    def _separate_passes(self, output: dict[str, Any], batch: Batch, *, sync: bool) -> None:
        """Back-propagate the whole crops before the pass over the masked ones, so only one graph is alive at a time."""
        with self._gradient_sync(False):
            with self._autocast():
                pred = self.inferer(batch.image, self.network)
                supervised = self.loss_function.supervised(pred, batch.label)
            self._backward(supervised)
        teacher_pred = self._teacher_logits(batch.image) if self._compares_with_teacher else None
        with self._gradient_sync(sync):
            with self._autocast():
                if self._masks_tokens:
                    masked_pred = self.inferer(batch.image, self.network, batch.context_mask)
                else:
                    masked_pred = self.inferer(batch.masked_image, self.network)
                self.fire_event(IterationEvents.FORWARD_COMPLETED)
                terms = self.loss_function.context_terms(masked_pred, batch.label, teacher_pred, batch.context_mask)
                loss = self.loss_function.weighted(terms, self.context_strength)
            terms[MedContextKeys.LOSS_SUPERVISED] = supervised
            self._record(output, pred, supervised.detach() + loss, terms, teacher_pred, masked_pred)
            self._backward_recorded(loss)

    def _batched_passes(self, output: dict[str, Any], batch: Batch, *, sync: bool) -> None:
        """Run whole and masked crops as one batch."""
        teacher_pred = self._teacher_logits(batch.image) if self._compares_with_teacher else None
        with self._gradient_sync(sync):
            with self._autocast():
                if self._masks_tokens:
                    masks = torch.cat([torch.zeros_like(batch.context_mask), batch.context_mask])
                    both = self.inferer(torch.cat([batch.image, batch.image]), self.network, masks)
                else:
                    both = self.inferer(torch.cat([batch.image, batch.masked_image]), self.network)
                self.fire_event(IterationEvents.FORWARD_COMPLETED)
                pred, masked_pred = (
                    select_samples(both, part) for part in (slice(len(batch.image)), slice(len(batch.image), None))
                )
                terms = self.loss_function(
                    pred, batch.label, masked_pred, teacher_pred, batch.context_mask, self.context_strength
                )
                loss = terms.pop(CommonKeys.LOSS)
            self._record(output, pred, loss, terms, teacher_pred, masked_pred)
            self._backward_recorded(loss)

    def _backward_recorded(self, loss: Tensor) -> None:
        """Back-propagate a loss after it is recorded in the output."""
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._backward(loss)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)

    @property
    def _compares_with_teacher(self) -> bool:
        """Whether the objective compares masked crops with the teacher; a term of weight 0 costs no pass."""
        weight = self.context_strength * self.loss_function.consistency_weight
        return self.teacher is not None and self.mode in USING_TEACHER and weight > 0

    def _teacher_logits(self, image: Tensor) -> Tensor:
        with torch.no_grad(), self._autocast():
            prediction: Tensor = full_resolution(self.inferer(image, self.teacher.eval()))
        return prediction

    def _record(
        self,
        output: dict[str, Any],
        pred: Any,
        loss: Tensor,
        terms: dict[str, Tensor],
        teacher_pred: Any = None,
        masked_pred: Any = None,
    ) -> None:
        """Store the results of the step in its output, for the handlers of the events that follow."""
        output[CommonKeys.PRED], output[CommonKeys.LOSS] = _detached(pred), loss.detach()
        output.update({name: term.detach() for name, term in terms.items()})
        if masked_pred is not None:
            output[MedContextKeys.MASKED_PRED] = _detached(masked_pred)
        if teacher_pred is not None:
            output[MedContextKeys.TEACHER_PRED] = teacher_pred

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)

    def _gradient_sync(self, sync: bool) -> AbstractContextManager[None]:
        """Let only the last backward pass of a step exchange gradients between processes; they add up until then."""
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
        """Return the number of this iteration's optimizer step, from 0, for schedules that follow steps."""
        epochs, iterations = divmod(self.state.iteration - 1, int(self.state.epoch_length))
        return epochs * self._optimizer_steps_per_epoch() + iterations // self.accumulation_steps

    def total_optimizer_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self._optimizer_steps_per_epoch() * int(self.state.max_epochs)

    def _optimizer_steps_per_epoch(self) -> int:
        return -(-int(self.state.epoch_length) // self.accumulation_steps)

    @property
    def student(self) -> nn.Module:
        """The plain network that is evaluated and saved."""
        return plain_network(self.network)


def _without_metadata(value: Any) -> Any:
    return value.as_tensor() if hasattr(value, "as_tensor") else value


def _detached(prediction: Any) -> Tensor:
    return full_resolution(prediction).detach()


def _check_arguments(mode: str, passes: str, loss_function: Any, max_grad_norm: float | None) -> None:
    check_choice("mode", mode, TrainingMode)
    check_choice("passes", passes, TrainingPasses)
    if passes != TrainingPasses.SINGLE and mode in USING_UNLABELED:
        raise ValueError(f"mode {mode!r} has a single pass, got passes {passes!r}; use 'single'.")
    if not isinstance(loss_function, MedContextLoss):
        raise TypeError(f"loss_function must be a MedContextLoss, got {type(loss_function).__name__}.")
    if max_grad_norm is not None:
        check_above_zero("max_grad_norm", max_grad_norm, remedy="use None not to clip")
