"""Which runs are on the ladder of the same draw of cases, and why others are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medcontext.checks import nearest_name
from medcontext.comparison.rungs import BASELINES, CONTROLS, Draw, Rung, rung_of
from medcontext.comparison.runs import TIME_TOLERANCE, TrackedRun
from medcontext.comparison.settings import unfair_differences, variant_differences
from medcontext.engines import TrainingMode

__all__ = ["UNPAIRED", "Pairing", "Role", "check_group_by", "group_value", "pair_runs"]

UNPAIRED = "unpaired"

# the others are matched to the runs of the first of these modes that exists for the same cases, fold and seed
_REFERENCE_MODES = (
    *(TrainingMode.MEDCONTEXT, TrainingMode.MASKING_ONLY, TrainingMode.PATCH_DROPOUT),
    *(TrainingMode.MEDCONTEXT_UNLABELED, TrainingMode.PSEUDO_LABELS),
)
_UNLABELED = (Rung.PSEUDO_LABELS, Rung.MEDCONTEXT_UNLABELED)  # may train for equal time instead of equal steps


@dataclass(frozen=True)
class Role:
    """A run's part in the comparison, or ``unpaired``, and the reason."""

    name: str
    reason: str = ""


@dataclass
class Pairing:
    """Result of :func:`pair_runs`.

    Attributes:
        groups: draws with the runs of their ladder, by the values of ``group_by``.
        roles: role of every run by its identifier.
    """

    groups: dict[tuple[str, ...], list[Draw]] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)


def check_group_by(names: Sequence[str], runs: Iterable[TrackedRun]) -> None:
    """Refuse to group by a name that no run has.

    Raises:
        ValueError: If no run has it; the message gives the most similar name and those that there are.
    """
    runs = list(runs)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"group_by must name at least one, and each only once, got {', '.join(names) or 'none'}.")
    listed = {"architecture"}.union(*((*run.tags, *run.params) for run in runs))
    known = listed.union(*(run.settings for run in runs))
    for name in names:
        if _tag(name) not in known:
            hint = nearest_name(name, sorted(known))
            raise ValueError(f"No run has a {name!r} to group by.{hint} There are {', '.join(sorted(listed))}.")


def group_value(run: TrackedRun, name: str) -> str:
    """Return the value by which a run is grouped.

    Args:
        run: the run.
        name: ``architecture``, the bundle's name without ``medcontext_``; ``train_fraction``, or the number of cases
            if that was chosen; a tag ``medcontext.<name>``; a hyperparameter; or the id of a configuration's leaf,
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
    """Find the runs that are on the ladder of the same draw of cases.

    They have the bundle, the dataset, the labelled training and validation cases, the test cases, the fold and the seed
    in common, and differ in nothing else that matters (:func:`unfair_differences`). All are matched to a reference run:
    that of MedContext or, if there is none, of the highest other rung without unlabelled scans, or else with them. Runs
    without unlabelled scans and the baseline match at equal steps, the baseline at equal time at equal measured time
    (within 10 %), and runs with unlabelled scans at either. The existing rungs form a draw. The two rungs with
    unlabelled scans must have the same scans. Of repeated runs in a group, the one that finished last is taken.

    Args:
        runs: all runs of the experiment.
        group_by: names for :func:`group_value` of the reference run.

    Returns:
        The groups in the order of their values, and the role of every run.
    """
    pairing = Pairing(roles={run.id: Role(UNPAIRED, run.problem) for run in runs})
    usable = sorted((run for run in runs if not run.problem), key=lambda run: run.end_time, reverse=True)
    reference_modes = _reference_modes(usable)
    references = [run for run in usable if reference_modes.get(_key(run)) == run.mode]
    others = [run for run in usable if reference_modes.get(_key(run)) != run.mode]
    rejections: dict[str, str] = {}
    taken: dict[tuple[object, ...], TrackedRun] = {}
    for run in references:
        group = tuple(group_value(run, name) for name in group_by)
        latest = taken.setdefault((group, *_key(run)), run)
        if latest is not run:
            pairing.roles[run.id] = Role(UNPAIRED, _repeated(run, latest, "name one of these in group_by"))
            continue
        draw = _match_draw(run, others, rejections)
        pairing.groups.setdefault(group, []).append(draw)
        _note_roles(pairing.roles, draw)
    for run in others:
        if pairing.roles[run.id].name == UNPAIRED:
            reason = rejections.get(run.id) or _difference_to_nearest(run, list(taken.values()))
            pairing.roles[run.id] = Role(UNPAIRED, reason)
    pairing.groups = {group: pairing.groups[group][::-1] for group in sorted(pairing.groups, key=_sort_key)}
    return pairing


def _key(run: TrackedRun) -> tuple[str, ...]:
    return tuple(run.key.values())


def _reference_modes(runs: Iterable[TrackedRun]) -> dict[tuple[str, ...], str]:
    """Return the mode of the reference runs by cases, fold and seed; none where there are baselines alone."""
    modes_of: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        modes_of.setdefault(_key(run), set()).add(run.mode)
    references = {key: [mode for mode in _REFERENCE_MODES if mode in modes] for key, modes in modes_of.items()}
    return {key: modes[0] for key, modes in references.items() if modes}


def _match_draw(run: TrackedRun, candidates: Iterable[TrackedRun], rejections: dict[str, str]) -> Draw:
    """Return the runs that match a reference run, from candidates of which the latest comes first."""
    matches = {rung_of(run.mode): run}
    for candidate in candidates:
        if candidate.key != run.key:
            continue
        rung = _rung_beside(candidate, run)
        reason = _unfair_reason(candidate, run) if rung else _length_reason(candidate, run)
        if rung and not reason:
            reason = _conflict_reason(candidate, rung, matches)
        if reason:
            rejections.setdefault(candidate.id, reason)
        elif rung:
            matches[rung] = candidate
    steps, time = BASELINES
    if steps in matches and run.equal_time(matches[steps]):
        matches.setdefault(time, matches[steps])
    return Draw(run, {rung: matches[rung] for rung in Rung if rung in matches})


def _rung_beside(candidate: TrackedRun, run: TrackedRun) -> Rung | None:
    """Return a run's rung on the ladder of another of the same cases, or none if its length does not match."""
    rung = rung_of(candidate.mode)
    if candidate.steps == run.steps:
        return rung
    if run.equal_time(candidate):
        return Rung.BASELINE_EQUAL_TIME if rung is Rung.BASELINE else rung if rung in _UNLABELED else None
    return None


def _length_reason(candidate: TrackedRun, run: TrackedRun) -> str:
    steps = f"its {candidate.steps} steps are not the {run.steps} of {run.name}"
    if rung_of(candidate.mode) not in (Rung.BASELINE, *_UNLABELED):
        return steps
    ratio = run.time_ratio(candidate)
    took = f"its training took {ratio:.2f} of the time" if ratio == ratio else "the time of one of them was not logged"
    return f"{steps}, and {took} (equal time is within {100 * TIME_TOLERANCE:g} %)"


def _unfair_reason(candidate: TrackedRun, run: TrackedRun) -> str:
    """Say why a run of matching length cannot be compared with the reference run, if so."""
    differences = unfair_differences(run, candidate)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        return f"unlike {run.name} it has {', '.join(differences[:3])}{more}"
    measured = [set(zip(one.table["case"], one.table["label"], strict=True)) for one in (candidate, run)]
    return "" if measured[0] == measured[1] else f"it was evaluated on other cases or labels than {run.name}"


def _conflict_reason(candidate: TrackedRun, rung: Rung, matches: dict[Rung, TrackedRun]) -> str:
    """Say why a run conflicts with earlier matches, if so."""
    if rung in matches:
        return _repeated(candidate, matches[rung], "give each an experiment of its own")
    for other in (matches[lower] for lower in _UNLABELED if rung in _UNLABELED and lower in matches):
        if other.unlabeled_hash != candidate.unlabeled_hash:
            return f"its unlabelled cases are not those of {other.name}"
    return ""


def _repeated(run: TrackedRun, later: TrackedRun, remedy: str) -> str:
    """Say why a run is left out in favour of one of the same rung that finished later."""
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


def _difference_to_nearest(run: TrackedRun, references: Sequence[TrackedRun]) -> str:
    """Say why a run is on no ladder: how it differs from the nearest reference run."""
    if not references:
        return "there is no run above the baseline"

    def different(other: TrackedRun) -> list[str]:
        return [name for name, value in run.key.items() if other.key[name] != value]

    nearest = min(references, key=lambda other: len(different(other)))
    return f"nothing to compare it with: the nearest run, {nearest.name}, differs in {', '.join(different(nearest))}"


def _sort_key(group: tuple[str, ...]) -> list[tuple[bool, float, str]]:
    """Return the sort key of a group: numbers by size, before text."""
    keys = []
    for value in group:
        try:
            keys.append((False, float(value.removesuffix(" cases")), ""))
        except ValueError:
            keys.append((True, 0.0, value))
    return keys
