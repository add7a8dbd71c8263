"""MedContext data."""

from __future__ import annotations
