"""Plans: settings for a dataset, chosen from what its files hold, for each bundle."""

from __future__ import annotations

from medcontext.planning.overlay import Plan, make_plans, plans_table, write_plans

__all__ = ["Plan", "make_plans", "plans_table", "write_plans"]
