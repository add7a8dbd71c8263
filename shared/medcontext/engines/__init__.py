"""The MedContext trainer and its schedules."""

from __future__ import annotations

from medcontext.engines.schedules import WarmupPolynomialSchedule, ramp
from medcontext.engines.trainer import Batch, MedContextEvents, MedContextTrainer, TrainingMode, TrainingPasses

__all__ = [
    "Batch",
    "MedContextEvents",
    "MedContextTrainer",
    "TrainingMode",
    "TrainingPasses",
    "WarmupPolynomialSchedule",
    "ramp",
]
