from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from medcontext.comparison import Control, Group, PairedRun, Verdict, compare_group
from medcontext.comparison.cost import cost_notes, cost_table, runs_by_role
from tracked_runs import table, tracked_run

VALUES = {"architecture": "unetr", "dataset": "btcv", "train_fraction": "0.25"}
MODES = {
    Control.EQUAL_STEPS: ("baseline", 300),
    Control.EQUAL_TIME: ("baseline", 700),
    Control.MASKING_ONLY: ("masking_only", 300),
}
CASES = 4
# over three seeds that differ by 0.01 and cases that do not: Student's t, 4.303, times 0.01 / sqrt(3)
HALF = 4.302653 * 0.01 / math.sqrt(3)


def pairs(gains: Mapping[Control, float], seeds: int = 3, **change: object) -> list[PairedRun]:
    """MedContext at Dice 0.7, ahead of each control by a gain, less 0.01 with the first seed, more with the third."""
    found = []
    for seed in range(seeds):
        controls = {}
        for control, gain in gains.items():
            mode, steps = MODES[control]
            dice = 0.7 - gain - 0.01 * (seed - 1)
            controls[control] = tracked_run(mode, table({"liver": [dice] * CASES}), seed=seed, steps=steps, **change)
        found.append(
            PairedRun(tracked_run("medcontext", table({"liver": [0.7] * CASES}), seed=seed, cases=4), controls)
        )
    return found


def group(steps: float, time: float, masking: float, **kwargs: int) -> Group:
    return compare_group(VALUES, pairs(dict(zip(Control, (steps, time, masking), strict=True)), **kwargs))


@pytest.mark.parametrize(
    ("gains", "verdicts", "overall"),
    [
        ((0.1, 0.1, 0.1), "helps helps helps", "helps"),
        ((0.026, 0.1, 0.1), "helps helps helps", "helps"),  # HALF is 0.0248
        ((0.024, 0.1, 0.1), "cannot-tell helps helps", "cannot tell"),
        ((0.1, -0.1, 0.1), "helps hurts helps", "hurts"),
        ((0.1, -0.026, 0.0), "helps hurts cannot-tell", "hurts"),
        ((0.1, -0.024, 0.1), "helps cannot-tell helps", "cannot tell"),
        ((-0.1, -0.1, -0.1), "hurts hurts hurts", "hurts"),
    ],
)
def test_verdicts(gains: tuple[float, float, float], verdicts: str, overall: str) -> None:
    found = group(*gains)
    assert [result.verdict.replace(" ", "-") for result in found.results.values()] == verdicts.split()
    assert found.verdict == overall
    for gain, result in zip(gains, found.results.values(), strict=True):
        assert result.mean == pytest.approx((gain, gain - HALF, gain + HALF), abs=1e-6)
        assert (result.pairs, result.seeds) == (3, 3)


def test_sentences() -> None:
    assert group(0.041, 0.06, 0.1).sentence == (
        "UNETR on btcv, 25 % of the training cases (4), 3 seeds: helps. MedContext is ahead of the baseline at equal "
        "steps by 0.041 (0.016 to 0.066), the baseline at equal time by 0.060 (0.035 to 0.085) and masking only by "
        "0.100 (0.075 to 0.125)."
    )
    assert group(0.041, -0.063, 0.08).sentence == (
        "UNETR on btcv, 25 % of the training cases (4), 3 seeds: hurts. MedContext is ahead of the baseline at equal "
        "steps by 0.041 (0.016 to 0.066) and masking only by 0.080 (0.055 to 0.105), and behind the baseline at equal "
        "time by 0.063 (0.038 to 0.088)."
    )
    assert group(0.041, 0.06, 0.01).sentence.endswith(
        "(0.035 to 0.085), and not clearly apart from masking only (+0.010, −0.015 to +0.035)."
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_tell_nothing(seeds: int) -> None:
    found = group(0.1, -0.3, 0.1, seeds=seeds)
    assert {result.verdict for result in found.results.values()} == {Verdict.CANNOT_TELL}
    assert found.verdict == Verdict.CANNOT_TELL
    assert f"seed{'s' if seeds == 2 else ''}: cannot tell. MedContext is not yet comparable to the b" in found.sentence
    assert f"{seeds} seed{'s' if seeds == 2 else ''}, at least three are needed" in found.sentence


def test_repetitions_on_other_cases_are_no_more_seeds() -> None:
    runs = [
        PairedRun(
            tracked_run("medcontext", table({"liver": [0.9] * CASES}), seed=seed, tags={"dataset": dataset}),
            {Control.EQUAL_STEPS: tracked_run("baseline", table({"liver": [0.5] * CASES}), seed=seed)},
        )
        for dataset in ("btcv", "mine")
        for seed in (0, 1)
    ]
    result = compare_group({"architecture": "unetr"}, runs).results[Control.EQUAL_STEPS]
    assert (result.pairs, result.seeds, result.verdict) == (4, 2, Verdict.CANNOT_TELL)


def test_folds_are_repetitions() -> None:
    runs = [
        PairedRun(
            tracked_run("medcontext", table({"liver": [0.9] * CASES}), tags={"fold": str(fold)}),
            {Control.EQUAL_STEPS: tracked_run("baseline", table({"liver": [0.5] * CASES}), tags={"fold": str(fold)})},
        )
        for fold in range(3)
    ]
    assert compare_group(VALUES, runs).results[Control.EQUAL_STEPS].verdict == Verdict.HELPS


def test_missing_controls_are_named() -> None:
    found = compare_group(VALUES, pairs({Control.EQUAL_STEPS: 0.1}))
    assert found.verdict == Verdict.CANNOT_TELL
    assert found.explanation.endswith("There is no run of the baseline at equal time and masking only to compare with.")
    alone = compare_group(VALUES, [PairedRun(tracked_run(), {})])
    assert alone.sentence == (
        "UNETR on btcv, 25 % of the training cases (15): cannot tell. There is no run of the baseline at equal steps, "
        "the baseline at equal time and masking only to compare with."
    )


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"architecture": "mine", "dataset": "acdc", "train_fraction": "1"}, "mine on acdc, all training cases (15)"),
        ({"dataset": "acdc", "train_fraction": "3 cases"}, "on acdc, 3 cases to train on (15)"),
        ({"architecture": "unetr_plus_plus", "consistency_weight": "0"}, "UNETR++, consistency_weight 0"),
        ({"steps": "300"}, "steps 300"),
    ],
)
def test_titles(values: dict[str, str], title: str) -> None:
    assert compare_group(values, [PairedRun(tracked_run(), {})]).title == title


@pytest.mark.parametrize(("ratio", "unequal"), [(0.79, True), (0.8, False), (1.25, False), (1.26, True)])
def test_equal_time_is_measured(ratio: float, unequal: bool) -> None:
    runs = pairs(dict.fromkeys(Control, 0.1), values={"train_seconds": 210 * ratio})
    results = compare_group(VALUES, runs).results
    assert results[Control.EQUAL_TIME].seconds_ratio == pytest.approx(ratio)
    assert results[Control.EQUAL_TIME].unequal_time is unequal
    assert results[Control.EQUAL_STEPS].unequal_time is False
    told = f"As measured, the baseline at equal time took {ratio:.2f} of MedContext's time."
    assert (told in compare_group(VALUES, runs).sentence) is unequal


def test_cost() -> None:
    runs = pairs(dict.fromkeys(Control, 0.1), values={"peak_memory_mib": 800.0})
    costs = cost_table(runs)
    assert costs.index.tolist() == ["MedContext", *Control]
    assert costs["steps"].tolist() == [300, 300, 700, 300]
    assert costs["seconds"].tolist() == pytest.approx([210, 90, 210, 90])
    assert costs["step_seconds"].tolist() == pytest.approx([0.7, 0.3, 0.3, 0.3])
    assert costs["time_ratio"].tolist() == pytest.approx([7 / 3, 1, 7 / 3, 1])
    assert costs["memory_ratio"].tolist() == pytest.approx([1.25, 1, 1, 1])
    assert cost_notes(runs) == []


def test_cost_that_was_not_logged_or_has_no_base() -> None:
    ours = tracked_run()
    control = tracked_run("masking_only", values={"train_seconds": 0.0})
    costs = cost_table([PairedRun(ours, {Control.MASKING_ONLY: control})])
    assert costs["time_ratio"].isna().all()
    assert costs["seconds"].tolist() == pytest.approx([210, 0])


def test_doubts_about_times() -> None:
    values = [{"train_seconds": 300 * seconds} for seconds in (0.7, 0.9)]
    runs = [PairedRun(tracked_run(seed=seed, values=some), {}) for seed, some in enumerate(values)]
    runs.append(PairedRun(tracked_run(seed=2, params={"device": "cuda:0"}, tags={"gpu": "H100"}), {}))
    machines, times = cost_notes(runs)
    assert machines == "The runs trained on different devices (H100, unknown): do not compare their times."
    assert times.startswith("MedContext took 0.7 to 0.9 s for the same step: the machine was shared")


def test_a_control_of_two_runs_is_counted_once() -> None:
    shared = tracked_run("baseline")
    runs = [PairedRun(tracked_run(name=name), {Control.EQUAL_STEPS: shared}) for name in "ab"]
    assert {role: len(members) for role, members in runs_by_role(runs).items()} == {
        "MedContext": 2,
        "baseline at equal steps": 1,
    }
