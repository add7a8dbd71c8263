from __future__ import annotations

import math
from typing import Any

import pytest

from medcontext.comparison import Role, Rung, TrackedRun, pair_runs
from medcontext.comparison.pairing import check_group_by, group_value
from tracked_runs import CONFIG, table, tracked_run

GROUP_BY = ("architecture", "dataset", "train_fraction")
MEDCONTEXT = tracked_run(name="ours")


def reason(run: TrackedRun, *others: TrackedRun, group_by: tuple[str, ...] = GROUP_BY) -> str:
    """Why a run is unpaired."""
    role = pair_runs([*others, run], group_by).roles[run.id]
    assert role.name == "unpaired"
    return role.reason


LADDER = {
    Rung.BASELINE: tracked_run("baseline"),
    Rung.BASELINE_EQUAL_TIME: tracked_run("baseline", steps=700),
    Rung.PATCH_DROPOUT: tracked_run("patch_dropout"),
    Rung.MASKING_ONLY: tracked_run("masking_only"),
    Rung.MEDCONTEXT: MEDCONTEXT,
    Rung.PSEUDO_LABELS: tracked_run("pseudo_labels", steps=150, tags={"unlabeled_hash": "scans"}),
    Rung.MEDCONTEXT_UNLABELED: tracked_run("medcontext_unlabeled", steps=150, tags={"unlabeled_hash": "scans"}),
}


def test_the_whole_ladder() -> None:
    pairing = pair_runs(list(LADDER.values()), GROUP_BY)
    ((group, (draw,)),) = pairing.groups.items()
    assert group == ("unetr", "btcv", "1")
    assert draw.run is MEDCONTEXT
    assert dict(draw.runs) == LADDER
    assert {rung: pairing.roles[run.id] for rung, run in LADDER.items()} == {rung: Role(rung) for rung in Rung}


@pytest.mark.parametrize(
    ("rungs", "matched_to"),
    [
        ((Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT, Rung.MEDCONTEXT_UNLABELED), Rung.MEDCONTEXT),
        ((Rung.BASELINE, Rung.PATCH_DROPOUT, Rung.MASKING_ONLY), Rung.MASKING_ONLY),
        ((Rung.BASELINE, Rung.PATCH_DROPOUT), Rung.PATCH_DROPOUT),
        ((Rung.BASELINE_EQUAL_TIME, Rung.PSEUDO_LABELS, Rung.MEDCONTEXT_UNLABELED), Rung.MEDCONTEXT_UNLABELED),
        ((Rung.BASELINE_EQUAL_TIME, Rung.PSEUDO_LABELS), Rung.PSEUDO_LABELS),
        ((Rung.MASKING_ONLY, Rung.MEDCONTEXT), Rung.MEDCONTEXT),
    ],
)
def test_some_rungs_make_a_draw(rungs: tuple[Rung, ...], matched_to: Rung) -> None:
    pairing = pair_runs([LADDER[rung] for rung in rungs], GROUP_BY)
    ((draw,),) = pairing.groups.values()
    assert draw.run is LADDER[matched_to]
    assert list(dict.fromkeys(draw.runs.values())) == [LADDER[rung] for rung in rungs]
    assert not any(role.name == "unpaired" for role in pairing.roles.values())


def test_a_baseline_of_as_many_steps_and_as_much_time_stands_on_both_its_rungs() -> None:
    masked, plain = LADDER[Rung.MASKING_ONLY], LADDER[Rung.BASELINE]
    pairing = pair_runs([masked, plain], GROUP_BY)
    ((draw,),) = pairing.groups.values()
    assert draw.runs == {Rung.BASELINE: plain, Rung.BASELINE_EQUAL_TIME: plain, Rung.MASKING_ONLY: masked}
    assert pairing.roles[plain.id].name == "baseline at equal steps, baseline at equal time"


@pytest.mark.parametrize(
    ("steps", "rung"),
    [
        (300, Rung.BASELINE),
        (637, Rung.BASELINE_EQUAL_TIME),  # 191 s, of which 1.1 is 210
        (770, Rung.BASELINE_EQUAL_TIME),
        (636, None),
        (771, None),
    ],
)
def test_length_of_a_baseline(steps: int, rung: Rung | None) -> None:
    pairing = pair_runs([MEDCONTEXT, tracked_run("baseline", steps=steps)], GROUP_BY)
    ((draw,),) = pairing.groups.values()
    assert list(draw.runs) == ([rung] if rung else []) + [Rung.MEDCONTEXT]


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        ({"train_processor_seconds": 100.0}, {"train_processor_seconds": 110.0, "train_seconds": 999.0}, True),
        ({"train_processor_seconds": 100.0}, {"train_processor_seconds": 111.0, "train_seconds": 210.0}, False),
        ({"train_processor_seconds": 100.0}, {"train_seconds": 210.0}, True),  # one has no processor time
        ({"train_seconds": 0.0}, {"train_seconds": 210.0}, False),
        ({}, {"train_seconds": math.nan}, False),
    ],
)
def test_which_time_is_equal(ours: dict[str, float], theirs: dict[str, float], equal: bool) -> None:
    run, other = tracked_run(values=ours), tracked_run("baseline", values=theirs)
    assert run.equal_time(other) is equal
    assert other.equal_time(run) is equal


UNLABELED = LADDER[Rung.MEDCONTEXT_UNLABELED]


@pytest.mark.parametrize(
    ("mode", "change", "expected"),
    [
        (
            "baseline",
            {"steps": 500},
            "its 500 steps are not the 300 of ours, and its training took 0.71 of the time (equal time is within 10 %)",
        ),
        ("baseline", {"steps": 7, "values": {"train_seconds": math.nan}}, "the time of one of them was not logged"),
        ("masking_only", {"steps": 700}, "its 700 steps are not the 300 of ours"),
        ("patch_dropout", {"steps": 700}, "its 700 steps are not the 300 of ours"),
        ("pseudo_labels", {"steps": 100}, "its 100 steps are not the 300 of ours, and its training took 0.67 of the"),
        ("baseline", {"seed": 1}, "nothing to compare it with: the nearest run, ours, differs in seed"),
        ("baseline", {"tags": {"fold": "2"}}, "ours, differs in fold"),
        ("baseline", {"tags": {"dataset": "acdc"}}, "ours, differs in dataset"),
        ("baseline", {"tags": {"bundle": "medcontext_nnformer"}}, "ours, differs in bundle"),
        ("baseline", {"tags": {"data_hash": "other"}}, "ours, differs in training or validation cases"),
        ("baseline", {"test": "other"}, "ours, differs in test cases"),
        ("baseline", {"params": {"learning_rate": "0.01"}}, "unlike ours it has learning_rate 0.01 instead of 0.0001"),
        ("baseline", {"params": {"spacing": "[3, 3, 4]"}}, "it has spacing [3, 3, 4] instead of not set"),
        ("baseline", {"params": {"teacher_momentum": "0.9"}}, "it has teacher_momentum 0.9 instead of not set"),
        ("baseline", {"params": {"select_checkpoint": "last"}}, "it has select_checkpoint last instead of not set"),
        ("baseline", {"metrics": table({"liver": [0.8, 0.9, 0.7]})}, "evaluated on other cases or labels than ours"),
        ("baseline", {"metrics": table({"spleen": [0.8, 0.9]})}, "evaluated on other cases or labels than ours"),
        ("baseline", {"problem": "its status is FAILED"}, "its status is FAILED"),
    ],
)
def test_why_a_run_is_not_paired(mode: str, change: dict[str, Any], expected: str) -> None:
    other = tracked_run(mode, **change)
    assert expected in reason(other, MEDCONTEXT)
    assert "no baseline at equal steps" in reason(MEDCONTEXT, other)


def test_unlabelled_cases_must_agree_between_the_rungs_that_have_them() -> None:
    labelled = [LADDER[Rung.BASELINE_EQUAL_TIME], MEDCONTEXT]
    other = tracked_run("pseudo_labels", steps=150, name="odd", tags={"unlabeled_hash": "others"})
    assert reason(other, *labelled, UNLABELED) == f"its unlabelled cases are not those of {UNLABELED.name}"
    assert pair_runs([other, *labelled], GROUP_BY).roles[other.id].name == "pseudo-labels"


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"run_name": "x", "mode": "baseline", "max_epochs": "7", "val_interval": "2", "device": "cpu"}},
        {"params": {"preview_interval": "28", "tracking_wait": "5", "log_model": "True", "system_metrics": "False"}},
        {
            "params": {
                "organ_dropout.prob": "0.5",
                "context_weight": "2.0",
                "masked_share": "0.0",
                "context_ramp": "0.2",
            }
        },
        {"params": {"context_end": "0.9", "confidence": "0.9", "burn_in": "0.1"}},
        {"params": {"unlabeled": "rest", "unlabeled_dir": "scans", "unlabeled_weight": "1.0", "unlabeled_batch": "2"}},
        {"config": {**CONFIG, "unlabeled_loader": {"batch_size": 2}}},
        {"config": {**CONFIG, "masking": {"_target_": "Identityd"}, "train": {**CONFIG["train"], "handlers": []}}},
        {"config": {}},  # not kept: the hyperparameters alone are compared
    ],
)
def test_what_may_differ(change: dict[str, Any]) -> None:
    control = tracked_run("baseline", **change)
    pairing = pair_runs([MEDCONTEXT, control], GROUP_BY)
    assert pairing.roles[control.id].name == "baseline at equal steps"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {**CONFIG, "network_def": {**CONFIG["network_def"], "feature_size": 32}},
            "it has network_def#feature_size 32 instead of 16",
        ),
        (
            {**CONFIG, "train": {"inferer": {"_target_": "SlidingWindowInferer"}}},
            "train#inferer#_target_ SlidingWindowInferer instead of SimpleInferer",
        ),
    ],
)
def test_configurations_are_compared_beyond_the_hyperparameters(config: dict[str, Any], expected: str) -> None:
    assert expected in reason(tracked_run("baseline", config=config), MEDCONTEXT)


def test_many_differences_are_counted() -> None:
    control = tracked_run("baseline", params=dict.fromkeys(("amp", "batch_size", "overlap", "spacing"), "1"))
    assert "overlap 1 instead of not set and 1 more" in reason(control, MEDCONTEXT)


def test_of_repeated_runs_the_last_is_taken() -> None:
    first, second = (tracked_run("baseline", name=name, end_time=time) for name, time in (("b1", 1), ("b2", 2)))
    ours = tracked_run(name="again", end_time=5)
    pairing = pair_runs([second, first, MEDCONTEXT, ours], GROUP_BY)
    ((draw,),) = pairing.groups.values()
    assert draw.runs == {Rung.BASELINE: second, Rung.MEDCONTEXT: ours}
    assert pairing.roles[first.id].reason == "repeated: b2 finished later"
    assert pairing.roles[MEDCONTEXT.id].reason == "repeated: again finished later"


def test_variants_of_medcontext_are_not_mixed() -> None:
    weak = tracked_run(name="weak", params={"consistency_weight": "0.0"})
    strong = tracked_run(name="strong", params={"consistency_weight": "0.5"}, end_time=1)
    baseline = tracked_run("baseline")
    assert reason(weak, strong, baseline) == (
        "strong has the same cases, fold and seed and finished later; "
        "they differ in consistency_weight: name one of these in group_by to compare both"
    )
    pairing = pair_runs([weak, strong, baseline], (*GROUP_BY, "consistency_weight"))
    assert [group[-1] for group in pairing.groups] == ["0", "0.5"]
    assert all(draw.runs[Rung.BASELINE] is baseline for draws in pairing.groups.values() for draw in draws)
    longer = tracked_run(name="longer", steps=900, end_time=2)
    assert "they differ in steps: name" in reason(MEDCONTEXT, longer)


def test_variants_of_another_rung_are_not_mixed() -> None:
    rare, often = (
        tracked_run("masking_only", name=name, params={"masked_share": share}, end_time=time)
        for name, share, time in (("rare", "0.2", 1), ("often", "0.5", 2))
    )
    assert reason(rare, often, MEDCONTEXT) == (
        "often has the same cases, fold and seed and finished later; "
        "they differ in masked_share: give each an experiment of its own to compare both"
    )


def test_one_baseline_stands_on_both_its_rungs_of_two_budgets() -> None:
    shared = tracked_run("baseline", steps=700)
    short, long = tracked_run(steps=300), tracked_run(steps=700)
    pairing = pair_runs([shared, short, long], (*GROUP_BY, "steps"))
    assert [list(draw.runs) for (draw,) in pairing.groups.values()] == [
        [Rung.BASELINE_EQUAL_TIME, Rung.MEDCONTEXT],
        [Rung.BASELINE, Rung.MEDCONTEXT],
    ]
    assert pairing.roles[shared.id].name == "baseline at equal steps, baseline at equal time"


def test_missing_controls_are_named() -> None:
    pairing = pair_runs([MEDCONTEXT, tracked_run("baseline")], GROUP_BY)
    assert pairing.roles[MEDCONTEXT.id] == Role(
        "MedContext", "no baseline at equal time, no patch dropout, no masking only to compare with"
    )
    assert reason(tracked_run("baseline", name="alone")) == "there is no run above the baseline"


def test_groups_are_in_the_order_of_their_numbers() -> None:
    runs = [
        tracked_run(name=f"r{i}", tags={"train_fraction": text, "data_hash": text})
        for i, text in enumerate(("1.0", "0.1", "0.25"))
    ]
    few = [
        tracked_run(name=f"few {number}", tags={"data_hash": number}, params={"train_cases": number})
        for number in ("24", "6")  # all with the train_fraction 1.0
    ]
    pairing = pair_runs([*runs, *few], ("train_fraction",))
    assert list(pairing.groups) == [("0.1",), ("0.25",), ("1",), ("6 cases",), ("24 cases",)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architecture", "unetr"),
        ("dataset", "btcv"),
        ("medcontext.seed", "0"),
        ("learning_rate", "0.0001"),
        ("network_def#feature_size", "16"),
        ("data_hash", "1e5"),  # not the number 100000
        ("absent", "not set"),
    ],
)
def test_group_value(name: str, value: str) -> None:
    assert group_value(tracked_run(tags={"data_hash": "1e5"}), name) == value


def test_check_of_group_by() -> None:
    check_group_by([*GROUP_BY, "learning_rate", "network_def#feature_size", "medcontext.fold"], [MEDCONTEXT])
    with pytest.raises(
        ValueError,
        match="No run has a 'learning_rat' to group by. Did you mean 'learning_rate'. There are architecture, .*steps",
    ):
        check_group_by(["learning_rat"], [MEDCONTEXT])
    with pytest.raises(ValueError, match="each only once, got seed, seed"):
        check_group_by(["seed", "seed"], [MEDCONTEXT])
    with pytest.raises(ValueError, match="at least one, .* got none"):
        check_group_by([], [MEDCONTEXT])
