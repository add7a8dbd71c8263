from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from medcontext.comparison import Draw, Group, Rung, TrackedRun, Verdict, compare_group
from medcontext.comparison.cost import cost_notes, cost_table
from medcontext.comparison.rungs import runs_by_rung
from tracked_runs import table, tracked_run

VALUES = {"architecture": "unetr", "dataset": "btcv", "train_fraction": "0.25"}
MODES = {
    Rung.BASELINE: ("baseline", 300),
    Rung.BASELINE_EQUAL_TIME: ("baseline", 700),
    Rung.PATCH_DROPOUT: ("patch_dropout", 300),
    Rung.MASKING_ONLY: ("masking_only", 300),
}
CASES = 4
# over three seeds that differ by 0.01 and cases that do not: Student's t, 4.303, times 0.01 / sqrt(3)
HALF = 4.302653 * 0.01 / math.sqrt(3)


def draws(gains: Mapping[Rung, float], seeds: int = 3, **change: object) -> list[Draw]:
    """MedContext at Dice 0.7, ahead of each control by a gain, less 0.01 with the first seed, more with the third."""
    found = []
    for seed in range(seeds):
        run = tracked_run("medcontext", table({"liver": [0.7] * CASES}), seed=seed, cases=4)
        controls = {}
        for control, gain in gains.items():
            mode, steps = MODES[control]
            dice = 0.7 - gain - 0.01 * (seed - 1)
            controls[control] = tracked_run(mode, table({"liver": [dice] * CASES}), seed=seed, steps=steps, **change)
        found.append(draw(run, controls))
    return found


def draw(run: TrackedRun, controls: Mapping[Rung, TrackedRun]) -> Draw:
    return Draw(run, {**controls, Rung.MEDCONTEXT: run})


def group(steps: float, time: float, patches: float, masking: float, **kwargs: int) -> Group:
    return compare_group(VALUES, draws(dict(zip(MODES, (steps, time, patches, masking), strict=True)), **kwargs))


@pytest.mark.parametrize(
    ("gains", "verdicts", "overall"),
    [
        ((0.1, 0.1, 0.1, 0.1), "helps helps helps helps", "helps"),
        ((0.026, 0.1, 0.1, 0.1), "helps helps helps helps", "helps"),  # HALF is 0.0248
        ((0.024, 0.1, 0.1, 0.1), "inconclusive helps helps helps", "inconclusive"),
        ((0.1, 0.1, 0.024, 0.1), "helps helps inconclusive helps", "inconclusive"),
        ((0.1, -0.1, 0.1, 0.1), "helps hurts helps helps", "hurts"),
        ((0.1, -0.026, 0.0, 0.1), "helps hurts inconclusive helps", "hurts"),
        ((0.1, -0.024, 0.1, 0.1), "helps inconclusive helps helps", "inconclusive"),
        ((-0.1, -0.1, -0.1, -0.1), "hurts hurts hurts hurts", "hurts"),
    ],
)
def test_verdicts(gains: tuple[float, float, float, float], verdicts: str, overall: str) -> None:
    found = group(*gains)
    results = found.subjects[Rung.MEDCONTEXT].results
    assert list(results) == list(MODES)
    assert [result.verdict.replace(" ", "-") for result in results.values()] == verdicts.split()
    assert found.verdict == overall
    for gain, result in zip(gains, results.values(), strict=True):
        assert result.mean == pytest.approx((gain, gain - HALF, gain + HALF), abs=1e-6)
        assert (result.pairs, result.seeds) == (3, 3)


def explanation(*gains: float) -> str:
    return group(*gains).subjects[Rung.MEDCONTEXT].explanation


def test_sentences() -> None:
    assert group(0.041, 0.06, 0.09, 0.1).sentence.startswith(
        "UNETR on btcv, 25 % of the training cases (4), 3 seeds: helps. MedContext is ahead of the baseline at equal "
        "steps by 0.041 (0.016 to 0.066), the baseline at equal time by 0.060 (0.035 to 0.085), patch dropout by 0.090 "
        "(0.065 to 0.115) and masking only by 0.100 (0.075 to 0.125). "
    )
    assert explanation(0.041, -0.063, 0.09, 0.08) == (
        "MedContext is ahead of the baseline at equal steps by 0.041 (0.016 to 0.066), patch dropout by 0.090 (0.065 "
        "to 0.115) and masking only by 0.080 (0.055 to 0.105), and behind the baseline at equal time by 0.063 (0.038 "
        "to 0.088)."
    )
    assert explanation(0.041, 0.06, 0.09, 0.01).endswith(
        "(0.065 to 0.115), and not clearly apart from masking only (+0.010, −0.015 to +0.035)."
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_tell_nothing(seeds: int) -> None:
    found = group(0.1, -0.3, 0.1, 0.1, seeds=seeds)
    assert {result.verdict for result in found.subjects[Rung.MEDCONTEXT].results.values()} == {Verdict.INCONCLUSIVE}
    assert found.verdict == Verdict.INCONCLUSIVE
    assert f"seed{'s' if seeds == 2 else ''}: inconclusive. MedContext is not yet comparable to the b" in found.sentence
    assert f"{seeds} seed{'s' if seeds == 2 else ''}, at least three are needed" in found.sentence


def test_repetitions_on_other_cases_are_no_more_seeds() -> None:
    runs = [
        draw(
            tracked_run("medcontext", table({"liver": [0.9] * CASES}), seed=seed, tags={"dataset": dataset}),
            {Rung.BASELINE: tracked_run("baseline", table({"liver": [0.5] * CASES}), seed=seed)},
        )
        for dataset in ("btcv", "mine")
        for seed in (0, 1)
    ]
    result = compare_group({"architecture": "unetr"}, runs).subjects[Rung.MEDCONTEXT].results[Rung.BASELINE]
    assert (result.pairs, result.seeds, result.verdict) == (4, 2, Verdict.INCONCLUSIVE)


def test_folds_are_repetitions() -> None:
    runs = [
        draw(
            tracked_run("medcontext", table({"liver": [0.9] * CASES}), tags={"fold": str(fold)}),
            {Rung.BASELINE: tracked_run("baseline", table({"liver": [0.5] * CASES}), tags={"fold": str(fold)})},
        )
        for fold in range(3)
    ]
    results = compare_group(VALUES, runs).subjects[Rung.MEDCONTEXT].results
    assert results[Rung.BASELINE].verdict == Verdict.HELPS


def test_missing_controls_are_named() -> None:
    found = compare_group(VALUES, draws({Rung.BASELINE: 0.1}))
    assert found.verdict == Verdict.INCONCLUSIVE  # nothing at equal time
    assert found.subjects[Rung.MEDCONTEXT].explanation.endswith(
        "There is no run of the baseline at equal time, patch dropout and masking only to compare with."
    )
    alone = compare_group(VALUES, [draw(tracked_run(), {})])
    assert alone.sentence == (
        "UNETR on btcv, 25 % of the training cases (15): inconclusive. There is no run of the baseline at equal steps, "
        "the baseline at equal time, patch dropout and masking only to compare with. There are no two rungs to compare "
        "at equal steps or at equal time."
    )


def test_the_baseline_at_equal_time_is_enough_to_help() -> None:
    found = compare_group(VALUES, draws({Rung.BASELINE_EQUAL_TIME: 0.1}))
    assert found.verdict == Verdict.HELPS
    assert "There is no run of the baseline at equal steps, patch dropout and masking only" in found.explanation


def test_with_unlabelled_scans() -> None:
    # 0.7 with labels alone; 75 steps of 2.8 s each take as long as 300 of 0.7 s
    runs = []
    for one in draws({Rung.BASELINE_EQUAL_TIME: 0.1}):
        seed = int(one.run.tags["seed"])
        more = {
            rung: tracked_run(
                mode,
                table({"liver": [dice + 0.01 * (seed - 1)] * CASES}),
                seed=seed,
                steps=75,
                values={"train_seconds": 210},
            )
            for rung, mode, dice in (
                (Rung.PSEUDO_LABELS, "pseudo_labels", 0.65),
                (Rung.MEDCONTEXT_UNLABELED, "medcontext_unlabeled", 0.72),
            )
        }
        runs.append(Draw(one.run, {**one.runs, **more}))
    found = compare_group(VALUES, runs)
    assert list(found.subjects) == [Rung.MEDCONTEXT, Rung.MEDCONTEXT_UNLABELED]
    assert (found.verdict, found.subjects[Rung.MEDCONTEXT_UNLABELED].verdict) == ("helps", "inconclusive")
    # ahead of the baseline by 0.12 + 0.02 * (seed - 1), of MedContext by 0.02 + 0.01 * (seed - 1)
    assert (
        "With unlabelled scans: inconclusive. MedContext with unlabelled scans is ahead of the baseline at equal time "
        "by 0.120 (0.070 to 0.170) and pseudo-labels by 0.070 (0.070 to 0.070), and not clearly apart from MedContext "
        "(+0.020, −0.005 to +0.045)."
    ) in found.explanation


def test_without_medcontext_there_is_no_verdict() -> None:
    runs = [
        Draw(
            tracked_run("masking_only", table({"liver": [0.8] * CASES}), seed=seed),
            {
                Rung.BASELINE: tracked_run("baseline", table({"liver": [0.7] * CASES}), seed=seed),
                Rung.MASKING_ONLY: tracked_run("masking_only", table({"liver": [0.8] * CASES}), seed=seed),
            },
        )
        for seed in range(3)
    ]
    found = compare_group(VALUES, runs)
    assert (found.verdict, dict(found.subjects)) == ("inconclusive", {})
    assert found.explanation.startswith("There is no run of MedContext. Masking only carries the gain, +0.100 (")


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
    assert compare_group(values, [draw(tracked_run(), {})]).title == title


def test_titles_count_the_cases_that_validation_takes() -> None:
    runs = [draw(tracked_run(seed=seed, cases=cases, validation=2), {}) for seed, cases in enumerate((4, 5))]
    assert (
        compare_group({"train_fraction": "0.3"}, runs).title == "30 % of the training cases (4 to 5 and 2 to validate)"
    )


@pytest.mark.parametrize(("ratio", "equal"), [(0.9, False), (0.91, True), (1.1, True), (1.101, False)])
def test_equal_time_is_measured(ratio: float, equal: bool) -> None:
    runs = draws(dict.fromkeys(MODES, 0.1), values={"train_seconds": 210 * ratio})
    results = compare_group(VALUES, runs).subjects[Rung.MEDCONTEXT].results
    assert (Rung.BASELINE_EQUAL_TIME in results) is equal
    assert Rung.BASELINE in results
    if equal:
        assert results[Rung.BASELINE_EQUAL_TIME].seconds_ratio == pytest.approx(ratio)


def test_cost() -> None:
    runs = draws(dict.fromkeys(MODES, 0.1), values={"peak_memory_mib": 800.0})
    costs = cost_table(runs)
    assert costs.index.tolist() == [*MODES, "MedContext"]
    assert costs["steps"].tolist() == [300, 700, 300, 300, 300]
    assert costs["seconds"].tolist() == pytest.approx([90, 210, 90, 90, 210])
    assert costs["step_seconds"].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.3, 0.7])
    assert costs["time_ratio"].tolist() == pytest.approx([1, 7 / 3, 1, 1, 7 / 3])
    assert costs["memory_ratio"].tolist() == pytest.approx([1, 1, 1, 1, 1.25])
    assert costs["processor_seconds"].isna().all()
    assert cost_notes(runs) == []


def test_cost_in_processor_time_where_it_was_logged() -> None:
    ours, baseline = (
        tracked_run(mode, values={"train_processor_seconds": seconds})
        for mode, seconds in (("medcontext", 120.0), ("baseline", 100.0))
    )
    costs = cost_table([draw(ours, {Rung.BASELINE: baseline})])
    assert costs["processor_seconds"].tolist() == [100, 120]
    assert costs["time_ratio"].tolist() == pytest.approx([1, 1.2])


def test_cost_that_was_not_logged_or_has_no_base() -> None:
    ours = tracked_run()
    control = tracked_run("masking_only", values={"train_seconds": 0.0})
    costs = cost_table([draw(ours, {Rung.MASKING_ONLY: control})])
    assert costs["time_ratio"].isna().all()
    assert costs["seconds"].tolist() == pytest.approx([0, 210])


def test_doubts_about_times() -> None:
    values = [{"train_seconds": 300 * seconds} for seconds in (0.7, 0.9)]
    runs = [draw(tracked_run(seed=seed, values=some), {}) for seed, some in enumerate(values)]
    runs.append(draw(tracked_run(seed=2, params={"device": "cuda:0"}, tags={"gpu": "H100"}), {}))
    machines, times = cost_notes(runs)
    assert machines == "The runs trained on different devices (H100, unknown): do not compare their times."
    assert times.startswith("MedContext took 0.7 to 0.9 s for the same step: the machine was shared")


def test_a_control_of_two_runs_is_counted_once() -> None:
    shared = tracked_run("baseline")
    runs = [draw(tracked_run(name=name), {Rung.BASELINE: shared}) for name in "ab"]
    assert {rung: len(members) for rung, members in runs_by_rung(runs).items()} == {
        "baseline at equal steps": 1,
        "MedContext": 2,
    }
