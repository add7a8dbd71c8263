"""Verdicts of a comparison in words: MedContext helps, hurts, or it is inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medcontext.comparison.ladder import Ladder, climb
from medcontext.comparison.results import Result, Verdict, compare_rungs, counted
from medcontext.comparison.rungs import BASELINES, CONTROLS, Basis, Draw, Rung, listed
from medcontext.comparison.runs import TrackedRun
from medcontext.report.page import number

__all__ = ["SUBJECTS", "Group", "Subject", "compare_group", "network_name"]

SUBJECTS = (Rung.MEDCONTEXT, Rung.MEDCONTEXT_UNLABELED)
"""Rungs on which a comparison gives a verdict."""

_NETWORKS = {
    "unetr": "UNETR",
    "swin_unetr": "SwinUNETR",
    "nnformer": "nnFormer",
    "unetr_plus_plus": "UNETR++",
    "resenc_unet": "ResEnc U-Net",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """MedContext, with or without unlabelled scans, against all its controls.

    Attributes:
        rung: which of the two.
        results: results by control, except controls without a pair.
        verdict: ``helps`` only if it beats all its controls, the baseline at equal time among them, ``hurts`` if any
            beats it.
        explanation: the numbers behind the verdict, in words.
    """

    rung: Rung
    results: Mapping[Rung, Result]
    verdict: Verdict
    explanation: str


@dataclass(frozen=True, eq=False)
class Group:
    """All rungs of the ladder in one setting.

    Attributes:
        values: values that the runs of the group have in common, by the names of ``group_by``.
        title: the same in words.
        draws: the runs of each draw of cases.
        subjects: MedContext without and with unlabelled scans, if there are runs.
        ladder: the gain of each rung.
    """

    values: Mapping[str, str]
    title: str
    draws: Sequence[Draw]
    subjects: Mapping[Rung, Subject]
    ladder: Ladder

    @property
    def verdict(self) -> Verdict:
        """The verdict on MedContext or, if it was trained only with unlabelled scans, on that."""
        return next((subject.verdict for subject in self.subjects.values()), Verdict.INCONCLUSIVE)

    @property
    def paragraphs(self) -> Sequence[str]:
        """The numbers behind each verdict, and last the conclusion of the ladder."""
        subjects = list(self.subjects.values())
        first = subjects[0].explanation if subjects else "There is no run of MedContext."
        further = (f"With unlabelled scans: {subject.verdict}. {subject.explanation}" for subject in subjects[1:])
        return [first, *further, self.ladder.sentence]

    @property
    def explanation(self) -> str:
        """All paragraphs in one."""
        return " ".join(self.paragraphs)

    @property
    def sentence(self) -> str:
        """Title, verdict and explanation."""
        return f"{self.title}: {self.verdict}. {self.explanation}"


def network_name(architecture: str) -> str:
    """Return the proper spelling of a network, if it is known, for a bundle's name without ``medcontext_``."""
    return _NETWORKS.get(architecture, architecture)


def compare_group(values: Mapping[str, str], draws: Sequence[Draw]) -> Group:
    """Compare the rungs of a group.

    Args:
        values: values of the group, by the names of ``group_by``.
        draws: draws of the group, from :func:`medcontext.comparison.pairing.pair_runs`.
    """
    subjects = {rung: _subject(rung, draws) for rung in SUBJECTS if any(rung in draw.runs for draw in draws)}
    return Group(values, _title(values, draws), draws, subjects, climb(draws))


def _subject(rung: Rung, draws: Sequence[Draw]) -> Subject:
    by_control = {control: _result_against(rung, control, draws) for control in CONTROLS[rung]}
    results = {control: result for control, result in by_control.items() if result is not None}
    return Subject(rung, results, _overall_verdict(results), _explain(rung, results))


def _result_against(rung: Rung, control: Rung, draws: Sequence[Draw]) -> Result | None:
    """Compare at equal steps; with unlabelled scans at equal time, or at equal steps if more draws have these."""
    bases = [Basis.TIME, Basis.STEPS] if rung is Rung.MEDCONTEXT_UNLABELED else [Basis.STEPS]
    if control in BASELINES:
        bases = [Basis.STEPS if control is Rung.BASELINE else Basis.TIME]
    results = [result for basis in bases if (result := compare_rungs(draws, rung, control, basis)) is not None]
    return max(results, key=lambda result: result.pairs, default=None)


def _overall_verdict(results: Mapping[Rung, Result]) -> Verdict:
    verdicts = {result.verdict for result in results.values()}
    if Verdict.HURTS in verdicts:
        return Verdict.HURTS
    all_help = Rung.BASELINE_EQUAL_TIME in results and verdicts == {Verdict.HELPS}
    return Verdict.HELPS if all_help else Verdict.INCONCLUSIVE


def _explain(rung: Rung, results: Mapping[Rung, Result]) -> str:
    """Return the numbers behind a verdict, and which controls are missing."""
    clauses: dict[str, list[str]] = {}
    for result in results.values():
        relation, numbers = _relation_and_numbers(result)
        clauses.setdefault(relation, []).append(f"{result.lower.phrase} {numbers}")
    parts = [f"{relation} {listed(controls)}" for relation, controls in clauses.items()]
    text = f"{rung} is {', and '.join(parts)}." if parts else ""
    missing = [control.phrase for control in CONTROLS[rung] if control not in results]
    if missing:
        text += f" There is no run of {listed(missing)} to compare with."
    return text.strip()


def _relation_and_numbers(result: Result) -> tuple[str, str]:
    """Return the relation of MedContext to a control, and the numbers behind it."""
    value, low, high = result.mean
    if result.verdict is Verdict.HELPS:
        return "ahead of", f"by {number(value)} ({number(low)} to {number(high)})"
    if result.verdict is Verdict.HURTS:
        return "behind", f"by {number(-value)} ({number(-high)} to {number(-low)})"
    signed = number(value, sign=True)
    if not result.enough:
        return "not yet comparable to", f"({signed}; {counted(result.seeds)}, at least three are needed)"
    return "not clearly apart from", f"({signed}, {number(low, sign=True)} to {number(high, sign=True)})"


def _title(values: Mapping[str, str], draws: Sequence[Draw]) -> str:
    """Return a title such as ``UNETR on btcv, 25 % of the training cases (4), 3 seeds``."""
    rest = dict(values)
    network, dataset = rest.pop("architecture", None), rest.pop("dataset", None)
    words = [network_name(network)] if network else []
    if dataset:
        words.append(f"on {dataset}")
    parts = [" ".join(words)] if words else []
    fraction = rest.pop("train_fraction", None)
    if fraction is not None:
        parts.append(_share_in_words(fraction) + _counts_in_words([draw.run for draw in draws]))
    parts += [f"{name} {value}" for name, value in rest.items()]
    seeds = len({draw.run.unit for draw in draws if draw.compared})
    return ", ".join([*parts, counted(seeds)] if seeds else parts)


def _counts_in_words(runs: Sequence[TrackedRun]) -> str:
    """Return the numbers of training cases and of those for validation, such as `` (4 and 2 to validate)``."""
    training = _range_in_words({count for run in runs if (count := run.num_cases) is not None})
    validation = _range_in_words({count for run in runs if (count := run.num_validation)})
    return f" ({training}{f' and {validation} to validate' if validation else ''})" if training else ""


def _range_in_words(numbers: set[int]) -> str:
    return " to ".join(map(str, dict.fromkeys((min(numbers), max(numbers))))) if numbers else ""


def _share_in_words(fraction: str) -> str:
    try:
        share = float(fraction)
    except ValueError:
        return f"{fraction} to train on"
    return "all training cases" if share == 1 else f"{100 * share:g} % of the training cases"
