from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from collections_of_bundles import publish
from http_server import serve
from medcontext.hub.collection import read_collection

VERSIONS = ("0.9.0", "0.10.0", "0.2.0", "1.0.0rc1")
SHA1, SHA256 = "1" * 40, "2" * 64


def listing(folder: Path, entries: Any) -> Path:
    path = folder / "model_info.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"source": "x.zip", "checksum": SHA1, "sha256": SHA256, **changes}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for version in VERSIONS:
        publish(tmp_path / "c", f"b_v{version}")
    return publish(tmp_path / "c", "medcontext_unetr_v0.1.0")


@pytest.mark.parametrize("ending", ["", "/", "/model_info.json"])
def test_the_same_from_a_folder_and_from_the_web(published: Path, ending: str) -> None:
    local = read_collection(f"{published}{ending}")
    names = [(bundle.name, bundle.version) for bundle in local.bundles]
    ordered = ["0.2.0", "0.9.0", "0.10.0", "1.0.0rc1"]
    assert names == [*(("b", version) for version in ordered), ("medcontext_unetr", "0.1.0")]
    content = (published / "b_v0.9.0.zip").read_bytes()
    found = local.find("b@0.9.0")
    assert found.source == str(published / "b_v0.9.0.zip")
    assert found.digest == ("sha256", hashlib.sha256(content).hexdigest())
    with serve(published.parent) as server:
        remote = read_collection(f"{server.url}/c{ending}")
        assert [(b.name, b.version, b.digest) for b in remote.bundles] == [
            (b.name, b.version, b.digest) for b in local.bundles
        ]
        assert remote.find("b@0.9.0").source == f"{server.url}/c/b_v0.9.0.zip"


def test_what_follows_a_question_mark_stays_behind_it(published: Path) -> None:
    with serve(published.parent) as server:
        assert read_collection(f"{server.url}/c?token=x").address == f"{server.url}/c/model_info.json?token=x"
        assert [path for path, _ in server.requests] == ["/c/model_info.json?token=x"]


@pytest.mark.parametrize(
    ("wanted", "version"), [("b", "0.10.0"), ("b@", "0.10.0"), ("b@0.9", "0.9.0"), ("b@v0.2.0", "0.2.0")]
)
def test_versions_are_numbers(published: Path, wanted: str, version: str) -> None:
    assert read_collection(published).find(wanted).version == version


def test_a_preview_is_the_latest_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    publish(tmp_path, "b_v1.0.0rc1")
    assert read_collection(publish(tmp_path, "b_v1.0.0rc2")).find("b").version == "1.0.0rc2"


def test_versions_that_are_none_come_first(tmp_path: Path) -> None:
    publish(tmp_path, "b_v2nd_try")
    collection = read_collection(publish(tmp_path, "b_v0.1.0"))
    assert [bundle.version for bundle in collection.bundles] == ["2nd_try", "0.1.0"]
    assert collection.find("b@2nd_try").key == "b_v2nd_try"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("medcontext_untr", "model_info.json has no bundle 'medcontext_untr'. Did you mean 'medcontext_unetr'?"),
        ("spleen", "has no bundle 'spleen'. It has b, medcontext_unetr.$"),
        ("b@0.3.0", "has no version '0.3.0' of b; it has 0.2.0, 0.9.0, 0.10.0, 1.0.0rc1.$"),
    ],
)
def test_says_what_there_is(published: Path, wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_collection(published).find(wanted)


def test_the_form_of_the_model_zoo(tmp_path: Path) -> None:
    zoo = {"spleen_ct_v0.5.3": {"checksum": SHA1, "source": "https://example.org/spleen_ct_v0.5.3.zip"}}
    found = read_collection(listing(tmp_path, zoo)).find("spleen_ct")
    assert found.source == "https://example.org/spleen_ct_v0.5.3.zip"
    assert found.digest == ("sha1", SHA1)


def test_a_zip_beside_a_list_on_this_machine_is_not_downloaded(tmp_path: Path) -> None:
    address = "https://example.org/v0.1.0"
    publish(tmp_path, "a_v0.1.0", source=f"{address}/a_v0.1.0.zip?download=1")
    publish(tmp_path, "a_v0.2.0", source=f"{address}/a_v0.2.0.zip")
    (tmp_path / "a_v0.2.0.zip").unlink()
    collection = read_collection(tmp_path)
    assert collection.find("a@0.1.0").source == str(tmp_path / "a_v0.1.0.zip")
    assert collection.find("a@0.2.0").source == f"{address}/a_v0.2.0.zip"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("<html>", "model_info.json is not a list of bundles .*; give the address of a model_info.json"),
        ([], "is not a list of bundles, but list"),
        ({"a": entry()}, "'a' in .*model_info.json is not the name of a bundle, _v, and a version"),
        ({"../a_v0.1.0": entry()}, "is not the name of a bundle"),
        ({"a_v0.1.0": "x"}, "has no address of its zip under 'source'"),
        ({"a_v0.1.0": entry(source=1)}, "has no address of its zip under 'source'"),
        ({"a_v0.1.0": entry(source="http://[::1/x.zip")}, "has no address of its zip under 'source'"),
        ({"a_v0.1.0": entry(source="http://host:99999/x.zip")}, "has no address of its zip under 'source'"),
        ({"a_v0.1.0": entry(source="\x1b[31m.zip")}, "has no address of its zip under 'source'"),
        ({"a_v0.1.0": entry(source="a" * 5000)}, "has no address of its zip under 'source'"),
        ({f"a_v{'9' * 5000}": entry()}, "is not the name of a bundle, _v, and a version"),
        ({"a_v0.1.0": entry(source="../x.zip")}, "points out of its folder, to '../x.zip'"),
        ({"a_v0.1.0": entry(source="/etc/passwd")}, "points out of its folder"),
        ({"a_v0.1.0": entry(source="//example.org/x.zip")}, "points out of its folder"),
        ({"a_v0.1.0": entry(source="file:///etc/passwd")}, "give an address that begins with http:// or https://"),
        ({"a_v0.1.0": entry(sha256="12")}, r"'a_v0.1.0' in .* has no hash to check it by \(sha256: 12\)"),
    ],
)
def test_refuses_what_is_no_list(entries: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_collection(listing(tmp_path, entries))


def test_an_entry_that_is_odd_keeps_none_of_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = listing(tmp_path, {"a_v0.1.0": entry(), "b_v0.1.0": entry(source="../b.zip"), "c": entry()})
    assert [bundle.key for bundle in read_collection(listed).bundles] == ["a_v0.1.0"]
    assert [record.message.split(" in ")[0] for record in caplog.records] == ["Left out: 'b_v0.1.0'", "Left out: 'c'"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("{url}/none", ConnectionError, "/none/model_info.json answered 404 Not Found; check the address.$"),
        ("http://127.0.0.1:9/c", ConnectionError, "is unreachable .*; check the address and the network"),
        ("ftp://example.org/c", ValueError, "give an address that begins with http:// or https://"),
        ("http:///c", ValueError, "cannot be read; give an address"),
        ("http://me:secret@example.org", ValueError, "^http://example.org contains a password, which is not supported"),
        ("nowhere", FileNotFoundError, "There is no nowhere; give a model_info.json or its folder"),
    ],
)
def test_says_what_to_do_about_a_source(source: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with serve(tmp_path) as server, pytest.raises(error, match=message):
        read_collection(source.format(url=server.url))


def test_a_list_that_was_cut_or_is_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(tmp_path, {"a_v0.1.0": entry()})
    with serve(tmp_path) as server:
        server.break_off = 10
        with pytest.raises(ConnectionError, match="model_info.json was cut off .*; call again"):
            read_collection(server.url)
        server.break_off = None
        monkeypatch.setattr("medcontext.hub.collection.LIMIT", 10)
        with pytest.raises(ValueError, match="has more than 10 bytes"):
            read_collection(server.url)
