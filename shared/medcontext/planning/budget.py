"""What a plan may spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from medcontext.planning.cost import GIB

__all__ = ["Budget", "budget_of"]


@dataclass(frozen=True)
class Budget:
    """Memory of the device to train on.

    Attributes:
        gib: memory of the GPU in GiB; ``None`` for the CPU.
        why: where that is known from.
    """

    gib: float | None
    why: str

    @property
    def name(self) -> str:
        """The budget as it is given on the command line."""
        return "cpu" if self.gib is None else f"{self.gib:g}"


def budget_of(gpu_memory: Any) -> Budget:
    """Return the budget that was asked for, by default that of this machine.

    Args:
        gpu_memory: GiB, ``"cpu"``, or ``None`` for this machine's first GPU or, without one, the CPU.

    Raises:
        ValueError: If it is none of these.
    """
    if gpu_memory is None and torch.cuda.is_available():
        return Budget(torch.cuda.get_device_properties(0).total_memory / GIB, "this machine's GPU")
    if gpu_memory is None:
        return Budget(None, "this machine has no GPU that PyTorch finds; --gpu_memory 10 plans for one of 10 GiB")
    if gpu_memory == "cpu":
        return Budget(None, "as asked")
    if isinstance(gpu_memory, bool) or not isinstance(gpu_memory, (int, float)) or not 0 < gpu_memory < float("inf"):
        raise ValueError(f"gpu_memory must be a number of GiB above 0, such as 10, or cpu, got {gpu_memory!r}.")
    return Budget(float(gpu_memory), "as asked")
