from __future__ import annotations

from pathlib import Path

import pytest

from medcontext.storage.files import whole_file, write_file


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", b"old")
    with whole_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_file(tmp_path / "a.txt", b"old")

    def write() -> None:
        with whole_file(path) as stream:
            stream.write(b"half of it")
            raise error("half-way")

    with pytest.raises(error, match="half-way"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
