"""Schedules that MONAI and PyTorch lack."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["WarmupPolynomialSchedule", "ramp"]


class WarmupPolynomialSchedule(LambdaLR):
    """Linear warm-up, then the polynomial decay (1 - step / t_total)^power, stepped once per iteration.

    The counterpart of MONAI's ``WarmupCosineSchedule``. Being a ``LambdaLR``, it follows a new curve when a resumed
    run asks for more steps, which PyTorch's ``PolynomialLR`` cannot.

    Args:
        optimizer: the optimizer whose learning rates are set.
        warmup_steps: steps over which the rate rises to its curve; 0 for none.
        t_total: step at which the rate reaches 0.
        power: exponent of the decay.

    Raises:
        ValueError: If ``t_total`` is below 1, or ``warmup_steps`` or ``power`` is negative.

    Source: the "poly" schedule of Chen et al., DeepLab, TPAMI 2018, with nnU-Net's exponent 0.9.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, t_total: int, power: float = 0.9) -> None:
        if t_total < 1 or warmup_steps < 0 or power < 0:
            raise ValueError(
                "t_total must be 1 or more, warmup_steps and power 0 or more, "
                f"got {t_total}, {warmup_steps} and {power}."
            )
        self.warmup_steps, self.t_total, self.power = warmup_steps, t_total, power
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0."""
        rise = min((step + 1) / (self.warmup_steps + 1), 1.0)
        return float(rise * max(1 - step / self.t_total, 0.0) ** self.power)


def ramp(progress: float, *, start: float = 0.0, length: float = 0.0, end: float = 1.0) -> float:
    """Return a factor that rises from 0 to 1 and falls back to 0, at a point of the training run.

    Args:
        progress: share of the run that is done, within [0, 1].
        start: share after which the factor rises.
        length: share over which it rises linearly; 0 for a step.
        end: share after which it is 0 again.

    Example:
        >>> [ramp(progress, start=0.2, length=0.4) for progress in (0.1, 0.4, 0.8)]
        [0.0, 0.5, 1.0]
    """
    if progress < start or (progress >= end and end < 1):
        return 0.0
    return 1.0 if length == 0 else min((progress - start) / length, 1.0)
