"""Cases that fail alone: one that cannot be used is left out with its reason, and does not end the others."""

from __future__ import annotations

from medcontext.cases.dataset import TolerantDataset
from medcontext.cases.evaluator import TolerantEvaluator
from medcontext.cases.failures import FAILURES_FILE, FailedCase, failed_cases, failures_sentence, write_failures

__all__ = [
    "FAILURES_FILE",
    "FailedCase",
    "TolerantDataset",
    "TolerantEvaluator",
    "failed_cases",
    "failures_sentence",
    "write_failures",
]
