"""Settings of a comparison: the same network on the same dataset, over different numbers of labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medcontext.comparison.efficiency import Efficiency, label_efficiency
from medcontext.comparison.pairing import group_value
from medcontext.comparison.rungs import Draw
from medcontext.comparison.verdicts import Group, network_name

__all__ = ["FewShot", "few_shot"]

_IN_ANY_TITLE = ("architecture", "bundle", "dataset")
_OF_A_DRAW = ("train_fraction", "train_cases", "fold", "seed", "data_hash")


@dataclass(frozen=True, eq=False)
class FewShot:
    """All draws of one setting.

    Attributes:
        values: architecture, dataset, and what else the comparison is grouped by, but for the number of cases.
        title: the same in words.
        draws: the draws.
        efficiency: what they say about the worth of labels.
    """

    values: tuple[str, ...]
    title: str
    draws: Sequence[Draw]
    efficiency: Efficiency

    @property
    def has_curve(self) -> bool:
        """Whether there is more than one number of cases to draw."""
        return len({(draw.run.tags.get("train_fraction"), draw.run.num_cases) for draw in self.draws}) > 1


def few_shot(groups: Sequence[Group]) -> list[FewShot]:
    """Return the settings of a comparison's groups, in the order of their values."""
    draws: dict[tuple[str, ...], list[Draw]] = {}
    titles: dict[tuple[str, ...], str] = {}
    for group in groups:
        others = {name: value for name, value in group.values.items() if name not in (*_IN_ANY_TITLE, *_OF_A_DRAW)}
        for draw in (draw for draw in group.draws if draw.compared):
            architecture, dataset = group_value(draw.run, "architecture"), group_value(draw.run, "dataset")
            values = (architecture, dataset, *others.values())
            draws.setdefault(values, []).append(draw)
            words = (f"{name} {value}" for name, value in others.items())
            titles[values] = ", ".join([f"{network_name(architecture)} on {dataset}", *words])
    return [FewShot(values, titles[values], draws[values], label_efficiency(draws[values])) for values in sorted(draws)]
