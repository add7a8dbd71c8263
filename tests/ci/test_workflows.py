"""What GitHub runs: the scripts that can be run here, and that the workflows name only what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle_runs import BUNDLES, ROOT
from platforms import posix_only

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WHO = {f"GIT_{role}_{what}": "somebody" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")))


def git(folder: Path, *words: str) -> str:
    environment = {**os.environ, **WHO}
    result = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_only_what_there_is(path: Path) -> None:
    named = re.findall(r"(?<![\w/.])(?:\.?ci/[\w./]+|\./\.github/[\w./]+)", path.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_tests_run_on_every_system_and_python() -> None:
    matrix = load("tests")["jobs"]["tests"]["strategy"]["matrix"]
    assert {system.split("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    checks = load("tests")["jobs"]["checks"]["steps"]
    assert checks[-1]["run"] == "bash .ci/run"


def test_a_release_waits_for_tests_and_trains_every_bundle() -> None:
    jobs = load("release")["jobs"]
    assert jobs["tests"]["uses"] == "./.github/workflows/tests.yml"
    assert set(jobs["publish"]["needs"]) == {"tests", "slow-tests", "weights"}
    assert {jobs[name]["needs"] for name in jobs["publish"]["needs"]} == {"versions"}
    assert jobs["slow-tests"]["steps"][-1]["run"] == "bash ci/test.sh --all"
    assert '--tag "$GITHUB_REF_NAME"' in jobs["versions"]["steps"][-1]["run"]
    assert jobs["publish"]["steps"][-2]["run"] == "bash ci/verify_with_model_zoo.sh dist"
    assert sorted(jobs["weights"]["strategy"]["matrix"]["bundle"]) == BUNDLES


@posix_only
@pytest.mark.parametrize(
    ("tag", "option", "listed"),
    [
        ("v0.2.0", "", True),
        ("v0.2.0a1", " --prerelease", False),
        ("v0.2.0b2", " --prerelease", False),
        ("v0.2.0rc10", " --prerelease", False),
    ],
)
def test_a_pre_release_is_not_the_latest(tag: str, option: str, listed: bool, tmp_path: Path) -> None:
    """Neither GitHub's nor MONAI's, which goes by the list."""
    fakes = {
        "bin/gh": f"[ $2 != view ] && echo $* >> {tmp_path}/said",
        "ci/publish_listing.sh": f"touch {tmp_path}/listed",
        "dist/model_info.json": "{}",
    }
    for name, text in fakes.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    step = load("release")["jobs"]["publish"]["steps"][-1]
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "GITHUB_REF_NAME": tag}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, check=True)
    created, uploaded = (tmp_path / "said").read_text().splitlines()
    assert created == f"release create {tag} --verify-tag --generate-notes{option}"
    assert uploaded == f"release upload {tag} dist/model_info.json --clobber"
    assert (tmp_path / "listed").is_file() is listed


@posix_only
def test_the_list_lies_where_monai_looks_for_it(tmp_path: Path) -> None:
    """On a branch of its own, whose history keeps earlier lists."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    clone, listing = tmp_path / "clone", tmp_path / "model_info.json"
    for version in ("0.1.0", "0.2.0"):
        listing.write_text(json.dumps({f"some_bundle_v{version}": {}}))
        words = ["bash", str(ROOT / "ci" / "publish_listing.sh"), str(listing)]
        subprocess.run(words, cwd=clone, env={**os.environ, **WHO}, check=True)
    assert git(tmp_path / "origin.git", "show", "listing:models/model_info.json") == listing.read_text()
    assert git(tmp_path / "origin.git", "ls-tree", "-r", "--name-only", "listing") == "models/model_info.json"
    assert git(tmp_path / "origin.git", "rev-list", "--count", "listing") == "2"
    assert git(clone, "status", "--porcelain") == ""
    result = subprocess.run(words[:2], cwd=clone, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("usage: ci/publish_listing.sh")
