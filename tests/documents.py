"""The commands of the documents, given to a real shell as a reader types them, and run in this process in small."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import monai.bundle
import pytest

from bundle_runs import overrides_for
from mlflow_server import free_port, kill_tree

# what a shell finds instead of these programs: it notes the words that it was called with
PROGRAMS = ("python", "torchrun", "mlflow", "monailabel", "pip", "bash", "sbatch", "kubectl", "curl")
NOTE = '#!/bin/sh\nprintf "%s\\0" "$#" "$PWD" "$(basename "$0")" "$@" >> "$CALLS"\n'
# what replaces or follows the words of a command to make it a matter of seconds
SMALL = {
    "phantoms": {"num_cases": "10", "size": "32,32,32", "spacing": "4.5,4.5,6.0"},
    "prepare": {"output_dir": "data/prepared", "allow_missing": "True"},
    "experiment": {"dry_run": "True"},
    "preview": {"num_cases": "1"},
}
# tested elsewhere too: by what they are made of, or by their like, or with the thorough reader alone
LONG = {
    ("mlflow", "ui"),
    ("mlflow", "models", "serve"),
    ("curl",),
    ("python", "ci/package_bundles.py"),
    ("python", "ci/verify_bundles.py"),
    ("torchrun", "--standalone"),
    ("python", "-m", "monai.bundle", "onnx_export"),
}
# hours long, or in an environment of their own, and tested by tests of their own
ELSEWHERE = {
    ("python", "ci/evidence.py"),
    ("python", "-m", "medcontext", "finalize"),
    ("monailabel",),
    ("python", "tests/deploy_app.py"),
}
LIMIT = 120


class Call(NamedTuple):
    """A program with its words, and the folder that it is called in."""

    folder: Path
    words: tuple[str, ...]


class Block(NamedTuple):
    """A fenced block of a document: its section's heading, its language, its text, and the line that it begins at."""

    section: str
    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    headings = [(match.start(), match[1]) for match in re.finditer(r"^##+ (.+)$", text, flags=re.MULTILINE)]
    return [
        Block(
            section=next((name for start, name in reversed(headings) if start < match.start()), ""),
            language=match[1],
            text=match[2],
            line=text[: match.start()].count("\n") + 1,
        )
        for match in found
    ]


def replaced(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The words of a command with some options set, whether they are among them or not."""
    found = list(words)
    for name, value in values.items():
        option = f"--{name}"
        if option in found:
            found[found.index(option) + 1] = value
        else:
            found += [option, value]
    return found


def small_words(bundle: str, words: Sequence[str]) -> list[str]:
    """The words that follow ``-m monai.bundle`` or ``-m medcontext``, with the tiny settings of a bundle."""
    if words[0] in SMALL and not {"nnunet", "decathlon", "folder"} & set(words):  # these are small already
        words = replaced(words, SMALL[words[0]])
    if "--folds" in words:
        words = replaced(words, {"folds": "2"})
    if "--config_file" not in words:
        return list(words)
    given = words[list(words).index("--config_file") + 1]
    files = ast.literal_eval(given) if given.startswith("[") else [given]
    names = [Path(file).stem if Path(file).parent.name == "configs" else file for file in files]
    small = overrides_for(bundle, *names)
    if "inference" in names or "evaluate" in names:
        small.pop("dataset_dir", None)
        if "--ckpt_dir" in words and (Path(words[list(words).index("--ckpt_dir") + 1]) / "model.json").is_file():
            small = {key: value for key, value in small.items() if not key.startswith("network_def#")}
    if words[0] in ("ckpt_export", "onnx_export"):
        size = small["roi_size"]
        small = {key: value for key, value in small.items() if key.startswith("network_def#")}
        small |= {"roi_size": size, "input_shape": [1, 1, *size]}
    if "--train_cases" in words:
        small["train_cases"] = 3  # of the four of the cohort
    if "--fold" in words:
        small["fold"] = None  # three cases make no five folds
    if "max_epochs" in small:
        small["max_epochs"] = 2 if "resume" in names else 1
    return replaced(words, {key: str(value) for key, value in small.items()})


class Reader:
    """Somebody who types a document's commands, in a folder that looks like the repository.

    Args:
        folder: the working directory, and home of data and runs.
        bundle: the bundle that the documents are about.
        patch: undone when the reader is done.
        thorough: whether to run what takes long and is tested by other means too.

    Attributes:
        done: the commands that were run; none is run twice.
        answers: what servers answered.
        others: what to do for programs other than Python, pip, MLflow and curl, by name.
    """

    def __init__(self, folder: Path, bundle: str, patch: pytest.MonkeyPatch, thorough: bool) -> None:
        self.folder, self.bundle, self.patch, self.thorough = folder, bundle, patch, thorough
        self.done: set[tuple[Any, ...]] = set()
        self.server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.answers: list[dict[str, Any]] = []
        self.others: dict[str, Callable[[Call], None]] = {}
        programs = folder / "programs"
        programs.mkdir()
        for name in PROGRAMS:
            (programs / name).write_text(NOTE)
            (programs / name).chmod(0o755)

    def read(self, document: Path, names: Mapping[str, str]) -> None:
        """Do what all blocks of a document say.

        Args:
            document: Markdown; what a section exports ends with it.
            names: what to put in the place of names that stand for a reader's own.
        """
        section, settings = "", list[str]()
        for block in blocks(document):
            if block.section != section:
                self._stop()
                self.port = free_port()
                section, settings = block.section, [line for line in settings if not line.startswith("export ")]
            text = block.text
            for name, own in {**names, "HOST:5000": f"127.0.0.1:{self.port}", ":5001/": f":{self.port}/"}.items():
                text = text.replace(name, own)
            try:
                self._take(block.language, text, settings)
            except BaseException as error:
                error.add_note(f"{document.name}, line {block.line}:\n{text}")
                self._stop()
                raise
        self._stop()

    def _take(self, language: str, text: str, settings: list[str]) -> None:
        if language == "bash":
            calls = self._calls(text, settings)
            variables = re.findall(r"^export (\w+)=(\S+)", "\n".join(settings), flags=re.MULTILINE)
            with self.patch.context() as patch:
                for name, value in variables:
                    patch.setenv(name, value)
                for call in calls:
                    self._run(call)
        elif language == "python":
            self._python(text)
        else:
            assert language in ("json", "bibtex"), language

    def _calls(self, text: str, settings: list[str]) -> list[Call]:
        """The programs that a shell calls for a block; what the block sets is added to the settings."""
        calls = self.noted(["-c", "\n".join(["set -eu", *settings, text])], self.folder, {})
        settings += re.findall(r"^(?:export )?\w+=(?:\"[^\"]*\"|\S+)(?=\s*(?:#.*)?$)", text, flags=re.MULTILINE)
        return calls

    def noted(self, words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> list[Call]:
        """The programs that Bash calls, with their words, instead of their running."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        environment = {**os.environ, **variables, "CALLS": str(calls)}
        environment["PATH"] = f"{self.folder / 'programs'}{os.pathsep}{environment['PATH']}"
        subprocess.run([str(shutil.which("bash")), *words], cwd=folder, env=environment, check=True)
        found = iter(calls.read_text().split("\0")[:-1] if calls.is_file() else [])
        return [Call(Path(next(found)), tuple(next(found) for _ in range(int(number) + 1))) for number in found]

    def _run(self, call: Call) -> None:
        known = (call.folder, *(word.replace(str(self.port), "PORT") for word in call.words))
        long = any(call.words[: len(words)] == words for words in LONG)
        elsewhere = any(call.words[: len(words)] == words for words in ELSEWHERE)
        if known in self.done or (long and not self.thorough) or elsewhere:
            return
        self.done.add(known)
        match call.words:
            case ("python", "-m", "medcontext" | "monai.bundle" as module, *words):
                self._module(module, words, call.folder)
            case ("python", script, *words):
                mode = ["--mode", "min"] if script == "ci/verify_bundles.py" else []
                subprocess.run([sys.executable, script, *mode, *words], cwd=call.folder, check=True)
            case ("pip", *words):
                small = ["--no-deps", "--no-build-isolation", *["--dry-run"] * (words[0] == "install")]
                subprocess.run([sys.executable, "-m", "pip", *words, *small], cwd=call.folder, check=True)
            case ("mlflow", "ui" | "server", *_):
                self._serve(call.words[1:], "health")
            case ("mlflow", "models", "serve", *_):
                self._serve(call.words[1:], "ping")
            case ("curl", address, *words):
                options = dict(zip(words[::2], words[1::2], strict=True))
                name, value = options["--header"].split(": ")
                request = urllib.request.Request(address, options["--data"].encode(), {name: value})
                with urllib.request.urlopen(request, timeout=LIMIT) as reply:
                    self.answers.append(json.loads(reply.read()))
            case _:
                self.others[call.words[0]](call)

    def _module(self, module: str, words: Sequence[str], folder: Path) -> None:
        """``python -m`` in this process; a bundle that was downloaded is small as it is."""
        small = words if folder != self.folder and words[0] == "run" else small_words(self.bundle, words)
        with self.patch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.chdir(folder)
            patch.setattr(sys, "argv", [module, *small])
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                if end.code:
                    raise AssertionError(end.code) from end

    def _python(self, text: str) -> None:
        """Run Python; the workflows that it makes are small."""
        small = {key: value for key, value in overrides_for(self.bundle, "inference").items() if key != "dataset_dir"}
        with self.patch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it, and the variable behind it
            patch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
            patch.setattr(monai.bundle, "create_workflow", functools.partial(monai.bundle.create_workflow, **small))
            exec(compile(text, "document", "exec"), {})

    def _serve(self, words: Sequence[str], path: str) -> None:
        self._stop()
        alone = (
            ["--workers", "1"] if words[0] in ("ui", "server") else []
        )  # instead of four, each of which loads MLflow
        command = [sys.executable, "-m", "mlflow", *replaced(words, {"port": str(self.port)}), *alone]
        # uvicorn lies beside this Python, whether or not its environment is active
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": programs, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.server = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True)
        limit = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}"):
                return
            assert self.server.poll() is None, command
            assert time.monotonic() < limit, command
            time.sleep(0.2)

    def _stop(self) -> None:
        if self.server is not None:
            kill_tree(self.server.pid)
            self.server.wait()
            self.server = None
