"""Made-up learning curves, whose worth in labelled cases follows from their formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from medcontext.comparison import Draw, Rung, TrackedRun, compare_group
from medcontext.comparison.efficiency import Efficiency, label_efficiency
from medcontext.comparison.few_shot import few_shot
from tracked_runs import table, tracked_run

Curve = Callable[[float], float]
TIME = Rung.BASELINE_EQUAL_TIME


def plain(cases: float) -> float:
    """Error 0.6 with six cases, which falls with the root of their number."""
    return float(1 - 0.6 * (cases / 6) ** -0.5)


def constant(dice: float) -> Curve:
    return lambda _: dice


def run(rung: Rung, dice: float, cases: int | None, seed: int) -> TrackedRun:
    mode = "baseline" if rung in (TIME, Rung.BASELINE) else rung.key
    name = f"{rung}-n{cases}-s{seed}"
    return tracked_run(mode, table({"liver": [dice] * 2}), seed=seed, cases=cases, name=name)


def draws(
    curves: dict[Rung, Curve], numbers: Sequence[int | None] = (6, 12, 24), seeds: int = 3, spread: float = 0.0
) -> list[Draw]:
    """Runs on the curves, the first seed lower and the last higher by a spread, the same on all rungs."""
    found = []
    for cases in numbers:
        for seed in range(seeds):
            off = spread * (seed - (seeds - 1) / 2)
            runs = {rung: run(rung, curve(cases or 1) + off, cases, seed) for rung, curve in curves.items()}
            found.append(Draw(runs[max(runs, key=list(Rung).index)], runs))
    return found


def efficiency(own: Curve, base: Curve = plain, **change: float) -> Efficiency:
    return label_efficiency(draws({TIME: base, Rung.MEDCONTEXT: own}, **change))  # type: ignore[arg-type]


def test_six_labels_do_what_eleven_do() -> None:
    found = efficiency(lambda cases: plain(cases * 11 / 6))
    assert [(worth.cases, worth.equal_text) for worth in found.worths] == [(6, "11"), (12, "22"), (24, "44")]
    assert [worth.extrapolated for worth in found.worths] == [False, False, True]
    assert found.worths[0].equal == pytest.approx((11, 11, 11), rel=0.01)
    # from 24 to 48 cases the error falls from 0.6 (24 · 11 / 36)^-½ by 1 - 1/√2
    gain = 0.6 * (44 / 6) ** -0.5 * (1 - 0.5**0.5)
    assert found.worths[2].doubling == pytest.approx((gain, gain, gain), abs=2e-3)
    assert found.sentences == [
        "MedContext: 6 labelled cases do what 11 do with the baseline at equal time (95 % interval 11); 48 instead of "
        "24 would bring +0.065 (+0.065 to +0.065) Dice, extrapolated."
    ]


def test_unlabelled_scans_have_a_worth_of_their_own() -> None:
    curves = {TIME: plain, Rung.MEDCONTEXT: plain, Rung.MEDCONTEXT_UNLABELED: lambda cases: plain(2 * cases)}
    first, second = label_efficiency(draws(curves)).sentences
    assert first.startswith("MedContext: 6 labelled cases do what 6 do with the baseline at equal time (")
    assert second.startswith("MedContext with unlabelled scans: 6 labelled cases do what 12 do with the baseline ")


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        (lambda cases: plain(20 * cases), "more than 48"),
        (lambda cases: plain(cases / 3), "fewer than 3"),
        (constant(0.99), "more than 48"),
    ],
)
def test_nothing_is_worth_more_than_twice_what_was_trained(own: Curve, shown: str) -> None:
    first = efficiency(own).worths[0]
    assert (first.equal_text, first.interval_text, first.extrapolated) == (shown, shown, True)
    assert first.equal_within_reach != first.equal
    assert f"do what {shown} do with" in first.equal_clause


def test_noise_widens_the_interval_around_the_same_worth() -> None:
    few = draws({TIME: plain, Rung.MEDCONTEXT: lambda cases: plain(2 * cases)}, spread=0.04)
    # the same draws are lucky on both rungs, but for one number of cases
    odd = Draw(few[4].run, {**few[4].runs, TIME: run(TIME, plain(12) + 0.03, 12, 1)})
    (quiet, *_), (noisy, *_) = (label_efficiency(some).worths for some in (few, [*few[:4], odd, *few[5:]]))
    assert quiet.equal[0] == pytest.approx(12, rel=0.02)
    assert noisy.equal[2] - noisy.equal[1] > 3 * (quiet.equal[2] - quiet.equal[1])


def test_more_seeds_narrow_the_interval() -> None:
    def width(seeds: int) -> float:
        draws_of = draws({TIME: plain, Rung.MEDCONTEXT: plain}, seeds=seeds, spread=0.04 / (seeds - 1))
        low, high = label_efficiency(draws_of).worths[0].doubling[1:]
        return high - low

    assert width(6) < 0.6 * width(3)


def test_flat_curves_do_not_tell() -> None:
    found = efficiency(constant(0.7), base=constant(0.7), spread=0.02)
    assert found.worths[0].equal_text == "–"
    assert all(map(math.isnan, found.worths[0].equal_within_reach))
    assert found.sentences[0].startswith(
        "MedContext: how many labelled cases the baseline at equal time needs to do what 6 do cannot be told; 48 "
        "instead of 24 would bring +0.000 "
    )


def test_the_baseline_that_has_a_curve_is_taken() -> None:
    both = draws({Rung.BASELINE: plain, Rung.MEDCONTEXT: plain})
    few = [Draw(both[0].run, {**both[0].runs, TIME: run(TIME, 0.5, 6, 0)}), *both[1:]]
    assert label_efficiency(few).worths[0].control is Rung.BASELINE
    assert (
        label_efficiency(draws({Rung.BASELINE: plain, TIME: plain, Rung.MEDCONTEXT: plain})).worths[0].control is TIME
    )


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        (
            draws({TIME: plain, Rung.MEDCONTEXT: plain}, numbers=(6, 12)),
            "MedContext and the baseline at equal time need 3 draws with another number of labelled cases.",
        ),
        (
            draws({TIME: plain, Rung.MEDCONTEXT: plain}, numbers=(6,), seeds=2),
            "MedContext and the baseline at equal time need 1 more draw with 6 labelled cases and 3 draws with each of "
            "2 other numbers of labelled cases.",
        ),
        (
            [*draws({TIME: plain, Rung.MEDCONTEXT: plain}), *draws({Rung.MEDCONTEXT: plain}, numbers=(48,))][1:],
            "the baseline at equal time needs 1 more draw with 6 labelled cases.",
        ),
        (
            draws({Rung.MASKING_ONLY: plain, Rung.MEDCONTEXT: plain}),
            "the baseline at equal time needs 3 draws with each of 3 other numbers of labelled cases.",
        ),
        (
            draws({TIME: plain, Rung.MEDCONTEXT: plain}, numbers=(None, None)),  # it was not logged
            "MedContext and the baseline at equal time need 3 draws with each of 3 other numbers of labelled cases.",
        ),
    ],
)
def test_what_is_missing_is_named(found: list[Draw], needs: str) -> None:
    said = label_efficiency(found)
    assert said.worths == []
    assert said.sentences == [
        f"What MedContext is worth in labelled cases cannot be told yet: {needs} A curve is fitted from at least three "
        "numbers of labelled cases with three draws each."
    ]


def test_without_medcontext_there_is_nothing_to_say() -> None:
    said = label_efficiency(draws({TIME: plain, Rung.MASKING_ONLY: plain}))
    assert said.sentences == []
    assert set(said.curves) == {TIME, Rung.MASKING_ONLY}


@pytest.mark.parametrize("group_by", ["train_fraction", "seed"])
def test_draws_of_one_setting_are_taken_together(group_by: str) -> None:
    found = draws({TIME: plain, Rung.MEDCONTEXT: plain})
    groups = [compare_group({group_by: str(number)}, [one]) for number, one in enumerate(found)]
    (setting,) = few_shot(groups)
    assert (setting.title, len(setting.draws), setting.has_curve) == ("UNETR on btcv", 9, True)
    apart = [compare_group({"learning_rate": str(number)}, [one]) for number, one in enumerate(found[:2])]
    assert [one.title for one in few_shot(apart)] == [f"UNETR on btcv, learning_rate {n}" for n in range(2)]
