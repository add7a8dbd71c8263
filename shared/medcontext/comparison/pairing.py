"""Which control belongs to which MedContext run, and why others do not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.settings import unfair_differences, variant_differences
from medcontext.experiment import EQUAL_TIME

__all__ = ["Control", "PairedRun", "Pairing", "Role", "check_group_by", "group_value", "pair_runs"]

_TOLERANCE = 0.1  # of the steps that equal time stands for


class Control(StrEnum):
    """What MedContext has to beat, as it is named everywhere."""

    EQUAL_STEPS = "baseline at equal steps"
    EQUAL_TIME = "baseline at equal time"
    MASKING_ONLY = "masking only"


@dataclass(frozen=True, eq=False)
class PairedRun:
    """A MedContext run with its controls."""

    run: TrackedRun
    controls: Mapping[Control, TrackedRun]


@dataclass(frozen=True)
class Role:
    """What became of a run: its part in the comparison, or ``unpaired``, and why."""

    name: str
    reason: str = ""


@dataclass
class Pairing:
    """Result of :func:`pair_runs`.

    Attributes:
        groups: by the values of ``group_by``, the MedContext runs with their controls.
        roles: role of every run by its identifier.
    """

    groups: dict[tuple[str, ...], list[PairedRun]] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)


UNPAIRED = "unpaired"
MEDCONTEXT = "MedContext"


def check_group_by(names: Sequence[str], runs: Iterable[TrackedRun]) -> None:
    """Refuse to group by what no run has.

    Raises:
        ValueError: Naming the nearest name and those that there are.
    """
    runs = list(runs)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"group_by must name at least one, and each only once, got {', '.join(names) or 'none'}.")
    listed = {"architecture"}.union(*((*run.tags, *run.params) for run in runs))
    known = listed.union(*(run.settings for run in runs))
    for name in names:
        if _tag(name) not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise ValueError(f"No run has a {name!r} to group by; {hint}There are {', '.join(sorted(listed))}.")


def group_value(run: TrackedRun, name: str) -> str:
    """Value by which a run is grouped.

    Args:
        run: the run.
        name: ``architecture``, the bundle's name without ``medcontext_``; ``train_fraction``, or the number of cases
            where that was chosen; a tag ``medcontext.<name>``; a hyperparameter; or the id of a configuration's leaf,
            such as ``consistency#form``.
    """
    name = _tag(name)
    if name == "architecture":
        return run.tags["bundle"].removeprefix("medcontext_")
    number = run.params.get("train_cases", "None")
    if name == "train_fraction" and number != "None":
        return f"{number} cases"
    text = run.tags.get(name, run.settings.get(name, "not set"))
    return f"{float(text):g}" if re.fullmatch(r"\d+\.\d+", text) else text


def _tag(name: str) -> str:
    return name.removeprefix("medcontext.")


def pair_runs(runs: Sequence[TrackedRun], group_by: Sequence[str]) -> Pairing:
    """Give every MedContext run its controls.

    A control has the bundle, the dataset, the training and validation cases, the test cases, the fold and the seed of
    the MedContext run, and differs in nothing else that matters (:func:`unfair_differences`). It is a baseline of as
    many steps, a baseline of 7/3 as many (within 10 %), or masking only with as many. Of repeated runs the one that
    finished last is taken, among MedContext runs within a group.

    Args:
        runs: all runs of the experiment.
        group_by: names for :func:`group_value`.

    Returns:
        The groups in the order of their values, and what became of every run.
    """
    pairing = Pairing(roles={run.id: Role(UNPAIRED, run.problem) for run in runs})
    usable = sorted((run for run in runs if not run.problem), key=lambda run: run.end_time, reverse=True)
    controls = [run for run in usable if run.mode != "medcontext"]
    rejections: dict[str, str] = {}
    taken: dict[tuple[object, ...], TrackedRun] = {}
    for run in usable:
        if run.mode != "medcontext":
            continue
        group = tuple(group_value(run, name) for name in group_by)
        earlier = taken.setdefault((group, *run.key.values()), run)
        if earlier is not run:
            pairing.roles[run.id] = Role(UNPAIRED, _repeated(run, earlier))
            continue
        paired = PairedRun(run, _controls(run, controls, rejections))
        pairing.groups.setdefault(group, []).append(paired)
        _note_roles(pairing.roles, paired)
    for control in controls:
        if pairing.roles[control.id].name == UNPAIRED:
            reason = rejections.get(control.id) or _nearest(control, list(taken.values()))
            pairing.roles[control.id] = Role(UNPAIRED, reason)
    pairing.groups = {group: pairing.groups[group][::-1] for group in sorted(pairing.groups, key=_sort_key)}
    return pairing


def _controls(
    run: TrackedRun, candidates: Iterable[TrackedRun], rejections: dict[str, str]
) -> dict[Control, TrackedRun]:
    """The controls of a MedContext run, from candidates of which the latest comes first."""
    found: dict[Control, TrackedRun] = {}
    for candidate in candidates:
        if candidate.key != run.key:
            continue
        kind = _kind(candidate, run)
        reason = _unfit(candidate, run) if kind else _other_length(candidate, run)
        if kind and not reason and kind in found:
            reason = f"repeated: {found[kind].name} finished later"
        if reason:
            rejections.setdefault(candidate.id, reason)
        elif kind:
            found[kind] = candidate
    return {kind: found[kind] for kind in Control if kind in found}


def _kind(control: TrackedRun, run: TrackedRun) -> Control | None:
    if control.steps == run.steps:
        return Control.EQUAL_STEPS if control.mode == "baseline" else Control.MASKING_ONLY
    off = round(abs(control.steps / (EQUAL_TIME * run.steps) - 1), 9)
    if control.mode == "baseline" and off <= _TOLERANCE:
        return Control.EQUAL_TIME
    return None


def _other_length(control: TrackedRun, run: TrackedRun) -> str:
    if control.mode == "baseline":
        equal_time = round(EQUAL_TIME * run.steps)
        return f"its {control.steps} steps are neither the {run.steps} of {run.name} nor 7/3 of them ({equal_time})"
    return f"its {control.steps} steps are not the {run.steps} of {run.name}"


def _unfit(control: TrackedRun, run: TrackedRun) -> str:
    """Why a control cannot be compared with a run that it would belong to."""
    differences = unfair_differences(run, control)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        return f"unlike {run.name} it has {', '.join(differences[:3])}{more}"
    cells = [set(zip(one.table["case"], one.table["label"], strict=True)) for one in (control, run)]
    return "" if cells[0] == cells[1] else f"it was evaluated on other cases or labels than {run.name}"


def _repeated(run: TrackedRun, later: TrackedRun) -> str:
    """Why a MedContext run is left out in favour of one that finished later."""
    different = variant_differences(run, later)
    if not different:
        return f"repeated: {later.name} finished later"
    return (
        f"{later.name} has the same cases, fold and seed and finished later; "
        f"they differ in {', '.join(different)}: name one of these in group_by to compare both"
    )


def _note_roles(roles: dict[str, Role], paired: PairedRun) -> None:
    missing = [str(control) for control in Control if control not in paired.controls]
    without = f"no {', no '.join(missing)} to compare with" if missing else ""
    roles[paired.run.id] = Role(MEDCONTEXT if paired.controls else UNPAIRED, without)
    for kind, control in paired.controls.items():
        names = {roles[control.id].name, kind.value} - {UNPAIRED}
        roles[control.id] = Role(", ".join(sorted(names)))


def _nearest(control: TrackedRun, runs: Sequence[TrackedRun]) -> str:
    """Why no MedContext run has this control."""
    if not runs:
        return "there is no MedContext run"

    def different(run: TrackedRun) -> list[str]:
        return [name for name, value in control.key.items() if run.key[name] != value]

    nearest = min(runs, key=lambda run: len(different(run)))
    return f"no MedContext run fits: the nearest, {nearest.name}, differs in {', '.join(different(nearest))}"


def _sort_key(group: tuple[str, ...]) -> list[tuple[bool, float, str]]:
    """Numbers by size, before text."""
    keys = []
    for value in group:
        try:
            keys.append((False, float(value.removesuffix(" cases")), ""))
        except ValueError:
            keys.append((True, 0.0, value))
    return keys
