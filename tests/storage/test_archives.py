from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from medcontext.storage.archives import open_source


def tar_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_files_and_contents(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("b/img.nii.gz", "a.nii", "._a.nii", "__MACOSX/a.nii", ".git/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    source = folder
    if kind == "zip":
        source = tmp_path / "a.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
    elif kind != "folder":
        source = tmp_path / f"a.{kind}"
        with tarfile.open(source, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(folder, ".")
    with open_source(source) as opened:
        assert set(opened.files) == {"a.nii", "b/img.nii.gz"}
        for name, file in opened.files.items():
            with opened.open(name) as stream:
                assert stream.read() == name.encode()
            assert file.size == len(name)
            assert file.path == (folder / name if kind == "folder" else None)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../evil.nii"), r"holds '../evil.nii', which leads out of the archive"),
        (member("a/../../evil.nii"), "leads out of the archive"),
        (member("/etc/evil.nii"), "leads out of the archive"),
        (member("c:/evil.nii"), "leads out of the archive"),
        (member("link.nii", tarfile.SYMTYPE, "/etc/passwd"), "holds 'link.nii', which is a link or a device"),
        (member("hard.nii", tarfile.LNKTYPE, "a.nii"), "is a link or a device"),
        (member("fifo.nii", tarfile.FIFOTYPE), "is a link or a device"),
        (member("disk.nii", tarfile.BLKTYPE), "is a link or a device"),
    ],
)
def test_tars_that_lead_elsewhere(bad: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar", member("a.nii", size=3), bad)
    with pytest.raises(ValueError, match=message + ".*not the provider's archive"), open_source(archive):
        pass
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    "name", ["../evil.nii", "a/../../evil.nii", "/evil.nii", "..\\evil.nii", "C:\\evil.nii", "link"]
)
def test_zips_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16 if name == "link" else 0o100644 << 16
        archive.writestr(info, "/etc/passwd")
    with (
        pytest.raises(
            ValueError, match="which (leads out of the archive|is a link or a device); this is not the provider"
        ),
        open_source(tmp_path / "a.zip"),
    ):
        pass


def test_zips_with_two_files_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.nii", b"1")
        archive.writestr("a/./b.nii", b"2")
    refusal = "a.zip holds 'a/b.nii' twice, of which programs take either; do not use it"
    with pytest.raises(ValueError, match=refusal), open_source(tmp_path / "a.zip"):
        pass


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_tars_that_end_early(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, kind) as archive:
        for name in ("a.nii", "b.nii"):
            archive.addfile(member(name, size=20000), io.BytesIO(bytes(range(250)) * 80))
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(ValueError, match=r"a.tar is damaged \(.*\); download it again"), open_source(path):
        pass


def test_zips_with_damaged_members(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.nii", b"0123456789" * 100)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780", 1))
    with (
        open_source(path) as source,
        pytest.raises(ValueError, match=r"a.zip is damaged \(Bad CRC.*\)"),
        source.open("a.nii") as stream,
    ):
        stream.read()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_that_unpack_to_far_more_than_they_are(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.nii", bytes(1 << 20))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(member("a.nii", size=1 << 20), io.BytesIO(bytes(1 << 20)))
    with open_source(path) as source:
        assert source.files["a.nii"].size == 1 << 20
    monkeypatch.setattr("medcontext.storage.archives.ALWAYS_TAKEN", 1 << 19)
    said = rf"a.{kind} of \d+ bytes would unpack to 1048576 bytes, .*unpack it and give the folder if"
    with pytest.raises(ValueError, match=said), open_source(path):
        pass


def test_encrypted_zips(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.nii", b"secret")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag "encrypted"
    path.write_bytes(content)
    with (
        open_source(path) as source,
        pytest.raises(ValueError, match="a.zip is encrypted; unpack it and give the folder"),
        source.open("a.nii"),
    ):
        pass
