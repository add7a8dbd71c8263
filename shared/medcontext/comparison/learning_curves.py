r"""Learning curves: the error by the number of labelled cases, as an inverse power law.

.. math:: 1 - \mathrm{Dice}(n) = a \, (n / n_1)^{-b} + c, \qquad a, c \ge 0

with the smallest number of cases :math:`n_1`: :math:`a` is the error that more labels remove, :math:`c` the one that
stays. It describes classifiers (Figueroa et al., Predicting sample size required for classification performance, BMC
Medical Informatics and Decision Making 2012) and segmentation of anatomy alike (Chu et al., Revisiting data scaling law
for medical segmentation, arXiv 2511.13883).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medcontext.comparison.statistics import Array

__all__ = ["LearningCurve", "fit_curves"]

_EXPONENTS = np.geomspace(0.02, 5, 200)  # from slower than a logarithm to an error that is gone with the next number
_FLAT = 1e-6  # least error removed by labels for which a curve is no line


@dataclass(frozen=True)
class LearningCurve:
    """Dice by the number of labelled cases.

    Attributes:
        first: smallest number of labelled cases that it was fitted to.
        last: the largest.
        removable: share of the error at ``first`` that more labels remove, the :math:`a` of the module.
        exponent: how fast, its :math:`b`.
        floor: error that no number of labels removes, its :math:`c`.
    """

    first: float
    last: float
    removable: float
    exponent: float
    floor: float

    def dice(self, cases: float) -> float:
        """Return the Dice that a number of labelled cases reaches."""
        return float(1 - self.floor - self.removable * (cases / self.first) ** -self.exponent)

    def cases(self, dice: float) -> float:
        """Return the number of labelled cases that reaches a Dice.

        It is infinite if none does, 0 if any number does, and NaN if the curve is a line through this very Dice.
        """
        error = 1 - dice - self.floor
        if self.removable < _FLAT:
            return math.nan if abs(error) < _FLAT else 0.0 if error > 0 else math.inf
        if error <= 0:
            return math.inf
        with np.errstate(over="ignore"):
            return float(self.first * np.float64(self.removable / error) ** (1 / self.exponent))


def fit_curves(cases: Array, dice: Array, weights: Array) -> list[LearningCurve]:
    """Fit learning curves by least squares, many at once as a bootstrap needs them.

    For a given exponent the other two parameters are a linear problem with a solution in closed form, within their
    bounds; the best of a fine grid of exponents is taken, so that no starting value matters and no minimum is missed.

    Args:
        cases: numbers of labelled cases, (N,), each once, at least three.
        dice: mean Dice of each, one row for each curve, (B, N).
        weights: weight of each square, (N,): the number of runs behind it.

    Raises:
        ValueError: If there are fewer than three numbers of cases.
    """
    if len(np.unique(cases)) < 3:
        raise ValueError(f"A learning curve needs at least three numbers of cases, got {len(np.unique(cases))}.")
    share, error = weights / weights.sum(), 1 - dice
    powers = (cases / cases.min()) ** -_EXPONENTS[:, None]
    removable, floor = _linear_fits(powers, error, share)
    residuals = error - removable[..., None] * powers[:, None] - floor[..., None]  # (exponents, B, N)
    best = np.argmin((share * residuals**2).sum(axis=-1), axis=0)
    columns = np.arange(len(error))
    return [
        LearningCurve(float(cases.min()), float(cases.max()), *map(float, parameters))
        for parameters in zip(removable[best, columns], _EXPONENTS[best], floor[best, columns], strict=True)
    ]


def _linear_fits(powers: Array, error: Array, share: Array) -> tuple[Array, Array]:
    """Return slope and intercept of the errors over the powers, neither below 0, (exponents, B) each.

    Where the plain solution has a negative slope, the best is a constant; where its intercept is negative, a line
    through zero.
    """
    mean_power, mean_error = (powers @ share)[:, None], (error @ share)[None]
    covariance = (powers * share) @ error.T - mean_power * mean_error
    slope = covariance / ((powers**2 @ share)[:, None] - mean_power**2)
    through_zero = (powers * share) @ error.T / (powers**2 @ share)[:, None]
    intercept = mean_error - slope * mean_power
    slope = np.where(slope < 0, 0.0, np.where(intercept < 0, through_zero, slope))
    return slope, np.where(slope == 0, mean_error, np.maximum(intercept, 0.0))
