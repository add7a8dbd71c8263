"""The MedContext trainer."""

from __future__ import annotations

from medcontext.engines.trainer import MedContextEvents, MedContextTrainer, TrainingMode

__all__ = ["MedContextEvents", "MedContextTrainer", "TrainingMode"]
