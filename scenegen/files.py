"""Writing that is atomic and gives equal bytes for equal content."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: str) -> None:
    """Put a line at the end of a file: all of it, or nothing where an OSError is raised."""
    content = line.encode() + b"\n"
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        if file.write(content) < len(content):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, by the file at `path`. The system lets go of it when a process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """An npz archive without the time of day in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return stream.getvalue()


def tree_digest(folder: Path, ignore: frozenset[str] = frozenset()) -> str:
    """SHA-256 over names and contents of all files below `folder`, but those named in `ignore` and the hidden ones, which file
    browsers and interrupted writers leave."""
    digest = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in ignore and p.name[0] != "."):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + sha256(path.read_bytes()).digest())
    return digest.hexdigest()
