"""Audit of label maps: what a person should look at before training."""

from __future__ import annotations

from medcontext.audit.dataset import audit_cases
from medcontext.audit.findings import Finding, find_unusual
from medcontext.audit.measures import label_shift, measure_labels
from medcontext.audit.page import write_audit

__all__ = ["Finding", "audit_cases", "find_unusual", "label_shift", "measure_labels", "write_audit"]
