"""What a full disk leaves of a write: nothing. The kernel refuses to let files grow, with an error of the same kind."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from scenegen.files import append_line, write_atomic


@pytest.fixture
def files_of_100_bytes():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [40, 99])
def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path, files_of_100_bytes, before: int):
    log = tmp_path / "log"
    append_line(log, "a" * before)
    with pytest.raises(OSError):
        append_line(log, "b" * 60)
    assert log.read_bytes() == b"a" * before + b"\n"


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path: Path, files_of_100_bytes):
    path = tmp_path / "file"
    write_atomic(path, b"before")
    with pytest.raises(OSError):
        write_atomic(path, bytes(200))
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
