"""The MedContext trainer and its learning-rate schedule."""

from __future__ import annotations

from medcontext.engines.schedules import WarmupPolynomialSchedule
from medcontext.engines.trainer import MedContextEvents, MedContextTrainer, TrainingMode

__all__ = ["MedContextEvents", "MedContextTrainer", "TrainingMode", "WarmupPolynomialSchedule"]
