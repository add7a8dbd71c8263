"""Ignite handlers for the MedContext trainer and its evaluators."""

from __future__ import annotations

from medcontext.handlers.attach import Attach
from medcontext.handlers.checkpoints import FinalModel, ModelCheckpoint, TeacherValidation
from medcontext.handlers.component_choice import ComponentChoice
from medcontext.handlers.context_schedule import ContextSchedule
from medcontext.handlers.early_stopping import EarlyStopping
from medcontext.handlers.evaluation import EvaluationReport
from medcontext.handlers.install import InstalledModel
from medcontext.handlers.nonfinite import NonFiniteLossError, StopOnNonFiniteLoss
from medcontext.handlers.prediction_writer import PredictionWriteError, PredictionWriter
from medcontext.handlers.preview_figure import PreviewFigure
from medcontext.handlers.progress import ProgressBar
from medcontext.handlers.quality import QualityCalibration, QualityEstimate, QualityTable
from medcontext.handlers.seeding import Seeding
from medcontext.handlers.step_values import step_values, write_step
from medcontext.handlers.teacher import TeacherUpdate, teacher_momentum_at, update_teacher
from medcontext.handlers.training_history import TrainingHistory
from medcontext.handlers.training_state import (
    ResumeError,
    ResumeTraining,
    RunFacts,
    TrainingCheckpoint,
    TrainingInterrupted,
)

__all__ = [
    "Attach",
    "ComponentChoice",
    "ContextSchedule",
    "EarlyStopping",
    "EvaluationReport",
    "FinalModel",
    "InstalledModel",
    "ModelCheckpoint",
    "ResumeError",
    "NonFiniteLossError",
    "PredictionWriteError",
    "PredictionWriter",
    "PreviewFigure",
    "ProgressBar",
    "QualityCalibration",
    "QualityEstimate",
    "QualityTable",
    "ResumeTraining",
    "RunFacts",
    "Seeding",
    "StopOnNonFiniteLoss",
    "TeacherUpdate",
    "TeacherValidation",
    "TrainingCheckpoint",
    "TrainingHistory",
    "TrainingInterrupted",
    "step_values",
    "teacher_momentum_at",
    "update_teacher",
    "write_step",
]
