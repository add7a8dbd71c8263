"""The bundles are one, and the check that says so can fail."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bundle_runs import NNFORMER, ROOT, SWIN_UNETR, UNETR, UNETR_PLUS_PLUS, read_json
from damage import change_json, edit

SCRIPT = ROOT / "ci" / "sync_bundles.py"


@pytest.fixture
def sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_bundles", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copies(sync: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles", ignore=shutil.ignore_patterns("models"))
    monkeypatch.setattr(sync, "BUNDLES", tmp_path / "bundles")
    return tmp_path / "bundles"


def found(sync: ModuleType, root: Path) -> list[str]:
    return [problem.message for problem in sync.problems(root)]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_bundles_are_one(sync: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(sync, ROOT / "bundles") == []
    sync.main(check=True)
    assert capsys.readouterr().out == "the bundles are one\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change_json(f"{NNFORMER}/configs/train.json", lambda config: config.update(overlap=0.6)),
            f"{NNFORMER}/configs/train.json: differs",
        ),
        (
            change_json(f"{NNFORMER}/configs/train.json", lambda config: config["train"].pop("inferer")),
            f"{NNFORMER}/configs/train.json: differs",
        ),
        (
            change_json(
                f"{UNETR_PLUS_PLUS}/configs/paper.json", lambda config: config["masking"].update(mode="random")
            ),
            f"{UNETR_PLUS_PLUS}/configs/paper.json: differs",
        ),
        (edit(f"{SWIN_UNETR}/configs/btcv.json", "\n    ", "\n  "), f"{SWIN_UNETR}/configs/btcv.json: differs"),
        (edit(f"{SWIN_UNETR}/docs/README.md", "## Output", "## Outputs"), f"{SWIN_UNETR}/docs/README.md: differs"),
        (edit(f"{SWIN_UNETR}/docs/README.md", "HU", "hu"), f"{SWIN_UNETR}/docs/README.md: differs"),
        (edit(f"{SWIN_UNETR}/LICENSE", "Apache", "Apaches"), f"{SWIN_UNETR}/LICENSE: differs"),
        (edit(f"{SWIN_UNETR}/docs/README.md", SWIN_UNETR, UNETR), f"{SWIN_UNETR}/docs/README.md: differs"),
        (
            lambda root: (root / NNFORMER / "configs" / "resume.json").unlink(),
            f"{NNFORMER}/configs/resume.json: missing",
        ),
        (
            lambda root: (root / NNFORMER / "configs" / "extra.json").write_text("{}"),
            f"{NNFORMER}/configs/extra.json: {UNETR} has no such file",
        ),
    ],
)
def test_what_differs_is_found_and_mended(
    sync: ModuleType,
    copies: Path,
    damage: Callable[[Path], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = contents(copies)
    damage(copies)
    assert [line[: len(message)] for line in found(sync, copies)] == [message]
    with pytest.raises(SystemExit, match="1 problems; --write mends"):
        sync.main(check=True)
    sync.main(write=True)
    assert "(mended)" in capsys.readouterr().out
    assert contents(copies) == whole


def test_a_change_of_the_reference_reaches_the_others_but_for_what_is_their_own(sync: ModuleType, copies: Path) -> None:
    change_json(f"{UNETR}/configs/train.json", lambda config: config.update(overlap=0.25, roi_size=[64, 64, 64]))(
        copies
    )
    sync.main(write=True)
    configs = {name: read_json(copies / name / "configs" / "train.json") for name in (SWIN_UNETR, NNFORMER)}
    assert [(config["overlap"], config["roi_size"]) for config in configs.values()] == [
        (0.25, [64, 64, 64]),
        (0.25, [64, 128, 128]),
    ]


@pytest.mark.parametrize(
    ("file", "key", "bundle", "message"),
    [
        ("configs/train.json", "overlap", NNFORMER, "'overlap' may differ, but does not"),
        ("configs/train.json", "optimizer", SWIN_UNETR, "'optimizer' may differ, but does not"),
        ("configs/train.json", "nonsense", NNFORMER, "the table allows 'nonsense', which medcontext_unetr lacks"),
        ("configs/train.json", "train#nonsense", NNFORMER, "the table allows 'train#nonsense', which"),
        ("docs/README.md", "Output", SWIN_UNETR, "'Output' may differ, but does not"),
        ("docs/data_license.txt", "", SWIN_UNETR, "may be its own, but is that of medcontext_unetr"),
        ("configs/nonsense.json", "overlap", NNFORMER, "the table names configs/nonsense.json, which"),
        ("configs/train.json", "overlap", "medcontext_nonsense", "the table names medcontext_nonsense, which is no"),
    ],
)
def test_allowances_that_nothing_uses(sync: ModuleType, file: str, key: str, bundle: str, message: str) -> None:
    allowed = {name: dict(keys) for name, keys in sync.ALLOWED.items()}
    allowed.setdefault(file, {})[key] = (*allowed.get(file, {}).get(key, ()), bundle)
    assert [message in problem.message for problem in sync.problems(ROOT / "bundles", allowed)] == [True]


def test_headings_inside_code_are_no_sections(sync: ModuleType) -> None:
    text = "intro\n# One\n```bash\n# no heading\n```\n## Two\nend\n"
    assert list(sync.sections(text)) == ["", "One", "Two"]
    assert "".join(sync.sections(text).values()) == text
    with pytest.raises(ValueError, match="The heading 'One' occurs twice"):
        sync.sections("# One\n# One\n")


@pytest.mark.parametrize("arguments", [{}, {"check": True, "write": True}])
def test_one_of_two_things_to_do(sync: ModuleType, arguments: dict[str, bool]) -> None:
    with pytest.raises(SystemExit, match="either --check or --write"):
        sync.main(**arguments)
