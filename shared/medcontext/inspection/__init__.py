"""What a bundle would run, listed without running any of it, and whether its files are those that it names."""

from __future__ import annotations

from medcontext.inspection.checksums import Checksum
from medcontext.inspection.expressions import expression_problem, import_problem
from medcontext.inspection.findings import Finding
from medcontext.inspection.inspect import Inspection, inspect_bundle, line

__all__ = ["Checksum", "Finding", "Inspection", "expression_problem", "import_problem", "inspect_bundle", "line"]
