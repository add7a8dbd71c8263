"""Documents are written once, lie in every package under its name, and link to what is there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_documents import FENCED, LINK, PACKAGED, packaged_documents, renamed
from bundle_runs import BUNDLES, NNFORMER, ROOT, SWIN_UNETR, UNETR
from package_bundles import packaged_files

DOCUMENTS = ROOT / "shared" / "docs"
IN_REPOSITORY = sorted([ROOT / "README.md", *ROOT.glob("bundles/*/docs/*.md"), *DOCUMENTS.rglob("*.md")])


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    prose = FENCED.sub("", text)
    headings = [heading.strip().lower() for heading in re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def dead_links(text: str, folder: Path, read: Callable[[str], bytes | None]) -> list[str]:
    """Links of a document in a folder to files or headings that are not there; ``read`` takes a path."""
    dead = []
    for _, _, target, anchor in LINK.findall(FENCED.sub("", text)):
        if "://" not in target:
            content = read(posixpath.normpath((folder / target).as_posix())) if target else text.encode()
            if content is None or (anchor and anchor[1:] not in anchors(content.decode())):
                dead.append(target + anchor)
    return dead


def read_file(path: str) -> bytes | None:
    return Path(path).read_bytes() if Path(path).is_file() else None


@pytest.mark.parametrize("document", IN_REPOSITORY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_in_the_repository(document: Path) -> None:
    assert dead_links(document.read_text(encoding="utf-8"), document.parent, read_file) == []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_links_in_a_package(bundle: str) -> None:
    files = packaged_files(ROOT / "bundles" / bundle)
    documents = {path: data.decode() for path, data in files.items() if path.endswith(".md")}
    assert documents.keys() == {"docs/README.md", *(f"docs/{name}" for name in PACKAGED if name.endswith(".md"))}
    dead = {path: dead_links(text, Path("docs"), files.get) for path, text in documents.items()}
    assert {path: links for path, links in dead.items() if links} == {}


@pytest.mark.parametrize("bundle", [SWIN_UNETR, NNFORMER])
def test_a_package_speaks_of_its_own_bundle(bundle: str) -> None:
    files = packaged_files(ROOT / "bundles" / bundle)
    texts = {path: data.decode() for path, data in files.items() if path.startswith("docs/") and b"\0" not in data}
    assert [path for path, text in texts.items() if re.search(rf"\b{UNETR}\b", text)] == []
    assert [path for path, text in texts.items() if f"bundles/{bundle}" in text or "shared/docs" in text] == []
    assert f"runs/{bundle}/first/models" in texts["docs/tutorial.md"]
    assert "\nB=.\n" in texts["docs/tutorial.md"]
    assert "bundle=${BUNDLE:-.}\n" in texts["docs/slurm.sh"]
    assert f"workingDir: /storage/{bundle}\n" in texts["docs/kubernetes.yaml"]


def test_a_package_lists_the_values_of_its_own_bundle() -> None:
    text = packaged_files(ROOT / "bundles" / NNFORMER)["docs/reference.md"].decode()
    assert "| `0.01`<br>phantom: `0.002` |" in text
    assert "Arguments of `medcontext.networks.NNFormer`:" in text
    assert "## Values of" not in text


def test_a_document_or_picture_is_stored_once() -> None:
    folders = [DOCUMENTS, ROOT / ".github", *ROOT.glob("bundles/*/docs")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".md", ".png", ".sh", ".yaml")]
    kept = [path.read_bytes() for path in paths]
    assert len(set(kept)) == len(kept)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Short shared documents, to which tests add words."""
    for name in PACKAGED:
        (tmp_path / name).write_bytes((DOCUMENTS / name).read_bytes() if name == "reference.md" else b"one\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "packaged"),
    [
        (f"`{UNETR}`, `{UNETR}_phantom`, {UNETR}_v0.1.0.zip", f"`{NNFORMER}`, `{UNETR}_phantom`, {UNETR}_v0.1.0.zip"),
        (f"from the repository's root: bundles/{UNETR}/configs", "from the bundle's folder: configs"),
        (f"A=bundles/{UNETR} B=shared/docs", "A=. B=docs"),
        ("[keys](reference.md#records), [here](#above)", "[keys](reference.md#records), [here](#above)"),
        (f"[it](../../bundles/{UNETR}/docs/README.md#data)", "[it](README.md#data)"),
        (f"[train](../../bundles/{UNETR}/configs/train.json)", "[train](../configs/train.json)"),
        ("[the\nresults](results/trials.md), [all](../../README.md)", "the\nresults, all"),
        ("[paper](https://arxiv.org/abs/2402.17725)", "[paper](https://arxiv.org/abs/2402.17725)"),
        ("![method](method.png)", "![method](method.png)"),
        ("```python\na[0](results)\n```", "```python\na[0](results)\n```"),
    ],
)
def test_what_is_filled_in(text: str, packaged: str, documents: Path) -> None:
    (documents / "explanation.md").write_text(text, encoding="utf-8")
    files = packaged_files(ROOT / "bundles" / NNFORMER)
    assert packaged_documents(NNFORMER, files, documents)["docs/explanation.md"].decode() == packaged


def test_a_picture_that_is_not_packaged(documents: Path) -> None:
    (documents / "explanation.md").write_text("![all](results/all.png)", encoding="utf-8")
    with pytest.raises(ValueError, match="shared/docs/explanation.md shows results/all.png, which is not packaged"):
        packaged_documents(UNETR, packaged_files(ROOT / "bundles" / UNETR), documents)


def test_only_whole_names_are_renamed() -> None:
    assert renamed("a, a_b, ba", "a", "c") == "c, a_b, ba"
