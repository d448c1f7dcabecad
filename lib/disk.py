"""Disk: what a step writes is there whole or not at all, and is known to be as it was written.

Folders and tables carry digests of their own bytes; a changed or cut one is refused. Writers take turns, and a full
disk is one error.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from lib.study import params


class StaleResult(RuntimeError):
    """A result was made with other parameters, or is damaged; the message says which and how to redo it."""


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, relative paths from the repository root. Raises ParameterError if it is not there."""
    full = params.ROOT / path
    with _whose():
        if not full.is_file():
            raise params.ParameterError(f"there is no file {full}")
        return _digest_of(full, full.stat().st_size, full.stat().st_mtime_ns)


@lru_cache(maxsize=1000)
def _digest_of(path: Path, size: int, changed: int) -> str:
    """The digest of a file, remembered while its size and time of change stay the same."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def being_made(path: Path) -> Iterator[Path]:
    """Yield a temporary place beside ``path`` that becomes ``path`` if the block succeeds and vanishes if it fails.

    A folder with a ``meta.json`` gets a list of the digests of its files, by which ``read_meta`` knows of changes.
    Raises OSError that names ``path`` if its disk is full, or its folder another user's.
    """
    part = path.with_name(f".{path.name}.part")
    with _whose():
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
    try:
        with _whose(), _full_disk(path):
            yield part
            _open_to_others(part)
            if (part / "meta.json").exists():
                digests = {p.relative_to(part).as_posix(): file_digest(p) for p in part.rglob("*") if p.is_file()}
                (part / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        with _whose():
            if path.is_dir():
                remove(path)
            os.replace(part, path)
    finally:
        remove(part)


def _open_to_others(place: Path) -> None:
    """Give files the rights that the user's umask leaves them; safetensors come for their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in [place, *place.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o666 & ~mask)


DIGESTS = ".sha256.json"
"""The list of digests in a folder of results."""


def _intact(folder: Path) -> bool:
    """Whether the files of a folder are as they were written (true where no list was kept)."""
    if not (folder / DIGESTS).exists():
        return True
    digests = read_json(folder / DIGESTS)
    return digests is not None and all(
        (folder / name).is_file() and file_digest(folder / name) == digest for name, digest in digests.items()
    )


@contextmanager
def _whose() -> Iterator[None]:
    """Turn a missing right into one line that says whose the file (or folder) is, and what to do."""
    try:
        yield
    except PermissionError as error:
        if error.errno is None or not error.filename:  # told already, or not of a file
            raise
        place = Path(os.fsdecode(error.filename2 or error.filename))
        while not os.path.lexists(place):  # what cannot be made is refused by its folder
            place = place.parent
        owner = place.stat().st_uid
        try:
            name = place.owner()
        except KeyError:
            name = f"number {owner}"
        folder = params.ROOT / place.relative_to(params.ROOT).parts[0] if params.ROOT in place.parents else place
        told = f"{place} belongs to another user ({name}), who keeps it from you: ask for 'chmod -R g+rwX {folder}'; "
        told += "for results of your own make runs/ a link to another folder"
        if owner == os.geteuid():
            told = f"{place} cannot be read or written: give yourself the right, by 'chmod -R u+rwX {folder}'"
        raise PermissionError(told) from None


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Turn what a library raises on a full disk (torch: an "iostream error") into one OSError that says so."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", 0)  # None: an OSError of our own
        told = number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        if told or (number == 0 and shutil.disk_usage(path.parent).free < 1 << 20):
            raise OSError(
                f"the disk is full: {path} could not be written. Free some space and run the same command again: "
                "what is finished is kept"
            ) from error
        raise


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, None if it is not there or unfinished."""
    try:
        with _whose():
            return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None


def read_meta(path: Path) -> dict[str, Any]:
    """``meta.json`` of a folder, {} if it is not there, unfinished, or a file is not as it was written."""
    meta = read_json(path / "meta.json")
    return meta if meta is not None and _intact(path) else {}


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write ``meta.json``, the last file of a folder: a folder without it is unfinished."""
    with being_made(path / "meta.json") as part:
        part.write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """One process at a time makes ``path``; another waits and then finds it made. Raises OSError on a full disk."""
    with _whose():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")), _full_disk(path):
            yield


def write_table(path: Path, table: pd.DataFrame, key: str) -> None:
    """Write a parquet table that carries the key it was made under and the SHA-256 of its own bytes."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), b"key": key.encode(), b"digest": b"sha256:" + BLANK}
    stream = pa.BufferOutputStream()
    pq.write_table(arrow.replace_schema_metadata(metadata), stream)
    content = stream.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest().encode()
    with being_made(path) as part:
        part.write_bytes(content.replace(b"sha256:" + BLANK, b"sha256:" + digest))


BLANK = b"0" * 64
"""What stands in a table in place of its digest while that is computed."""


def read_table(path: Path, key: str) -> pd.DataFrame:
    """Read a table written under this key. Raises StaleResult if it is missing, damaged or from other parameters."""
    try:
        with _whose():
            content = path.read_bytes()
        if found := re.search(rb"sha256:([0-9a-f]{64})", content):
            blank = content.replace(found[0], b"sha256:" + BLANK)
            if hashlib.sha256(blank).hexdigest().encode() != found[1]:
                raise OSError("its bytes are not those that were written")
        arrow = pq.read_table(pa.BufferReader(content))
    except PermissionError:
        raise
    except FileNotFoundError as error:
        raise StaleResult(f"{path} is missing: run 'make reproduce'") from error
    except (OSError, pa.ArrowException) as error:
        raise StaleResult(f"{path} is damaged ({error}): delete it and run 'make reproduce'") from error
    if (arrow.schema.metadata or {}).get(b"key", b"").decode() != key:
        raise StaleResult(f"{path} was made with other parameters or code: run 'make reproduce'")
    return arrow.to_pandas()


def table(path: Path, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at ``path`` if it was made under ``key``, else made now and kept."""
    with lock(path):
        try:
            return read_table(path, key)
        except StaleResult:
            write_table(path, make(), key)
            return read_table(path, key)


def archive_key(path: Path) -> str | None:
    """The ``key`` in an .npz archive; None if the archive is missing or damaged (every array's checksum is read)."""
    try:
        with _whose(), zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as found:
            return None if archive.testzip() else str(found["key"])
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return None


def need_space(place: Path, size: float) -> None:
    """Raise OSError if the disk that holds ``place`` has less than ``size`` bytes (and a tenth) free."""
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if free < size * 1.1:
        raise OSError(
            f"{place} needs {size / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: "
            "free some space, or make it a link to a folder on a larger disk"
        )


def reserve(path: Path) -> None:
    """Give a file that was made with holes its place on the disk. Raises OSError if there is too little: a process that
    writes into the hole of a mapped file on a full disk is killed."""
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):  # Linux
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
