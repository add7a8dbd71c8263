from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from medcontext.comparison import Basis, Draw, Rung, TrackedRun, climb
from tracked_runs import table, tracked_run

# a step of 0.3 s, and what it costs more: steps of each rung, and its seconds
LENGTHS = {
    Rung.BASELINE: ("baseline", 300, 90.0),
    Rung.BASELINE_EQUAL_TIME: ("baseline", 400, 120.0),
    Rung.PATCH_DROPOUT: ("patch_dropout", 300, 91.0),
    Rung.MASKING_ONLY: ("masking_only", 300, 92.0),
    Rung.MEDCONTEXT: ("medcontext", 300, 120.0),
    Rung.PSEUDO_LABELS: ("pseudo_labels", 200, 120.0),
    Rung.MEDCONTEXT_UNLABELED: ("medcontext_unlabeled", 200, 121.0),
}
SPREAD = (-0.01, 0.0, 0.01)  # between the draws of cases, of what rests on the rungs below by Student's t with 2:
HALF = 4.302653 * 0.01 / math.sqrt(3)


def run(rung: Rung, dice: float, seed: int, **change: object) -> TrackedRun:
    mode, steps, seconds = LENGTHS[rung]
    values = {"train_seconds": seconds, **change}
    return tracked_run(mode, table({"liver": [dice] * 4}), seed=seed, steps=steps, values=values)


def draws(dice: Mapping[Rung, float], noisy: tuple[Rung, ...] = (), seeds: int = 3) -> list[Draw]:
    """Runs of that Dice; of the noisy rungs 0.01 less with the first seed, and more with the third."""
    return [
        Draw(
            run(next(iter(dice)), 0.5, seed),
            {rung: run(rung, value + (SPREAD[seed] if rung in noisy else 0), seed) for rung, value in dice.items()},
        )
        for seed in range(seeds)
    ]


FULL = {
    Rung.BASELINE: 0.74,
    Rung.BASELINE_EQUAL_TIME: 0.742,
    Rung.PATCH_DROPOUT: 0.736,
    Rung.MASKING_ONLY: 0.769,
    Rung.MEDCONTEXT: 0.77,
    Rung.PSEUDO_LABELS: 0.69,
    Rung.MEDCONTEXT_UNLABELED: 0.78,
}


def test_every_rung_over_the_one_below_and_over_the_baseline() -> None:
    steps = {step.rung: step for step in climb(draws(FULL)).steps}
    assert list(steps) == list(Rung)

    def gains(rung: Rung) -> list[tuple[str, float] | None]:
        found = [over(basis) for over in (steps[rung].over_below, steps[rung].over_baseline) for basis in Basis]
        return [r and (r.lower.key, round(r.mean[0], 6)) for r in found]

    assert gains(Rung.BASELINE) == gains(Rung.BASELINE_EQUAL_TIME) == [None] * 4
    # 91 s are as long as the 90 s of the shorter baseline
    both = [("baseline", -0.004), ("baseline_equal_time", -0.004)]
    assert gains(Rung.PATCH_DROPOUT) == both * 2
    assert gains(Rung.MASKING_ONLY) == [
        *(("patch_dropout", 0.033), ("patch_dropout", 0.033)),
        *(("baseline", 0.029), ("baseline_equal_time", 0.029)),
    ]
    # as many steps as masking only, but as much time as none but the longer baseline
    assert gains(Rung.MEDCONTEXT) == [
        *(("masking_only", 0.001), ("baseline_equal_time", 0.028)),
        *(("baseline", 0.03), ("baseline_equal_time", 0.028)),
    ]
    assert gains(Rung.PSEUDO_LABELS) == [None, ("medcontext", -0.08), None, ("baseline_equal_time", -0.052)]
    assert gains(Rung.MEDCONTEXT_UNLABELED) == [
        *(("pseudo_labels", 0.09), ("pseudo_labels", 0.09)),
        *(None, ("baseline_equal_time", 0.038)),
    ]


def test_means_and_costs() -> None:
    steps = {step.rung: step for step in climb(draws(FULL, noisy=(Rung.MEDCONTEXT,), seeds=2)).steps}
    assert steps[Rung.MEDCONTEXT].mean_dice == pytest.approx(0.765)  # 0.76 and 0.77
    assert (steps[Rung.MEDCONTEXT].runs, steps[Rung.MEDCONTEXT].length) == (2, 300)
    assert [step.cost for step in steps.values()] == pytest.approx(
        [1, 1, 91 / 90, 92 / 90, 120 / 90, 120 / 200 / 0.3, 121 / 200 / 0.3]
    )


def test_costs_are_of_the_longer_baseline_where_there_is_no_other_and_unknown_without() -> None:
    ours, longer = ({rung: 0.7} for rung in (Rung.MEDCONTEXT, Rung.BASELINE_EQUAL_TIME))
    assert climb(draws({**ours, **longer})).steps[-1].cost == pytest.approx(0.4 / 0.3)
    assert math.isnan(climb(draws(ours)).steps[-1].cost)


def test_which_rung_carries_the_gain_and_which_is_not_worth_its_cost() -> None:
    # masking only: 0.029 ± HALF over the baseline, which is better than cells; MedContext: 0.001 ± HALF over masking
    # only, at 1.30 times its time; scans: far over pseudo-labels, 0.010 over MedContext, the best below
    noisy = (Rung.MASKING_ONLY, Rung.PSEUDO_LABELS)
    assert climb(draws(FULL, noisy)).sentence == (
        "Masking only carries the gain, +0.029 (+0.004 to +0.054) over the baseline at equal time; MedContext with "
        "unlabelled scans adds +0.010 (+0.010 to +0.010) over MedContext at equal time; MedContext is not worth its "
        "cost, +0.001 (−0.024 to +0.026) over masking only at equal steps, where a step takes 1.30 times as long; "
        "pseudo-labels is not worth its cost, −0.080 (−0.105 to −0.055) over MedContext at equal time, where a step "
        "takes 1.50 times as long."
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        # dearer than MedContext and no better, although far better than pseudo-labels
        (
            {Rung.MEDCONTEXT_UNLABELED: 0.76},
            "MedContext with unlabelled scans is not worth its cost, −0.010 (−0.010 to −0.010) over MedContext at "
            "equal time, where a step takes 1.51 times as long.",
        ),
        # cells hurt, and organs only make up for it
        (
            {Rung.PATCH_DROPOUT: 0.68, Rung.MASKING_ONLY: 0.738, Rung.MEDCONTEXT: 0.738},
            "MedContext with unlabelled scans carries the gain, +0.038 (+0.038 to +0.038) over the baseline at equal",
        ),
        (
            {Rung.MASKING_ONLY: 0.73, Rung.MEDCONTEXT: 0.73, Rung.MEDCONTEXT_UNLABELED: 0.73},
            "No rung carries a gain, none is clearly ahead of the baseline; MedContext is not worth its cost, −0.012",
        ),
    ],
)
def test_sentences_of_other_ladders(change: dict[Rung, float], sentence: str) -> None:
    assert sentence in climb(draws({**FULL, **change})).sentence


def test_small_steps_that_add_up() -> None:
    # each 0.02 ± HALF over the one below, with opposite spreads; both over the baseline 0.04
    dice = {Rung.BASELINE: 0.70, Rung.PATCH_DROPOUT: 0.72, Rung.MASKING_ONLY: 0.74}
    assert climb(draws(dice, noisy=(Rung.PATCH_DROPOUT,))).sentence == (
        "No single rung carries the gain, masking only has +0.040 (+0.040 to +0.040) over the baseline at equal time, "
        "but none is clearly ahead of all below; no rung costs time without a clear gain."
    )


@pytest.mark.parametrize(
    ("baseline", "sentence"),
    [
        (
            Rung.BASELINE,
            "over the baseline at equal steps; whether MedContext is worth its cost cannot be told, +0.050 (+0.050 to "
            "+0.050) over the baseline at equal steps, where a step takes 1.33 times as long.",
        ),
        (
            Rung.BASELINE_EQUAL_TIME,
            "over the baseline at equal time; no rung costs time without a clear gain.",
        ),
    ],
)
def test_a_gain_at_equal_steps_alone_leaves_the_cost_open(baseline: Rung, sentence: str) -> None:
    assert climb(draws({baseline: 0.70, Rung.MEDCONTEXT: 0.75})).sentence == (
        f"MedContext carries the gain, +0.050 (+0.050 to +0.050) {sentence}"
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_tell_nothing(seeds: int) -> None:
    counted = "1 seed" if seeds == 1 else "2 seeds"
    ladder = climb(draws(FULL, seeds=seeds))
    assert ladder.sentence == f"Which rung carries the gain cannot be told yet: {counted}, at least three are needed."
    assert f"+0.033 ({counted}) over patch dropout at equal steps" in ladder.steps[3].line


def test_rungs_of_few_seeds_do_not_hide_others() -> None:
    some = draws(FULL)
    fewer = [Draw(draw.run, {r: o for r, o in draw.runs.items() if r is not Rung.MASKING_ONLY}) for draw in some[:2]]
    ladder = climb([*fewer, some[2]])
    ours = next(step for step in ladder.steps if step.rung is Rung.MEDCONTEXT)
    below = ours.over_below(Basis.STEPS)
    assert below is not None
    assert (below.lower, below.seeds) == (Rung.PATCH_DROPOUT, 3)  # masking only is nearer, with one seed
    assert ladder.sentence.endswith("; there are too few seeds to tell of masking only.")


def test_one_rung_alone_says_nothing() -> None:
    ladder = climb(draws({Rung.MASKING_ONLY: 0.7}))
    assert ladder.sentence == "There are no two rungs to compare at equal steps or at equal time."
    assert [step.line for step in ladder.steps] == ["masking only: Dice 0.700"]
