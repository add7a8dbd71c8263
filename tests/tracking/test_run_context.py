from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import medcontext
from medcontext.tracking.run_context import context_tags


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository with one commit, and the commit."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside", commit.stdout.strip()


def test_the_commit_of_the_package_or_else_of_the_working_directory(
    repository: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, commit = repository
    outside = tmp_path_factory.mktemp("outside")
    monkeypatch.setattr(medcontext, "__file__", str(outside / "medcontext" / "__init__.py"))
    monkeypatch.chdir(outside)
    assert "mlflow.source.git.commit" not in context_tags()
    monkeypatch.chdir(inside)
    assert context_tags()["mlflow.source.git.commit"] == commit
    monkeypatch.chdir(outside)
    monkeypatch.setattr(medcontext, "__file__", str(inside / "__init__.py"))
    assert context_tags()["mlflow.source.git.commit"] == commit


def test_without_git(repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository[0])
    monkeypatch.setattr("medcontext.tracking.run_context.ask_git", lambda *words: "")
    assert "mlflow.source.git.commit" not in context_tags()


def test_the_command_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["python", "--tracking_uri", "http://me:it'sa@secret@host", "--tracking_uri=http://x@y/?token=t"]
    monkeypatch.setattr("medcontext.tracking.run_context.sys.orig_argv", words)
    found = context_tags()["medcontext.command"]
    assert found == "python --tracking_uri http://host '--tracking_uri=http://y/?token=***'"
