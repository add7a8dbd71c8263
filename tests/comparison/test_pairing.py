from __future__ import annotations

from typing import Any

import pytest

from medcontext.comparison import Control, Role, TrackedRun, pair_runs
from medcontext.comparison.pairing import check_group_by, group_value
from tracked_runs import CONFIG, table, tracked_run

GROUP_BY = ("architecture", "dataset", "train_fraction")
MEDCONTEXT = tracked_run(name="ours")


def reason(run: TrackedRun, *others: TrackedRun, group_by: tuple[str, ...] = GROUP_BY) -> str:
    """Why a run is unpaired."""
    role = pair_runs([*others, run], group_by).roles[run.id]
    assert role.name == "unpaired"
    return role.reason


def test_a_run_with_its_three_controls() -> None:
    controls = {
        Control.EQUAL_STEPS: tracked_run("baseline"),
        Control.EQUAL_TIME: tracked_run("baseline", steps=700),
        Control.MASKING_ONLY: tracked_run("masking_only"),
    }
    pairing = pair_runs([MEDCONTEXT, *controls.values()], GROUP_BY)
    ((group, (paired,)),) = pairing.groups.items()
    assert group == ("unetr", "btcv", "1")
    assert paired.run is MEDCONTEXT
    assert dict(paired.controls) == controls
    assert {name: pairing.roles[run.id].name for name, run in controls.items()} == {c: c.value for c in Control}
    assert pairing.roles[MEDCONTEXT.id] == Role("MedContext")


@pytest.mark.parametrize(
    ("steps", "control"),
    [(300, Control.EQUAL_STEPS), (630, Control.EQUAL_TIME), (770, Control.EQUAL_TIME), (629, None), (771, None)],
)
def test_length_of_a_baseline(steps: int, control: Control | None) -> None:
    pairing = pair_runs([MEDCONTEXT, tracked_run("baseline", steps=steps)], GROUP_BY)
    ((paired,),) = pairing.groups.values()
    assert list(paired.controls) == ([control] if control else [])


@pytest.mark.parametrize(
    ("mode", "change", "expected"),
    [
        ("baseline", {"steps": 500}, "its 500 steps are neither the 300 of ours nor 7/3 of them (700)"),
        ("masking_only", {"steps": 700}, "its 700 steps are not the 300 of ours"),
        ("baseline", {"seed": 1}, "no MedContext run fits: the nearest, ours, differs in seed"),
        ("baseline", {"tags": {"fold": "2"}}, "ours, differs in fold"),
        ("baseline", {"tags": {"dataset": "acdc"}}, "ours, differs in dataset"),
        ("baseline", {"tags": {"bundle": "medcontext_nnformer"}}, "ours, differs in bundle"),
        ("baseline", {"tags": {"data_hash": "other"}}, "ours, differs in training or validation cases"),
        ("baseline", {"test": "other"}, "ours, differs in test cases"),
        ("baseline", {"params": {"learning_rate": "0.01"}}, "unlike ours it has learning_rate 0.01 instead of 0.0001"),
        ("baseline", {"params": {"spacing": "[3, 3, 4]"}}, "it has spacing [3, 3, 4] instead of not set"),
        ("baseline", {"metrics": table({"liver": [0.8, 0.9, 0.7]})}, "evaluated on other cases or labels than ours"),
        ("baseline", {"metrics": table({"spleen": [0.8, 0.9]})}, "evaluated on other cases or labels than ours"),
        ("baseline", {"problem": "its status is FAILED"}, "its status is FAILED"),
    ],
)
def test_why_a_control_is_not_paired(mode: str, change: dict[str, Any], expected: str) -> None:
    control = tracked_run(mode, **change)
    assert expected in reason(control, MEDCONTEXT)
    assert "no baseline at equal steps" in reason(MEDCONTEXT, control)


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"run_name": "x", "mode": "baseline", "max_epochs": "7", "val_interval": "2", "device": "cpu"}},
        {"params": {"preview_interval": "28", "tracking_wait": "5", "log_model": "True", "system_metrics": "False"}},
        {"params": {"organ_dropout.prob": "0.5", "teacher_momentum": "0.9", "context_weight": "2.0"}},
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
    ((paired,),) = pairing.groups.values()
    assert paired.run is ours
    assert paired.controls == {Control.EQUAL_STEPS: second}
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
    assert all(paired.controls for members in pairing.groups.values() for paired in members)
    longer = tracked_run(name="longer", steps=900, end_time=2)
    assert "they differ in steps: name" in reason(MEDCONTEXT, longer)


def test_one_baseline_serves_as_both_controls_of_two_budgets() -> None:
    shared = tracked_run("baseline", steps=700)
    short, long = tracked_run(steps=300), tracked_run(steps=700)
    pairing = pair_runs([shared, short, long], (*GROUP_BY, "steps"))
    assert [list(paired.controls) for (paired,) in pairing.groups.values()] == [
        [Control.EQUAL_TIME],
        [Control.EQUAL_STEPS],
    ]
    assert pairing.roles[shared.id].name == "baseline at equal steps, baseline at equal time"


def test_missing_controls_are_named() -> None:
    pairing = pair_runs([MEDCONTEXT, tracked_run("baseline")], GROUP_BY)
    role = pairing.roles[MEDCONTEXT.id]
    assert (role.name, role.reason) == ("MedContext", "no baseline at equal time, no masking only to compare with")
    assert reason(tracked_run("baseline", name="alone")) == "there is no MedContext run"


def test_groups_are_in_the_order_of_their_numbers() -> None:
    runs = [
        tracked_run(name=f"r{i}", tags={"train_fraction": text, "data_hash": text})
        for i, text in enumerate(("1.0", "0.1", "0.25"))
    ]
    few = tracked_run(name="few", tags={"data_hash": "x"}, params={"train_cases": "3"})
    pairing = pair_runs([*runs, few], ("train_fraction",))
    assert list(pairing.groups) == [("0.1",), ("0.25",), ("1",), ("3 cases",)]


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
        match="No run has a 'learning_rat' to group by; did you mean learning_rate. There are architecture, .*steps",
    ):
        check_group_by(["learning_rat"], [MEDCONTEXT])
    with pytest.raises(ValueError, match="each only once, got seed, seed"):
        check_group_by(["seed", "seed"], [MEDCONTEXT])
    with pytest.raises(ValueError, match="at least one, .* got none"):
        check_group_by([], [MEDCONTEXT])
