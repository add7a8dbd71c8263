"""Weights of the resolutions at which deep supervision predicts."""

from __future__ import annotations

__all__ = ["deep_supervision_weights"]


def deep_supervision_weights(outputs: int) -> list[float]:
    """Return nnU-Net's weights: each resolution half of the finer one, the coarsest none, and 1 in total.

    Args:
        outputs: number of resolutions, at least 1; a single one has weight 1.

    Example:
        >>> deep_supervision_weights(3)
        [0.6666666666666666, 0.3333333333333333, 0.0]

    Source: Isensee et al., nnU-Net, Nature Methods 2021; the numbers are those of nnU-Net 2.
    """
    weights = [2.0**-index for index in range(max(outputs - 1, 1))]
    return [weight / sum(weights) for weight in weights] + [0.0] * (outputs > 1)
