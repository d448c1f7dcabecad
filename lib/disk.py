"""Disk: writes are atomic and checksummed: a result is complete and unchanged, or it is refused.

A result is a folder with a manifest, which holds the SHA-256 of every file and is written last. Writers take turns, and
a full disk is one error.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

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


@cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    """The digest of a file, remembered while its size and time of change stay the same."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it becomes ``path`` if the block succeeds and vanishes if it fails.

    Raises OSError that names ``path`` if its disk is full or its folder belongs to another user.
    """
    part = path.with_name(f".{path.name}.part")
    with _whose():
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
    try:
        with _whose(), _full_disk(path):
            yield part
            _open_to_others(part)
        with _whose():
            if path.is_dir():
                remove(path)
            os.replace(part, path)
    finally:
        remove(part)


def _open_to_others(written: Path) -> None:
    """Give files the rights that the user's umask leaves them; safetensors come for their owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in [written, *written.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o666 & ~mask)


@contextmanager
def _whose() -> Iterator[None]:
    """Turn a PermissionError into one line that says who owns the file or folder, and what to do."""
    try:
        yield
    except PermissionError as error:
        if error.errno is None or not error.filename:  # explained already, or not about a file
            raise
        refused = Path(os.fsdecode(error.filename2 or error.filename))
        while not os.path.lexists(refused):  # what cannot be made is refused by its folder
            refused = refused.parent
        owner = refused.stat().st_uid
        try:
            name = refused.owner()
        except KeyError:
            name = f"number {owner}"
        folder = params.ROOT / refused.relative_to(params.ROOT).parts[0] if params.ROOT in refused.parents else refused
        message = (
            f"{refused} belongs to another user ({name}), who denies you access: ask for 'chmod -R g+rwX {folder}'; "
        )
        message += "to keep your own results elsewhere, make runs/ a link to another folder"
        if owner == os.geteuid():
            message = f"{refused} cannot be read or written: give yourself the right with 'chmod -R u+rwX {folder}'"
        raise PermissionError(message) from None


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Turn what a library raises on a full disk (torch: an "iostream error") into one OSError that says so."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", 0)  # None: an OSError of our own
        reported = number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        if reported or (number == 0 and shutil.disk_usage(path.parent).free < 1 << 20):
            raise OSError(
                f"the disk is full: {path} could not be written. Free some space and run the same command again: "
                "finished work is kept"
            ) from error
        raise


def remove(path: Path) -> None:
    """Delete a file or folder if it is there. Another process may be deleting it too."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is missing, unfinished or damaged."""
    try:
        with _whose():
            content = json.loads(path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else None
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None


MANIFEST = "manifest.json"
"""The last file that is written into a folder of results: a folder without it is unfinished."""


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``facts`` about a folder and the SHA-256 of each of its files into its manifest, which seals itself too."""
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {**facts, "files": files}
    with atomic_write(folder / MANIFEST) as part:
        sealed = {**content, "sha256": _seal(content)}
        part.write_text(json.dumps(sealed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; {} if it is not there or unfinished, or if any byte of the folder has changed."""
    content = read_json(folder / MANIFEST) or {}
    if content.pop("sha256", None) != _seal(content):
        return {}
    intact = all((folder / name).is_file() and file_digest(folder / name) == d for name, d in content["files"].items())
    return content if intact else {}


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Only one process at a time writes ``path``; another waits, then finds it. Raises OSError on a full disk, and on
    one without locks: a file in their place would stay when its writer is killed, and keep all others waiting."""
    with _whose():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)), _full_disk(path):
            yield


@contextmanager
def _locked(lock: FileLock) -> Iterator[None]:
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise OSError(
            f"{Path(lock.lock_file).parent} lies on a file system that gives no locks (flock), by which two processes "
            "do not write the same result: have it mounted with them (Lustre: -o flock; NFS: not nolock), or make "
            "runs/ a link to a folder elsewhere"
        ) from error
    try:
        yield
    finally:
        lock.release()


def need_space(folder: Path, size: float) -> None:
    """Raise OSError if the disk that holds ``folder`` has less than ``size`` bytes (and a tenth) free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size * 1.1:
        raise OSError(
            f"{folder} needs {size / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: "
            "free some space, or make it a link to a folder on a larger disk"
        )


def preallocate(path: Path) -> None:
    """Allocate the blocks of a sparse file. Raises OSError if the disk is too small: without it, a process that writes
    into a mapped file on a full disk is killed."""
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):  # Linux
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
