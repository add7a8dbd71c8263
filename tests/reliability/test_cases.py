from __future__ import annotations

import json
from pathlib import Path

from medcontext.data import case_name
from medcontext.data.datalist import hashed_name
from medcontext.reliability import unseen_cases


def test_cases_of_patients_that_were_trained_on_count_as_seen(tmp_path: Path) -> None:
    cases = [{"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"} for name in "abcdef"]
    cases[0]["patient"] = cases[1]["patient"] = "one"
    content = {"training": cases[:4], "validation": cases[4:5], "test": cases[5:], "labels": {}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    known = {"training": {"cases": [hashed_name("a")]}, "unlabeled": {"cases": [hashed_name("c")]}}
    (tmp_path / "model.json").write_text(json.dumps({"cases": known}))
    unseen = unseen_cases(tmp_path / "dataset.json", tmp_path / "model.pt")
    assert [case_name(case) for case in unseen] == ["d", "e"]
    assert unseen_cases(tmp_path / "dataset.json", tmp_path / "other.pt") == []
