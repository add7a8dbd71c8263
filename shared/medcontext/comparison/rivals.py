"""Rungs against the predictions of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcontext.comparison.predictions import Predictions
from medcontext.comparison.results import FEWEST_SEEDS, counted, mean
from medcontext.comparison.rungs import Rung, runs_by_rung
from medcontext.comparison.statistics import MEAN, label_table, paired_cases
from medcontext.comparison.verdicts import Group
from medcontext.report.page import number

__all__ = ["Lead", "leads"]


@dataclass(frozen=True)
class Lead:
    """How far a rung is ahead of the predictions of another tool, in the mean over the classes.

    Attributes:
        name: name of the predictions.
        rung: the rung.
        mean_dice: mean Dice of the rung's runs.
        difference: Dice of the rung minus that of the predictions, with the bounds of its 95 % interval.
        seeds: number of seeds of the rung.
    """

    name: str
    rung: Rung
    mean_dice: float
    difference: tuple[float, float, float]
    seeds: int

    @property
    def text(self) -> str:
        """The difference as text, with its interval if there are enough seeds."""
        value, low, high = (number(bound, sign=True) for bound in self.difference)
        return f"{value} ({low} to {high})" if self.seeds >= FEWEST_SEEDS else f"{value} ({counted(self.seeds)})"


def leads(group: Group, predictions: Sequence[Predictions]) -> Iterator[Lead]:
    """Yield the leads of all rungs of a group over the predictions on the same test cases.

    Intervals account for other seeds of ours and other test cases, and for other training runs of the tool only if it
    has predictions for each draw.

    Args:
        group: group of a comparison.
        predictions: from :func:`medcontext.comparison.predictions.score_predictions`.
    """
    for others in predictions:
        for rung, runs in runs_by_rung(group.draws).items():
            pairs = [(run, scored) for run in runs if (scored := others.beside(run)) is not None]
            if pairs:
                table = label_table(paired_cases(pairs)).loc[[MEAN], ["difference", "low", "high"]]
                value, low, high = map(float, table.to_numpy(dtype=float)[0])
                seeds = len({run.unit for run, _ in pairs})
                yield Lead(others.name, rung, mean(run.mean_dice for run, _ in pairs), (value, low, high), seeds)
