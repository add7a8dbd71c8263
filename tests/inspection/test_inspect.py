from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import medcontext
from bundle_runs import BUNDLES, ROOT
from collections_of_bundles import publish, with_large_files, zipped
from medcontext import cli
from medcontext.inspection import inspect_bundle
from medcontext.networks import save_checkpoint
from medcontext.networks.model_file import weights_hash


def refused(path: Path) -> dict[str, str]:
    """What is refused, with the reason, by file and key."""
    return {f"{item.file} {getattr(item, 'key', '')}".strip(): item.problem for item in inspect_bundle(path).problems}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_all_that_our_bundles_run_is_on_the_list(bundle: str) -> None:
    inspection = inspect_bundle(ROOT / "bundles" / bundle)
    assert inspection.problems == ()
    assert {finding.kind for finding in inspection.findings} == {"expression", "import", "component", "logging"}
    components = {finding.text for finding in inspection.findings if finding.kind == "component"}
    assert {"medcontext.engines.MedContextTrainer", "DiceCELoss", "torch.optim.AdamW"} & components
    assert inspection.sentence.endswith(": all on the allow-list; no checksums to compare.")


HOSTILE: dict[str, Any] = {
    "network": {"_target_": "os.system", "command": "touch marker"},
    "short": {"_target_": "run_cmd", "cmd_list": ["touch", "marker"]},
    "function": {"_target_": "monai.networks.trt_compile"},
    "private": {"_target_": "monai.data.__init__.os.system"},
    "unknown": {"_target_": "NoSuchThing"},
    "object": {"_target_": ["os.system"]},
    "debugger": {"_target_": "Identityd", "_mode_": "debug", "_disabled_": "$open('marker', 'w')"},
    "list": [{"deep": "$__import__('os').system('touch marker')"}],
    "macro": "%../elsewhere.json::network",
    "fine": {"_target_": "UNETR", "img_size": "$@roi_size", "text": "costs $5", "share": "%90"},
}


def test_a_hostile_bundle_is_listed_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "a/configs/train.json": json.dumps(HOSTILE).encode(),
        "a/configs/metadata.json": json.dumps({"version": "$open('marker', 'w')"}).encode(),
        "a/configs/alias.yaml": b"a: &a [1]\nb: *a\n",
        "a/configs/tag.yaml": b"a: !!python/object/apply:os.system ['touch marker']\n",
        "a/configs/half.json": b"{",
        "a/configs/nested.json": b"[" * 100_000,
        "a/configs/logging.conf": b"[handler_x]\nclass=os.system\nargs=(open('marker', 'w'),)\n",
        "a/scripts/net\x1b[2J.py": b"open('marker', 'w')\n",
        "a/models/model.ts": b"x",
    }
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(files))
    monkeypatch.chdir(tmp_path)
    problems = refused(archive)
    train = {key.removeprefix("configs/train.json "): text for key, text in problems.items() if "train.json" in key}
    assert train == {
        "network#_target_": "os.system is not on the allow-list",
        "short#_target_": "monai.utils.misc.run_cmd is not on the allow-list",
        "function#_target_": "monai.networks.trt_compile is not on the allow-list",
        "private#_target_": "monai.data.__init__.os.system is not the name of a component",
        "unknown#_target_": "MONAI has no NoSuchThing",
        "object#_target_": "it is not the name of a component",
        "debugger#_mode_": "it is not on the allow-list: it may start a debugger",
        "debugger#_disabled_": "open is not on the allow-list",
        "list#0#deep": ".system(), __import__ are not on the allow-list",
        "macro": "../elsewhere.json is taken in from a file that is not looked at here",
    }
    assert problems.keys() - {f"configs/train.json {key}" for key in train} == {
        "configs/metadata.json version",
        "configs/alias.yaml",
        "configs/tag.yaml",
        "configs/half.json",
        "configs/nested.json",
        "configs/logging.conf handler_x#class",
        "configs/logging.conf handler_x#args",
        "scripts/net\x1b[2J.py",
        "models/model.ts",
    }
    monkeypatch.setattr(sys, "argv", ["medcontext", "inspect", str(archive)])
    with pytest.raises(SystemExit, match=r"medcontext: 4 expressions, 0 imports, 8 components: 19 not on the allow-l"):
        cli.main()
    out = capsys.readouterr().out
    assert "ok      component  configs/train.json fine#_target_: UNETR" in out
    assert (
        "REFUSED component  configs/train.json network#_target_: os.system (os.system is not on the allow-list)" in out
    )
    assert "\x1b" not in out
    assert os.listdir(tmp_path) == ["a.zip"]


def test_files_are_compared_with_what_they_should_be(tmp_path: Path) -> None:
    bundle = tmp_path / "a"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    shutil.copytree(Path(medcontext.__file__).parent / "losses", bundle / "medcontext" / "losses")
    state = {"weight": torch.ones(3)}
    save_checkpoint(state, bundle / "models" / "model.pt")
    described = {"sha256": {"model.pt": weights_hash(state)}}
    (bundle / "models" / "model.json").write_text(json.dumps(described))
    inspection = inspect_bundle(bundle)
    assert [(item.file, item.by, item.problem) for item in inspection.checksums] == [
        ("models/model.pt", "model.json", ""),
        ("medcontext/", f"the installed medcontext {medcontext.__version__}", ""),
    ]
    assert inspection.sentence.endswith("all checksums agree.")
    save_checkpoint({"weight": torch.zeros(3)}, bundle / "models" / "model.pt")
    (bundle / "medcontext" / "losses" / "own.py").write_text("")
    problems = refused(bundle)
    assert "are not those that model.json beside it describes" in problems["models/model.pt"]
    assert "files differ, such as losses/own.py" in problems["medcontext/"]
    (bundle / "models" / "model.pt").write_bytes(b"cos\nsystem\n")  # a pickle that runs code
    assert refused(bundle)["models/model.pt"]


def test_archives_and_large_files_are_compared_with_their_lists(tmp_path: Path) -> None:
    content = with_large_files({"models/big.bin": ("http://127.0.0.1/big.bin", b"right")})
    folder = publish(tmp_path / "collection", content=content)
    assert [(item.file, item.problem) for item in inspect_bundle(folder / "a_v0.1.0.zip").checksums] == [
        ("a_v0.1.0.zip", "")
    ]
    shutil.unpack_archive(folder / "a_v0.1.0.zip", tmp_path)
    (tmp_path / "a" / "models").mkdir()
    (tmp_path / "a" / "models" / "big.bin").write_bytes(b"wrong")
    assert refused(tmp_path / "a") == {"models/big.bin": "its sha256 differs"}
    publish(folder, content=content, sha256="0" * 64, checksum="0" * 40)
    assert "differs" in refused(folder / "a_v0.1.0.zip")["a_v0.1.0.zip"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "There is no "),
        (lambda path: path.mkdir(), "is no bundle, it has no folder configs; give the folder or the zip of one"),
        (lambda path: path.write_text("x"), "is neither a folder nor a complete zip"),
        (lambda path: path.write_bytes(zipped({"../x": b""})), "leads out of the archive"),
    ],
)
def test_what_is_no_bundle(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "given")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inspect_bundle(tmp_path / "given")
