from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cohorts import channel, facts, fingerprint
from medcontext.planning.dataset_choices import cell_size, dataset_choices, intensity, validation_cases
from medcontext.planning.fingerprint import CaseFacts

HOUNSFIELD, POSITIVE = facts(name="ct"), facts(name="mr", channels=[channel(lowest=0.0)])


@pytest.mark.parametrize(
    ("cases", "channels", "target", "reason"),
    [
        ([HOUNSFIELD], ["CT"], "ScaleIntensityRanged", "CT by dataset.json"),
        ([POSITIVE], ["CT"], "ScaleIntensityRanged", "CT by dataset.json"),
        ([HOUNSFIELD], ["MRI"], "NormalizeIntensityd", "MRI by dataset.json; each scan by itself"),
        ([HOUNSFIELD, HOUNSFIELD], [""], "ScaleIntensityRanged", "taken for CT, since all scans fall below -200"),
        ([POSITIVE], [""], "NormalizeIntensityd", "taken for no CT, since no scan falls below -200"),
        ([HOUNSFIELD, POSITIVE], ["FLAIR"], "NormalizeIntensityd", "FLAIR by dataset.json"),
        (
            [facts(channels=[channel()] * 2)],
            ["CT", "PET"],
            "NormalizeIntensityd",
            "each channel of each scan by itself",
        ),
        ([facts(channels=[channel()] * 2)], ["CT arterial", "CT portal"], "ScaleIntensityRanged", "CT arterial"),
    ],
)
def test_intensity_by_modality(cases: Sequence[CaseFacts], channels: Sequence[str], target: str, reason: str) -> None:
    chosen = intensity(fingerprint(*cases, channels=channels))
    assert chosen.value["_target_"] == target
    assert reason in chosen.why


def test_the_window_of_ct() -> None:
    """Values 0 to 200 in two scans: mean 100, variances 50² and 50² around means of 50 and 150."""
    low, high = (channel([middle - 50, middle + 50]) for middle in (50, 150))
    value = intensity(fingerprint(facts(channels=[low]), facts(channels=[high]), channels=["CT"])).value
    deviation = (50**2 + 50**2) ** 0.5
    assert (value["a_min"], value["a_max"]) == (pytest.approx(1, abs=1), pytest.approx(199, abs=1))
    assert value["b_min"] == pytest.approx((value["a_min"] - 100) / deviation, abs=1e-3)
    assert value["b_max"] == pytest.approx((value["a_max"] - 100) / deviation, abs=1e-3)
    assert value["clip"]


@pytest.mark.parametrize(("zeros", "nonzero"), [(0.4, None), (0.7, True)])
def test_scans_whose_background_was_removed(zeros: float, nonzero: bool | None) -> None:
    case = facts(channels=[channel(lowest=0.0, zeros=zeros)])
    assert intensity(fingerprint(case, channels=["T1"])).value.get("nonzero") is nonzero


@pytest.mark.parametrize(
    ("cases", "channels", "message"),
    [
        ([HOUNSFIELD, HOUNSFIELD, POSITIVE], [""], r"2 fall below -200 as CT does, 1 do not \(mr differ from ct"),
        ([facts(channels=[channel([7.0, 7.0])])], ["CT"], "All labelled voxels of .* have the value 7 in the images"),
    ],
)
def test_intensities_that_cannot_be_planned(cases: Sequence[CaseFacts], channels: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intensity(fingerprint(*cases, channels=channels))


@pytest.mark.parametrize(
    ("organs", "spacing", "thick", "expected"),
    [
        ([(40, 24, 8)], (1.0, 1.0, 1.0), False, [8, 6, 2]),
        ([(400, 24, 8)], (2.0, 2.0, 1.0), False, [8, 3, 2]),
        ([(60, 60, 80)], (1.5, 1.5, 10.0), True, [8, 8, 1]),
        ([(12, 12, 12), (16, 12, 12), (12, 16, 16)], (1.0, 1.0, 1.0), False, [3, 3, 3]),
        ([(1, 1, 1)], (1.0, 1.0, 1.0), False, [2, 2, 2]),
    ],
)
def test_cells_of_a_quarter_organ(
    organs: Sequence[Sequence[float]], spacing: tuple[float, float, float], thick: bool, expected: list[int]
) -> None:
    case = facts(organs=dict(enumerate(organs, start=1)))
    assert cell_size(fingerprint(case), spacing, thick)[0] == expected


@pytest.mark.parametrize(
    ("training", "validation", "expected", "why"),
    [
        ([{}], [], 0, "a single case"),
        ([{}] * 2, [], 1, "a fifth of 2 training cases"),
        ([{}] * 8, [], 2, "a fifth of 8 training cases"),
        ([{"patient": "a"}] * 5 + [{"patient": "b"}] * 5, [], 1, "a fifth of 2 patients"),
        ([{}] * 8, [{}], 0, "lists 1 validation cases"),
    ],
)
def test_validation_cases(
    tmp_path: Path, training: list[dict[str, Any]], validation: list[dict[str, Any]], expected: int, why: str
) -> None:
    sections = {
        name: [{"image": f"{name}{i}.nii", "label": "b.nii", **case} for i, case in enumerate(cases)]
        for name, cases in (("training", training), ("validation", validation))
    }
    (tmp_path / "dataset.json").write_text(json.dumps(sections))
    chosen = validation_cases(fingerprint(facts(), datalist=tmp_path / "dataset.json"))
    assert chosen.value == expected
    assert why in chosen.why


def test_labels_remarks_and_sides(tmp_path: Path) -> None:
    """Ids become consecutive, a label that no case has is left out, and a suspicious header is remarked on."""
    folder = tmp_path / "my scans (2)"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"training": [{"image": "a.nii", "label": "b.nii"}]}))
    case = facts(spacing=(1.0, 1.0, 12.0), organs={9: (4, 4, 4), 5: (4, 4, 4)})
    names = {5: "left kidney", 7: "spleen", 9: "right kidney"}
    rows = {
        row.setting: row for row in dataset_choices(fingerprint(case, names=names, datalist=folder / "dataset.json"))
    }
    assert rows["dataset"].value == "my_scans_2"
    assert (rows["dataset_dir"].value, rows["dataset_dir"].text) == (f"${str(folder)!r}", str(folder))
    assert rows["labels"].value == {"left kidney": 1, "right kidney": 2}
    assert "no case has it: spleen" in rows["labels"].why
    assert "left kidney and right kidney" in rows["sided_labels"].why
    assert "voxels of case are 1 × 1 × 12 mm; if that is not so, correct the headers" in rows["look at"].why
    assert not rows["look at"].is_key
