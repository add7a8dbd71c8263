"""Which runs stand on the ladder of the same draw of cases, and why others do not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medcontext.comparison.rungs import BASELINES, CONTROLS, Draw, Rung, rung_of
from medcontext.comparison.runs import TIME_TOLERANCE, TrackedRun
from medcontext.comparison.settings import unfair_differences, variant_differences
from medcontext.engines import TrainingMode

__all__ = ["UNPAIRED", "Pairing", "Role", "check_group_by", "group_value", "pair_runs"]

UNPAIRED = "unpaired"

# to the runs of which mode the others are matched: the first of these that there is for the same cases, fold and seed
_MATCHED_TO = (
    *(TrainingMode.MEDCONTEXT, TrainingMode.MASKING_ONLY, TrainingMode.PATCH_DROPOUT),
    *(TrainingMode.MEDCONTEXT_UNLABELED, TrainingMode.PSEUDO_LABELS),
)
_UNLABELED = (Rung.PSEUDO_LABELS, Rung.MEDCONTEXT_UNLABELED)  # as long as fits in the same time


@dataclass(frozen=True)
class Role:
    """What became of a run: its part in the comparison, or ``unpaired``, and why."""

    name: str
    reason: str = ""


@dataclass
class Pairing:
    """Result of :func:`pair_runs`.

    Attributes:
        groups: by the values of ``group_by``, the draws with the runs of their ladder.
        roles: role of every run by its identifier.
    """

    groups: dict[tuple[str, ...], list[Draw]] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)


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
    number = run.tags.get("train_cases", run.params.get("train_cases", "None"))
    if name == "train_fraction" and number != "None":
        return f"{number} cases"
    text = run.tags.get(name, run.settings.get(name, "not set"))
    return f"{float(text):g}" if re.fullmatch(r"\d+\.\d+", text) else text


def _tag(name: str) -> str:
    return name.removeprefix("medcontext.")


def pair_runs(runs: Sequence[TrackedRun], group_by: Sequence[str]) -> Pairing:
    """Find the runs that stand on the ladder of the same draw of cases.

    They have the bundle, the dataset, the labelled training and validation cases, the test cases, the fold and the seed
    in common, and differ in nothing else that matters (:func:`unfair_differences`). All are matched to the MedContext
    run or, where there is none, to that of the highest other rung without unlabelled scans, else with them: runs
    without unlabelled scans and the baseline by as many steps, the baseline at equal time by as much measured time
    (within 10 %), and runs with unlabelled scans by either. Whatever rungs there are make a draw. The two rungs with
    unlabelled scans must have the same of them. Of repeated runs the one that finished last is taken, within a group.

    Args:
        runs: all runs of the experiment.
        group_by: names for :func:`group_value`, which the run has to which the others are matched.

    Returns:
        The groups in the order of their values, and what became of every run.
    """
    pairing = Pairing(roles={run.id: Role(UNPAIRED, run.problem) for run in runs})
    usable = sorted((run for run in runs if not run.problem), key=lambda run: run.end_time, reverse=True)
    first = _matched_to(usable)
    matched = [run for run in usable if first.get(_key(run)) == run.mode]
    others = [run for run in usable if first.get(_key(run)) != run.mode]
    rejections: dict[str, str] = {}
    taken: dict[tuple[object, ...], TrackedRun] = {}
    for run in matched:
        group = tuple(group_value(run, name) for name in group_by)
        earlier = taken.setdefault((group, *_key(run)), run)
        if earlier is not run:
            pairing.roles[run.id] = Role(UNPAIRED, _repeated(run, earlier, "name one of these in group_by"))
            continue
        draw = _draw(run, others, rejections)
        pairing.groups.setdefault(group, []).append(draw)
        _note_roles(pairing.roles, draw)
    for run in others:
        if pairing.roles[run.id].name == UNPAIRED:
            reason = rejections.get(run.id) or _nearest(run, list(taken.values()))
            pairing.roles[run.id] = Role(UNPAIRED, reason)
    pairing.groups = {group: pairing.groups[group][::-1] for group in sorted(pairing.groups, key=_sort_key)}
    return pairing


def _key(run: TrackedRun) -> tuple[str, ...]:
    return tuple(run.key.values())


def _matched_to(runs: Iterable[TrackedRun]) -> dict[tuple[str, ...], str]:
    """By cases, fold and seed, the mode to whose runs the others are matched; none where there are baselines alone."""
    found: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        found.setdefault(_key(run), set()).add(run.mode)
    return {key: mode for key, modes in found.items() if (mode := next((m for m in _MATCHED_TO if m in modes), None))}


def _draw(run: TrackedRun, candidates: Iterable[TrackedRun], rejections: dict[str, str]) -> Draw:
    """The runs that fit to one, from candidates of which the latest comes first."""
    found = {rung_of(run.mode): run}
    for candidate in candidates:
        if candidate.key != run.key:
            continue
        rung = _rung(candidate, run)
        reason = _unfit(candidate, run) if rung else _other_length(candidate, run)
        if rung and not reason:
            reason = _beside(candidate, rung, found)
        if reason:
            rejections.setdefault(candidate.id, reason)
        elif rung:
            found[rung] = candidate
    steps, time = BASELINES
    if steps in found and run.equal_time(found[steps]):
        found.setdefault(time, found[steps])
    return Draw(run, {rung: found[rung] for rung in Rung if rung in found})


def _rung(candidate: TrackedRun, run: TrackedRun) -> Rung | None:
    """Where a run stands on the ladder of another of the same cases; nowhere if its length does not fit."""
    rung = rung_of(candidate.mode)
    if candidate.steps == run.steps:
        return rung
    if run.equal_time(candidate):
        return Rung.BASELINE_EQUAL_TIME if rung is Rung.BASELINE else rung if rung in _UNLABELED else None
    return None


def _other_length(candidate: TrackedRun, run: TrackedRun) -> str:
    steps = f"its {candidate.steps} steps are not the {run.steps} of {run.name}"
    if rung_of(candidate.mode) not in (Rung.BASELINE, *_UNLABELED):
        return steps
    ratio = run.time_ratio(candidate)
    took = f"its training took {ratio:.2f} of the time" if ratio == ratio else "the time of one of them was not logged"
    return f"{steps}, and {took} (equal time is within {100 * TIME_TOLERANCE:g} %)"


def _unfit(candidate: TrackedRun, run: TrackedRun) -> str:
    """Why a run cannot be compared with another to whose ladder it would belong."""
    differences = unfair_differences(run, candidate)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        return f"unlike {run.name} it has {', '.join(differences[:3])}{more}"
    cells = [set(zip(one.table["case"], one.table["label"], strict=True)) for one in (candidate, run)]
    return "" if cells[0] == cells[1] else f"it was evaluated on other cases or labels than {run.name}"


def _beside(candidate: TrackedRun, rung: Rung, found: dict[Rung, TrackedRun]) -> str:
    """Why a run cannot stand beside those that were found before."""
    if rung in found:
        return _repeated(candidate, found[rung], "give each an experiment of its own")
    for other in (found[place] for place in _UNLABELED if rung in _UNLABELED and place in found):
        if other.unlabeled_hash != candidate.unlabeled_hash:
            return f"its unlabelled cases are not those of {other.name}"
    return ""


def _repeated(run: TrackedRun, later: TrackedRun, remedy: str) -> str:
    """Why a run is left out in favour of one of the same rung that finished later."""
    different = [] if run.mode == TrainingMode.BASELINE else variant_differences(run, later)
    if not different:
        return f"repeated: {later.name} finished later"
    return (
        f"{later.name} has the same cases, fold and seed and finished later; "
        f"they differ in {', '.join(different)}: {remedy} to compare both"
    )


def _note_roles(roles: dict[str, Role], draw: Draw) -> None:
    own = rung_of(draw.run.mode)
    missing = [str(rung) for rung in CONTROLS[own] if rung not in draw.runs]
    without = f"no {', no '.join(missing)} to compare with" if missing else ""
    roles[draw.run.id] = Role(own if draw.compared else UNPAIRED, without)
    for rung, run in draw.runs.items():
        if run is not draw.run:
            names = {roles[run.id].name, rung.value} - {UNPAIRED}
            roles[run.id] = Role(", ".join(sorted(names)))


def _nearest(run: TrackedRun, matched: Sequence[TrackedRun]) -> str:
    """Why a run belongs to no ladder."""
    if not matched:
        return "there is no run above the baseline"

    def different(other: TrackedRun) -> list[str]:
        return [name for name, value in run.key.items() if other.key[name] != value]

    nearest = min(matched, key=lambda other: len(different(other)))
    return f"nothing to compare it with: the nearest run, {nearest.name}, differs in {', '.join(different(nearest))}"


def _sort_key(group: tuple[str, ...]) -> list[tuple[bool, float, str]]:
    """Numbers by size, before text."""
    keys = []
    for value in group:
        try:
            keys.append((False, float(value.removesuffix(" cases")), ""))
        except ValueError:
            keys.append((True, 0.0, value))
    return keys
