"""The rules of the model zoo hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import verify_bundles
import verify_network
from archives import digest, read_zip, write_zip
from bundle_rules import RULES
from bundle_runs import BUNDLES, NNFORMER, ROOT, SWIN_UNETR, UNETR, for_bundles, read_json
from damage import Damage, change_json, edit, remove, write
from medcontext import __version__
from releases import EPOCH, VERSION, Release

META, TRAIN, INFERENCE, README = (
    "configs/metadata.json",
    "configs/train.json",
    "configs/inference.json",
    "docs/README.md",
)
WEIGHTS = """large_files:
- path: models/model.pt
  url: https://example.com/model.pt
  hash_val: {hash}
  hash_type: sha256
"""


def found(path: Path, *, network: bool = False, **arguments: Any) -> list[tuple[str, str]]:
    findings = verify_bundles.verify(path, network=network, **{"base": None, "published": {}, **arguments})
    return [(finding.rule, finding.message) for finding in findings]


def copied(bundle: str, folder: Path) -> Path:
    """The folder of a bundle in a copy of the repository, which has its documents too."""
    copy = folder / "bundles" / bundle
    shutil.copytree(ROOT / "bundles" / bundle, copy, ignore=shutil.ignore_patterns("models"))
    shutil.copytree(ROOT / "shared" / "docs", folder / "shared" / "docs", dirs_exist_ok=True)
    return copy


@for_bundles()
def test_the_bundles_keep_all_rules(bundle: str) -> None:
    assert found(ROOT / "bundles" / bundle) == []


def test_the_packed_bundles_keep_all_rules(release: Release) -> None:
    zips = sorted(release.folder.glob("*.zip"))
    assert len(zips) == len(BUNDLES) + 1
    assert {path.name: found(path, published=read_json(release.folder / "model_info.json")) for path in zips} == {
        path.name: [] for path in zips
    }


def sparse(file: str, size: int) -> Damage:
    """Make a file of this size that takes no room."""

    def apply(root: Path) -> None:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
        os.truncate(root / file, size)

    return apply


def pop(file: str, *keys: str) -> Damage:
    """Remove a key from a JSON file, the last of a path of keys."""

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change_json(file, change)


def update(file: str, **values: Any) -> Damage:
    return change_json(file, lambda content: content.update(values))


@pytest.mark.parametrize(
    ("damage", "rule", "message"),
    [
        (remove("LICENSE"), "necessary files", "LICENSE is missing or empty"),
        (write("docs/data_license.txt", "\n"), "necessary files", "docs/data_license.txt is missing or empty"),
        (remove(INFERENCE), "necessary files", "configs/inference.json is missing or empty"),
        (write("configs/resume.json", '{"a": 1, "a": 2}'), "readable configs", "configs/resume.json: a occurs twice"),
        (write("configs/resume.json", "[1]"), "readable configs", "configs/resume.json holds a list, it must hold"),
        (write("configs/resume.json", "{"), "readable configs", "configs/resume.json: Expecting property name"),
        (pop(META, "name"), "name", "configs/metadata.json lacks the name to display"),
        (pop(META, "copyright"), "metadata schema", "top level: 'copyright' is a required property"),
        (update(META, references="one"), "metadata schema", "references: 'one' is not of type 'array'"),
        (update(META, schema="https://x/other.json"), "metadata schema", "names the schema https://x/other.json, exp"),
        (update(META, version="0.1"), "version", "the version 0.1 must be three numbers joined by dots"),
        (update(META, version="0.9.0"), "version", "the changelog of configs/metadata.json says nothing of 0.9.0"),
        (update(META, changelog={VERSION: ""}), "version", "configs/metadata.json says nothing of 0.1.0"),
        (update(META, monai_version=">=1.6"), "packages", "monai_version must have one version, got '>=1.6'"),
        (update(META, required_packages_version={"fire": ""}), "packages", "fire must have one version, got ''"),
        (write("LICENSE", "Free.\n"), "licences", "LICENSE is not the Apache License"),
        (edit("docs/data_license.txt", "ACDC", "Hearts"), "licences", "docs/data_license.txt says nothing of acdc"),
        (edit(README, "## Performance", "## Speed"), "readme", "lacks the section Performance, or it is empty"),
        (edit(README, "## Input\n", "## Input\n## More\n"), "readme", "lacks the section Input, or it is empty"),
        (edit(README, "## Input\n", "## Output\n"), "readme", "The heading 'Output' occurs twice"),
        (remove("docs/preview.png"), "readme", "docs/README.md speaks of preview.png, which is not there"),
        (remove("configs/resume.json"), "readme", "speaks of configs/resume.json, which is not there"),
        (
            update(TRAIN, dataset_dir="/home/me/data"),
            "paths",
            "dataset_dir holds a path of somebody's machine: /home/me",
        ),
        (update(TRAIN, home="$'~/x' + @bundle"), "paths", "home holds a path of somebody's machine"),
        (pop(INFERENCE, "output_dir"), "inference keys", "configs/inference.json lacks the key output_dir"),
        (pop(TRAIN, "device"), "train keys", "configs/train.json lacks the key device"),
        (pop(TRAIN, "train", "dataset", "data"), "train keys", "lacks the key train#dataset#data"),
        (pop(TRAIN, "train", "preprocessing"), "train keys", "lacks the key train#preprocessing"),
        (pop(TRAIN, "validate", "key_metric"), "train keys", "lacks the key validate#key_metric"),
        (
            edit(TRAIN, '"$min(@val_interval, @max_epochs)"', "5"),
            "train keys",
            "interval must be taken from @val_interval",
        ),
        (pop(INFERENCE, "postprocessing"), "consumers", "lacks postprocessing#transforms, which MONAI Label reads"),
        (
            edit(INFERENCE, "LoadImageScand", "LoadScand"),
            "consumers",
            "in the name of its class, got medcontext.scans.L",
        ),
        (
            write("models/model.json", '{"settings": {"labels": {"heart": 1}}}'),
            "consumers",
            "channel_def does not name heart as models/model.json does",
        ),
        (pop(INFERENCE, "evaluator"), "properties", "lacks evaluator, where MONAI looks for the property evaluator"),
        (
            change_json(TRAIN, lambda config: config["validate"]["evaluator"].update(val_handlers="@others")),
            "properties",
            "validate#evaluator#val_handlers must be @validate#handlers, got @others",
        ),
        (sparse("models/model.pt", 26 * 2**20), "file sizes", "models/model.pt has more than 25 MB and is not in"),
        (edit(README, "No weights", "Some weights"), "weights", "models/model.pt is neither there nor in large_files"),
        (
            write("large_files.yml", WEIGHTS.format(hash="ab")),
            "large files",
            "needs hash_type sha256 and its 64 digits",
        ),
        (
            write("large_files.yml", WEIGHTS.format(hash="0" * 64).replace("models/", "../")),
            "large files",
            "../model.pt leads out of the bundle",
        ),
        (
            write("large_files.yml", WEIGHTS.format(hash="0" * 64).replace("models/", "..\\")),
            "large files",
            "..\\model.pt leads out of the bundle",
        ),
        (
            write("large_files.yml", WEIGHTS.format(hash="0" * 64).replace("models/", "C:/")),
            "large files",
            "C:/model.pt leads out of the bundle",
        ),
        (
            write("large_files.yml", WEIGHTS.format(hash="0" * 64).replace("https", "file")),
            "large files",
            "the url of models/model.pt must be one of http or https, got file://",
        ),
        (write("code.py", "1\n"), "no code", "code.py does not belong in the repository's bundles"),
    ],
)
def test_what_breaks_a_rule_is_found(damage: Damage, rule: str, message: str, tmp_path: Path) -> None:
    folder = copied(UNETR, tmp_path)
    damage(folder)
    findings = found(folder)
    assert any(rule == broken and message in text for broken, text in findings), findings


def test_every_rule_is_broken_above() -> None:
    (marks,) = test_what_breaks_a_rule_is_found.pytestmark
    assert {rule for _, rule, _ in marks.args[1]} == RULES.keys() - {"archive"}


def test_a_name_that_the_zoo_would_not_take(tmp_path: Path) -> None:
    folder = copied(UNETR, tmp_path)
    folder = folder.rename(folder.with_name("MedContext-UNETR"))
    assert ("name", "MedContext-UNETR must be words of small letters and digits, joined by underscores") in found(
        folder
    )


def test_weights_that_are_listed_have_their_hash(tmp_path: Path) -> None:
    folder = copied(UNETR, tmp_path)
    write("models/model.pt", "weights")(folder)
    write("large_files.yml", WEIGHTS.format(hash=digest(b"weights")))(folder)
    assert found(folder) == []
    write("models/model.pt", "others")(folder)
    assert found(folder) == [("large files", "large_files.yml: the SHA-256 of models/model.pt is another")]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("unetr.zip", {}, f"the zip must be named {UNETR}_v{VERSION}.zip"),
        (None, {"other/file": b""}, f"other/file lies outside of the folder {UNETR}"),
        (None, {f"{UNETR}/sbom.cdx.json": None}, "sbom.cdx.json is missing"),
        (None, {f"{UNETR}/wheels/medcontext-{VERSION}-py3-none-any.whl": None}, "wheels/ holds no wheel of medcontext"),
        (None, {f"{UNETR}/medcontext/keys.py": b""}, "medcontext/keys.py is not what SHA256SUMS says"),
        (None, {f"{UNETR}/extra.txt": b""}, "extra.txt is not what SHA256SUMS says"),
        (None, {f"{UNETR}/medcontext/keys.py": None}, "medcontext/keys.py is in SHA256SUMS, but not there"),
    ],
)
def test_a_spoilt_zip_is_found(
    name: str | None, change: dict[str, bytes | None], message: str, release: Release, tmp_path: Path
) -> None:
    original = release.folder / f"{UNETR}_v{VERSION}.zip"
    files = {**read_zip(original), **change}
    spoilt = write_zip(
        tmp_path / (name or original.name), {path: data for path, data in files.items() if data is not None}, int(EPOCH)
    )
    assert ("archive", message) in found(spoilt)


def test_a_published_zip_never_changes(release: Release) -> None:
    path, published = release.folder / f"{UNETR}_v{VERSION}.zip", read_json(release.folder / "model_info.json")
    published[f"{UNETR}_v{VERSION}"]["checksum"] = "0" * 40
    assert found(path, published=published) == [
        ("new version", "0.1.0 was published with other content; it needs a new version")
    ]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one bundle, whose first commit is tagged v0.1.0."""
    copied(UNETR, tmp_path)
    write("shared/medcontext/code.py", "1\n")(tmp_path)
    for words in ("init -q", "add -A", "commit -q -m first", "tag v0.1.0"):
        git(tmp_path, *words.split())
    return tmp_path


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        edit(f"bundles/{UNETR}/configs/baseline.json", "    ", "     "),
        write(f"bundles/{UNETR}/docs/new.txt", "new\n"),
        write("shared/medcontext/code.py", "2\n"),
        write("constraints.txt", "fire==0.7\n"),
        write("ci/schema.json", "{}\n"),
    ],
)
def test_a_changed_bundle_needs_a_new_version(repository: Path, damage: Damage, committed: bool) -> None:
    folder = repository / "bundles" / UNETR
    assert found(folder, base="v0.1.0") == []
    damage(repository)
    if committed:
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "second")
    message = "it or what is packed with it changed since v0.1.0; it needs a version above 0.1.0, not {}"
    for number in ("0.1.0", "0.0.9"):
        update(META, version=number, changelog={number: "more"})(folder)
        assert found(folder, base="v0.1.0") == [("new version", message.format(number))]
    update(META, version="0.10.0", changelog={"0.10.0": "more"})(folder)
    assert found(folder, base="v0.1.0") == []


def test_a_version_that_cannot_be_compared(repository: Path) -> None:
    folder = repository / "bundles" / UNETR
    update(META, version="next", changelog={"next": "more"})(folder)
    assert ("new version", "cannot be checked: InvalidVersion: Invalid version: 'next'") in found(folder, base="v0.1.0")


def test_an_unknown_revision_is_an_error(repository: Path) -> None:
    with pytest.raises(ValueError, match="git knows no revision v0.0.5 in .*; fetch it or give another as --base"):
        found(repository / "bundles" / UNETR, base="v0.0.5")


def test_a_new_bundle_needs_no_new_version(repository: Path) -> None:
    assert found(copied(NNFORMER, repository), base="v0.1.0") == []


def test_the_last_release_is_the_last_tag(repository: Path) -> None:
    assert verify_bundles.last_release(repository) == "v0.1.0"
    git(repository, "tag", "v0.2.0")
    assert verify_bundles.last_release(repository, "v0.2.0") == "v0.1.0"
    git(repository, "tag", "-d", "v0.1.0", "v0.2.0")
    assert verify_bundles.last_release(repository) is None


@pytest.mark.parametrize("version", ["0.2.0rc1", "0.2.0a1", "0.2.0b12"])
def test_a_version_before_a_release(version: str, tmp_path: Path) -> None:
    folder = copied(UNETR, tmp_path)
    update(META, version=version, changelog={version: "more"})(folder)
    assert found(folder) == []


def test_the_versions_are_that_of_the_tag(tmp_path: Path) -> None:
    folders = [copied(UNETR, tmp_path), copied(NNFORMER, tmp_path)]
    assert list(verify_bundles.mistagged(folders, f"v{__version__}")) == []
    update(META, version="0.0.5")(folders[1])
    assert list(verify_bundles.mistagged(folders, f"v{__version__}")) == [
        (NNFORMER, "tag", f"has version 0.0.5, but the release's tag is v{__version__}")
    ]
    assert [finding.bundle for finding in verify_bundles.mistagged(folders, "v0.0.5")] == ["medcontext", UNETR]
    assert len(list(verify_bundles.mistagged(folders, __version__))) == 3


# --- the network ---


@pytest.mark.slow  # a process of its own; the tests of MONAI's downloads load the zip's code in one too
def test_the_network_of_a_zip_is_checked_with_its_own_code(release: Release, tmp_path: Path) -> None:
    path = release.folder / f"{UNETR}_phantom_v{VERSION}.zip"
    assert found(path, network=True) == []


@pytest.fixture
def phantom(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked bundle with weights, as working directory."""
    shutil.unpack_archive(release.folder / f"{UNETR}_phantom_v{VERSION}.zip", tmp_path)
    monkeypatch.chdir(tmp_path / f"{UNETR}_phantom")
    return tmp_path / f"{UNETR}_phantom"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change_json(META, lambda content: content["network_data_format"]["outputs"]["pred"].update(num_channels=3)),
            "the network does not have the shapes of configs/metadata.json",
        ),
        (
            change_json(INFERENCE, lambda content: content["network_def"].update(feature_size=8)),
            "models/model.pt is not of the network of configs/inference.json",
        ),
    ],
)
def test_a_network_that_is_not_as_declared(damage: Damage, message: str, phantom: Path) -> None:
    assert list(verify_network.findings()) == []
    damage(phantom)
    (finding,) = verify_network.findings()
    assert message in finding


def test_a_network_that_no_longer_compiles(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the README speaks of tracing, by which it could still be exported."""

    def rejected(network: torch.nn.Module) -> None:
        raise RuntimeError(f"\n{type(network).__name__} uses a star\n")

    monkeypatch.setattr(torch.jit, "script", rejected)
    assert list(verify_network.findings()) == [
        f"the network cannot be compiled by TorchScript: {type(verify_network._network()).__name__} uses a star"
    ]


@pytest.mark.slow
def test_a_network_that_is_traced_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(SWIN_UNETR, tmp_path)
    overlay = read_json(folder / "configs" / "phantom.json")
    small = {key: overlay[key] for key in ("network_def", "roi_size")}
    update(INFERENCE, **small)(folder)
    monkeypatch.chdir(folder)
    assert list(verify_network.findings()) == []
    edit(README, "by tracing", "somehow")(folder)
    assert list(verify_network.findings()) == [
        "the network can be traced only, and docs/README.md does not speak of tracing"
    ]


@pytest.mark.slow
@for_bundles()
def test_the_networks_keep_all_rules(bundle: str, release: Release) -> None:
    assert found(ROOT / "bundles" / bundle, network=True) == []
    assert found(release.folder / f"{bundle}_v{VERSION}.zip", network=True) == []


# --- the command ---


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(UNETR, tmp_path)
    verify_bundles.main(str(folder), mode="min")
    assert capsys.readouterr().out == f"1 bundles keep all {len(RULES) + 1} rules\n"
    verify_bundles.main(str(folder), mode="min", tag=f"v{VERSION}")
    assert capsys.readouterr().out == f"1 bundles keep all {len(RULES) + 2} rules\n"
    with pytest.raises(SystemExit, match="1"):
        verify_bundles.main(str(folder), mode="min", tag="v9.9.9")
    assert "medcontext_unetr  tag   has version 0.1.0, but the release's tag is v9.9.9" in capsys.readouterr().out
    write("code.py", "1\n")(folder)
    with pytest.raises(SystemExit, match="1"):
        verify_bundles.main(str(folder), mode="min")
    assert capsys.readouterr().out.splitlines() == [
        "bundle            rule     finding",
        "medcontext_unetr  no code  code.py does not belong in the repository's bundles",
    ]
    with pytest.raises(SystemExit, match="mode must be full or min, got all"):
        verify_bundles.main(str(folder), mode="all")
    with pytest.raises(SystemExit, match="is neither a bundle's folder nor a zip"):
        verify_bundles.main(str(folder / "code.py"), mode="min")
