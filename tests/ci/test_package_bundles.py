"""What is released: complete, the same bytes each time, and running without this repository."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import package_bundles
import phantom_bundle
from archives import write_zip
from bundle_runs import BUNDLES, NETWORKS, NNFORMER, ROOT, TINY, UNETR, for_bundles, overrides_for, read_json
from damage import change_json
from forks import run_script
from isolated import run_isolated
from medcontext.phantoms.cohort import write_phantoms
from phantom_bundle import phantom_files
from platforms import posix_only
from releases import EPOCH, VERSION, Release, small_weights
from software_bill import pinned, software_bill
from sync_bundles import sections

PHANTOM = f"{UNETR}_phantom"
PINS = pinned((ROOT / "constraints.txt").read_text())


def zip_of(release: Release, bundle: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(release.folder / f"{bundle}_v{VERSION}.zip")


def unpacked(release: Release, bundle: str, folder: Path) -> Path:
    with zip_of(release, bundle) as archive:
        archive.extractall(folder)
    return folder / bundle


def own_files(bundle: str) -> dict[str, bytes]:
    return package_bundles.packaged_files(ROOT / "bundles" / bundle)


def test_what_is_released(release: Release) -> None:
    zips = {f"{name}_v{VERSION}.zip" for name in (*BUNDLES, PHANTOM)}
    others = {
        "model_info.json",
        "SHA256SUMS",
        f"{PHANTOM}_v{VERSION}_model.pt",
        f"medcontext-{VERSION}-py3-none-any.whl",
    }
    assert {path.name for path in release.folder.iterdir()} == zips | others
    check = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release.folder, capture_output=True)
    assert check.returncode == 0
    assert check.stdout.count(b": OK") == len(zips) + 3
    info = read_json(release.folder / "model_info.json")
    assert info.keys() == {name.removesuffix(".zip") for name in zips}
    for key, entry in info.items():
        content = (release.folder / f"{key}.zip").read_bytes()
        assert entry["checksum"] == hashlib.sha1(content).hexdigest()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["source"] == f"{release.url}/{key}.zip"


@pytest.mark.parametrize("bundle", [UNETR, PHANTOM])
def test_a_zip_is_complete(release: Release, bundle: str, tmp_path: Path) -> None:
    with zip_of(release, bundle) as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == sorted(member.filename for member in members)
    assert {member.filename.split("/")[0] for member in members} == {bundle}
    assert {member.date_time for member in members} == {(2023, 11, 14, 22, 13, 20)}
    assert {member.external_attr >> 16 for member in members} == {0o100644}
    folder = unpacked(release, bundle, tmp_path)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    package = [path for path in (ROOT / "shared" / "medcontext").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    sources = {p.relative_to(ROOT / "shared").as_posix() for p in package}
    extra = {"LICENSE", "requirements.txt", "constraints.txt", "sbom.cdx.json", "eval/schema.json", "SHA256SUMS"}
    extra |= {f"wheels/medcontext-{VERSION}-py3-none-any.whl"}
    extra |= {"models/model.pt", "models/model.json", "large_files.yml"} if bundle == PHANTOM else set()
    assert files == set(own_files(UNETR)) | sources | extra
    for name in sources:
        assert (folder / name).read_bytes() == (ROOT / "shared" / name).read_bytes()
    check = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert check.returncode == 0
    assert check.stdout.count(b": OK") == len(files) - 1


@posix_only
def test_the_same_bytes_from_a_copy_elsewhere(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the path nor times, permissions, caches and leftovers of builds have a say."""
    for name in ("bundles", "shared", "ci"):
        shutil.copytree(ROOT / name, tmp_path / name, copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "build" / "lib" / "medcontext").mkdir(parents=True)
    (tmp_path / "build" / "lib" / "medcontext" / "leftover.py").touch()
    (tmp_path / "bundles" / UNETR / "models").mkdir(exist_ok=True)
    (tmp_path / "bundles" / UNETR / "models" / "model.pt").touch()
    for name, value in {"SOURCE_DATE_EPOCH": EPOCH, "PYTHONPATH": str(tmp_path / "shared"), "TZ": "Asia/Tokyo"}.items():
        monkeypatch.setenv(name, value)
    words = ["--output", "out", "--weights", str(release.weights), "--base_url", f"{release.url}/"]
    code = run_script(tmp_path, "ci/package_bundles.py", words, tmp_path / "log", umask=0o077)
    assert code == 0, (tmp_path / "log").read_text()
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert made == {path.name: path.read_bytes() for path in release.folder.iterdir()}


def test_the_time_is_that_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_bundles, "ROOT", tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match="Without a git commit, set SOURCE_DATE_EPOCH"):
        package_bundles.source_time()
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    dated = {**os.environ, "GIT_COMMITTER_DATE": "1650000000 +0000"}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, env=dated, check=True)
    assert package_bundles.source_time() == 1650000000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert package_bundles.source_time() == 5


def test_a_zip_knows_no_time_before_1980(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"b": b"2", "a": b"1"}, epoch=0)
    with zipfile.ZipFile(path) as archive:
        assert [member.filename for member in archive.infolist()] == ["a", "b"]
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


@for_bundles()
def test_metadata_declares_every_package_at_its_pinned_version(bundle: str) -> None:
    metadata = read_json(ROOT / "bundles" / bundle / "configs" / "metadata.json")
    declared = {canonicalize_name(n): v for n, v in package_bundles.requirements(metadata).items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert declared == {name: PINS[name] for name in needed | {"numpy"}}


def test_the_software_bill(release: Release, tmp_path: Path) -> None:
    folder = unpacked(release, UNETR, tmp_path)
    text = (folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    found = {component["name"]: component for component in bill["components"]}
    for name in ("torch", "monai", "mlflow", "flask", "werkzeug", "setuptools"):  # from the first to the third level
        assert found[name]["purl"] == f"pkg:pypi/{name}@{PINS[name]}"
    assert not {"pytest", "ruff", "mypy", "playwright", "cyclonedx-python-lib", "trustme"} & found.keys()
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    metadata = read_json(ROOT / "bundles" / UNETR / "configs" / "metadata.json")
    own, wheel = found["medcontext"], folder / "wheels" / f"medcontext-{VERSION}-py3-none-any.whl"
    assert own["version"] == VERSION
    assert own["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    assert len(needs[own["bom-ref"]]) == len(package_bundles.requirements(metadata))
    assert sorted(needs[UNETR]) == sorted([*needs[own["bom-ref"]], own["bom-ref"]])
    assert found["werkzeug"]["purl"] in needs[found["flask"]["purl"]]


def test_the_software_bill_needs_the_packages() -> None:
    with pytest.raises(ValueError, match="nonsense is not installed; run pip install -c constraints.txt"):
        software_bill("a", "1.0.0", {"nonsense": "1.0"}, {}, Path("w.whl"), 0)


def test_a_published_version_never_changes() -> None:
    first = package_bundles.listing({"a_v0.1.0.zip": b"1"}, "https://x", {})
    assert package_bundles.listing({"a_v0.1.0.zip": b"1"}, "https://elsewhere", first) == first
    later = package_bundles.listing({"a_v0.2.0.zip": b"2"}, "", first)
    assert {key: entry["source"] for key, entry in later.items()} == {
        "a_v0.1.0": "https://x/a_v0.1.0.zip",
        "a_v0.2.0": "a_v0.2.0.zip",
    }
    with pytest.raises(ValueError, match="a_v0.1.0 was published with other content; give the changed bundle a new"):
        package_bundles.listing({"a_v0.1.0.zip": b"2"}, "", first)


def test_the_bundle_with_weights_is_the_small_network(release: Release, tmp_path: Path) -> None:
    folder = unpacked(release, PHANTOM, tmp_path)
    weights = release.weights / UNETR / "model.pt"
    for name in ("model.pt", "model.json"):
        assert (folder / "models" / name).read_bytes() == weights.with_name(name).read_bytes()
    (entry,) = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    assert entry == {
        "path": "models/model.pt",
        "url": f"{release.url}/{PHANTOM}_v{VERSION}_model.pt",
        "hash_val": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "hash_type": "sha256",
    }
    overlay = read_json(ROOT / "bundles" / UNETR / "configs" / "phantom.json")
    train, inference = (read_json(folder / "configs" / f"{name}.json") for name in ("train", "inference"))
    assert overlay.items() <= train.items()
    assert inference.keys() == read_json(ROOT / "bundles" / UNETR / "configs" / "inference.json").keys()
    for key in ("network_def", "roi_size", "spacing", "sw_batch_size"):
        assert inference[key] == overlay[key]
    shapes = read_json(folder / "configs" / "metadata.json")["network_data_format"]
    assert shapes["inputs"]["image"]["spatial_shape"] == [48, 48, 48]
    readme = (folder / "docs" / "README.md").read_text()
    assert "never saw a patient" in readme
    assert f"runs/{PHANTOM}/RUN/models" in readme
    performance = sections(readme)["Performance"]
    assert "0.746 (95 % 0.700–0.800) on 12 held-out phantoms" in performance
    assert "0.822" not in performance
    assert "](preview.png)" in performance


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = small_weights(tmp_path, UNETR)
    state = torch.load(weights, weights_only=True)
    state.popitem()
    torch.save(state, weights)
    with pytest.raises(ValueError, match="model.pt"):
        phantom_files(UNETR, own_files(UNETR), weights, "https://x/model.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_dice": 0.499}, "model.pt has a mean Dice of 0.499, and less than 0.5 is not published; train again"),
        ({"mean_dice": None}, "has a mean Dice of None, and less than 0.5 is not published"),
        ({"info": {"checkpoint_sha256": "0" * 64}}, "summary.json is the evaluation of other weights than .*model.pt"),
    ],
)
def test_weights_that_are_bad_or_unmeasured_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights = small_weights(tmp_path, UNETR)
    change_json("summary.json", lambda summary: summary.update(change))(weights.parent)
    with pytest.raises(ValueError, match=message):
        phantom_files(UNETR, own_files(UNETR), weights, "https://x/model.pt")
    with pytest.raises(SystemExit, match=f"phantom_bundle: .*{message}"):
        phantom_bundle.main(str(weights))


@for_bundles()
def test_every_readme_tells_what_its_own_weights_scored(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = small_weights(tmp_path, bundle)
    phantom_bundle.main(str(weights))
    assert capsys.readouterr().out.endswith("model.pt has a mean Dice of 0.746\n")
    readme = phantom_files(bundle, own_files(bundle), weights, "https://x/model.pt")["docs/README.md"].decode()
    assert sections(readme)["Performance"].count(" (95 % ") == 1
    assert "of 0.746 (95 % 0.700–0.800)" in readme


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": Path("w")}, ValueError, "say by --base_url from where"),
        ({"weights": Path("w"), "base_url": "https://x"}, FileNotFoundError, "w holds no BUNDLE/model.pt"),
    ],
)
def test_refuses(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = "medcontext-0.1.0-py3-none-any.whl"
    monkeypatch.setattr(package_bundles, "build_wheel", lambda _, folder, epoch: write_zip(folder / wheel, {}, epoch))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    with pytest.raises(error, match=message):
        package_bundles.package_bundles(tmp_path, **arguments)


RUN = """
import json, sys
from monai.bundle import run
for entry, arguments in json.loads(sys.argv[1]):
    run(entry, **arguments)
import medcontext
print("package:", medcontext.__file__)
"""


def steps(bundle: str, folder: Path, cohort: Path) -> list[tuple[str, dict[str, Any]]]:
    """What trains, evaluates and predicts in an unpacked zip, as arguments of MONAI's ``run``."""
    configs, models = folder / "configs", str(folder / "runs" / bundle / "one" / "models")
    train, evaluate, inference = (str(configs / f"{name}.json") for name in ("train", "evaluate", "inference"))
    small = overrides_for(bundle, "train", dataset_dir=str(cohort), max_epochs=1, reported={"liver": [6]})
    predicting = overrides_for(bundle, "inference", dataset_dir=str(cohort))
    return [
        ("training", {"config_file": train, "run_name": "one", **small}),
        ("evaluating", {"config_file": [train, evaluate], "ckpt_dir": models, **small}),
        ("inferring", {"config_file": inference, "ckpt_dir": models, **predicting}),
    ]


def export_words(bundle: str) -> list[str]:
    """The command that exports that training, from inside the bundle."""
    words = ["-m", "monai.bundle", "ckpt_export", "network_def", "--filepath", "model.ts", "--use_trace", "True"]
    words += ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    words += ["--ckpt_file", f"runs/{bundle}/one/models/model.pt"]
    size = TINY[bundle]["roi_size"]
    words += ["--input_shape", str([1, 1, *size]), "--roi_size", str(size)]
    for name, value in NETWORKS[bundle].items():
        words += [f"--network_def#{name}", str(value)]
    return words


def assert_ran(bundle: str, folder: Path) -> None:
    run = folder / "runs" / bundle / "one"
    assert (run / "evaluation" / "report.html").is_file()
    assert len(list((run / "predictions").glob("*.nii.gz"))) == 2
    size = TINY[bundle]["roi_size"]
    assert torch.jit.load(folder / "model.ts")(torch.zeros(1, 1, *size)).shape == (1, 14, *size)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_phantoms(folder / "btcv", num_cases=6, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0), progress=False)
    return folder / "btcv"


@pytest.mark.slow  # quick tests load a zip's network by its own code
@for_bundles(UNETR)
def test_a_zip_runs_where_nothing_of_this_repository_is(
    bundle: str, release: Release, cohort: Path, tmp_path: Path
) -> None:
    """Trained, evaluated and predicted with from another folder, exported from inside."""
    folder = unpacked(release, bundle, tmp_path / "zips")
    (tmp_path / "elsewhere").mkdir()
    result = run_isolated("-c", RUN, json.dumps(steps(bundle, folder, cohort)), cwd=tmp_path / "elsewhere")
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"package: {folder / 'medcontext' / '__init__.py'}" in result.stdout
    assert list((tmp_path / "elsewhere").iterdir()) == []
    result = run_isolated(*export_words(bundle), cwd=folder)
    assert result.returncode == 0, result.stderr[-2000:]
    assert_ran(bundle, folder)


@pytest.mark.slow
def test_a_zip_runs_with_its_declared_packages_alone(release: Release, tmp_path: Path) -> None:
    """In a fresh environment that holds what ``requirements.txt`` names, at the pinned versions, and no more."""
    folder = unpacked(release, NNFORMER, tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MEDCONTEXT_HOME")}

    def call(*words: Any) -> str:
        result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    call(sys.executable, "-m", "venv", tmp_path / "venv")
    install = [python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt"]
    if not torch.version.cuda:  # PyPI's build for Linux brings gigabytes that no CPU has a use for
        version = PINS["torch"]
        call(*install, f"torch=={version}", "--extra-index-url", "https://download.pytorch.org/whl/cpu")
    call(*install, "-r", "requirements.txt")
    data = folder / "data" / "btcv"
    sizes = ["--num_cases", "6", "--size", "[32,32,32]", "--spacing", "[4.5,4.5,6.0]"]
    call(python, "-m", "medcontext", "phantoms", "--output_dir", data, *sizes)
    assert f"package: {folder}" in call(python, "-W", "ignore", "-c", RUN, json.dumps(steps(NNFORMER, folder, data)))
    call(python, *export_words(NNFORMER))
    assert_ran(NNFORMER, folder)
