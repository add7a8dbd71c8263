from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from medcontext.storage.git import ask_git


def test_git_answers_in_a_repository_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert ask_git(tmp_path, "rev-parse", "--show-toplevel") == ""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert Path(ask_git(tmp_path, "rev-parse", "--show-toplevel")) == tmp_path.resolve()
    assert ask_git(tmp_path, "rev-parse", "HEAD~3") == ""
    monkeypatch.setenv("PATH", "")
    assert ask_git(tmp_path, "rev-parse", "--show-toplevel") == ""
