"""MONAI's own download and load on what is released, and where ``python -m medcontext download`` goes further."""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
import torch
from monai.apps.utils import HashCheckError
from monai.bundle import download, download_large_files, get_all_bundles_list, get_bundle_info, get_bundle_versions

from bundle_runs import BUNDLES, UNETR
from collections_of_bundles import unzipped
from hosts import API, ASSETS, GITHUB, RAW, github, hub
from isolated import run_isolated
from medcontext.hub.collection import read_collection
from medcontext.hub.download import download_bundle
from package_bundles import listing
from releases import VERSION, Release

PHANTOM = f"{UNETR}_phantom"
TAG = f"v{VERSION}"
REPOSITORY = "owner/zoo"
DOWNLOADS = f"https://{GITHUB}/{REPOSITORY}/releases/download/{TAG}"


class OnGitHub(NamedTuple):
    """What a client sees of the release, and which hosts it asked for."""

    folder: Path
    hosts: list[str]


@pytest.fixture
def on_github(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnGitHub]:
    """The release, and the branch ``main``, whose list tells of two later versions of UNETR."""
    folder = tmp_path / "hosts"
    assets = folder / ASSETS / REPOSITORY / "releases" / "download" / TAG
    assets.mkdir(parents=True)
    for path in release.folder.iterdir():
        (assets / path.name).symlink_to(path)
    zips = {path.name: path.read_bytes() for path in release.folder.glob("*.zip")}
    later = {f"{UNETR}_v{version}.zip": version.encode() for version in ("0.9.0", "0.10.0")}
    (assets / "model_info.json").unlink()
    for place, files in ((assets, zips), (folder / RAW / REPOSITORY / "main" / "models", zips | later)):
        place.mkdir(parents=True, exist_ok=True)
        (place / "model_info.json").write_text(json.dumps(listing(files, DOWNLOADS, {})))
    listed = [{"name": path.name, "browser_download_url": f"{DOWNLOADS}/{path.name}"} for path in assets.iterdir()]
    releases = folder / API / "repos" / REPOSITORY / "releases"
    releases.parent.mkdir(parents=True)
    releases.write_text(json.dumps([{"tag_name": "hosting_storage_v1", "assets": listed}]))
    with github(folder, tmp_path / "ca.pem") as (_, proxy, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
        yield OnGitHub(folder, proxy.hosts)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def released(release: Release, bundle: str) -> dict[str, bytes]:
    return unzipped((release.folder / f"{bundle}_v{VERSION}.zip").read_bytes())


def test_monai_reads_the_list_of_a_branch(on_github: OnGitHub) -> None:
    latest = dict(get_all_bundles_list(REPOSITORY, "main"))
    assert latest == {**dict.fromkeys((*BUNDLES, PHANTOM), VERSION), UNETR: "0.9.0"}  # it compares versions as text
    versions = get_bundle_versions(UNETR, REPOSITORY, "main")["all_versions"]
    assert sorted(versions) == ["0.1.0", "0.10.0", "0.9.0"]
    assert get_bundle_info(UNETR, VERSION, REPOSITORY, "main") == {
        "name": f"{UNETR}_v{VERSION}",
        "browser_download_url": f"{DOWNLOADS}/{UNETR}_v{VERSION}.zip",
    }
    address = f"https://{RAW}/{REPOSITORY}/main/models"
    assert read_collection(address).find(UNETR).version == "0.10.0"
    assert set(on_github.hosts) == {RAW}


def test_monai_lists_the_assets_of_a_release_of_its_own_name(on_github: OnGitHub) -> None:
    latest = dict(get_all_bundles_list(REPOSITORY, "hosting_storage_v1"))
    assert {latest[bundle] for bundle in BUNDLES} == {VERSION}
    found = get_bundle_info(PHANTOM, VERSION, REPOSITORY, "hosting_storage_v1")
    assert found["browser_download_url"] == f"{DOWNLOADS}/{PHANTOM}_v{VERSION}.zip"
    assert set(on_github.hosts) == {API}


def test_by_name_from_a_release_on_github(on_github: OnGitHub, release: Release, tmp_path: Path) -> None:
    """MONAI needs the version; without it, it looks for a list in the tag, which no release has."""
    repo = f"{REPOSITORY}/{TAG}"
    download(UNETR, VERSION, tmp_path / "monai", "github", repo, progress=False)
    assert contents(tmp_path / "monai" / UNETR) == released(release, UNETR)
    assert on_github.hosts == [GITHUB, ASSETS]
    with pytest.raises(requests.HTTPError, match=f"404 .*/{REPOSITORY}/{TAG}/models/model_info.json"):
        download(UNETR, None, tmp_path / "monai", "github", repo, progress=False)
    on_github.hosts.clear()
    assert contents(download_bundle(UNETR, DOWNLOADS, tmp_path / "ours")) == released(release, UNETR)
    assert on_github.hosts == [GITHUB, ASSETS] * 2


def test_a_certificate_that_nobody_vouches_for(
    on_github: OnGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConnectionError, match="is unreachable .*CERTIFICATE_VERIFY_FAILED.*; check the address"):
        download_bundle(UNETR, DOWNLOADS, tmp_path / "out")


@pytest.mark.parametrize("place", ["web", "folder"])
def test_by_name_from_any_web_server_or_folder(place: str, release: Release, tmp_path: Path) -> None:
    source = release.url if place == "web" else release.folder
    assert [(bundle.name, bundle.version) for bundle in read_collection(source).bundles] == [
        (name, VERSION) for name in sorted((*BUNDLES, PHANTOM))
    ]
    release.server.requests.clear()
    folder = download_bundle(f"{PHANTOM}@{VERSION}", source, tmp_path)
    assert len(release.server.requests) == (2 if place == "web" else 0)
    assert contents(folder) == released(release, PHANTOM)


def test_the_command_line_by_url(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["download", "--name", UNETR, "--url", f"{release.url}/{UNETR}_v{VERSION}.zip", "--bundle_dir", "bundles"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *words])
    runpy.run_module("monai.bundle", run_name="__main__")
    assert contents(tmp_path / "bundles" / UNETR) == released(release, UNETR)


LOAD = """
import sys
import torch
from monai.bundle import download, load
bundle, version, release, url = sys.argv[1:]
by_name = {"source": "huggingface_hub", "repo": "owner/phantom"}
networks = {
    "github": load(bundle, version=version, bundle_dir="github", source="github", repo=release),
    "hub": load(bundle, version=version, bundle_dir="hub", **by_name),
    "url": load(bundle, args_file={"url": url}, bundle_dir="url"),
}
download(bundle, bundle_dir="latest", **by_name)
for name, network in networks.items():
    torch.save(network.state_dict(), f"{name}.pt")
import medcontext
print("package:", medcontext.__file__)
"""


@pytest.mark.usefixtures("on_github")
def test_load_by_name_and_by_url(release: Release, tmp_path: Path) -> None:
    """A network with its weights in one call, where the wheel that comes in the zip is installed."""
    files = released(release, PHANTOM)
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (wheel,) = (tmp_path / PHANTOM / "wheels").glob("medcontext-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", tmp_path / "site", wheel], check=True)
    with hub({"owner/phantom": {VERSION: tmp_path / PHANTOM, "main": tmp_path / PHANTOM / "configs"}}) as server:
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        words = [PHANTOM, VERSION, f"{REPOSITORY}/{TAG}", f"{release.url}/{PHANTOM}_v{VERSION}.zip"]
        site = (tmp_path / "site",)
        result = run_isolated("-c", LOAD, *words, cwd=tmp_path, path=site, environment=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"package: {tmp_path / 'site' / 'medcontext' / '__init__.py'}" in result.stdout
    for place in ("github", "hub", "latest"):  # a tag comes before main
        assert contents(tmp_path / place / PHANTOM) == files
    expected = torch.load(release.weights / UNETR / "model.pt", weights_only=True)
    for name in ("github", "hub", "url"):
        loaded = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.items())


def test_monai_checks_the_large_files(release: Release, tmp_path: Path) -> None:
    folder = download_bundle(PHANTOM, release.folder, tmp_path)
    weights = folder / "models" / "model.pt"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    download_large_files(str(folder))
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == digest
    weights.write_bytes(b"damaged")
    with pytest.raises(HashCheckError, match="sha256 hash check of existing file failed"):
        download_large_files(str(folder))
