"""Unpackaged: data that no package registry has: copied from a mirror, fetched where they are free, or told how to get.

``lib/unpackaged.yaml`` says where each comes from, where its files must lie, and what they are held to: their SHA-256
or, for a file that has another, its counts. A file with other counts is refused. Of licensed corpora, whose files all
users write for themselves, a difference is told only.
"""

import shutil
import tempfile
import textwrap
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import disk, sources, tasks
from lib.corpora import CorpusError, read_columns
from lib.sources import SourceError
from lib.study import inputs, loading, params
from lib.study.params import Study


@dataclass(frozen=True)
class Unpackaged:
    """One such corpus, or GLUE.

    ``folder`` : where its files must lie. ``mirror`` : its folder in a mirror. ``files`` : name → ``sha256`` and
    ``counts``; several numbers: each will do, the first is all there are. ``columns``, ``separator`` : by which it is
    counted. ``web`` : the address of a ``{file}``, or of an archive, of which the folder ``keep`` is taken. ``hub`` : a
    data set of the model hub, whose revision is ``version``. ``get`` : what to do where it cannot be fetched.
    """

    title: str
    version: str
    licence: str
    home: str
    folder: str
    mirror: str
    files: dict[str, dict[str, Any]]
    columns: dict[str, int] = field(default_factory=dict)
    separator: str = "whitespace"
    web: str = ""
    keep: str = ""
    hub: str = ""
    get: str = ""

    def place(self, file: str) -> Path:
        """Where a file must lie."""
        return params.ROOT / self.folder / file

    def has(self, file: str) -> bool:
        """Whether a file is there; of GLUE, whether its split is, however many files it is in."""
        split = self.place(file.partition("-")[0])
        return self.place(file).exists() or (bool(self.hub) and any(split.parent.glob(f"{split.name}[.-]*parquet")))


UNPACKAGED = {name: Unpackaged(**entry) for name, entry in loading.read_yaml(inputs.LIB / "unpackaged.yaml").items()}

Needs = Mapping[str, list[str]]
"""Name in ``UNPACKAGED`` → some of its files."""


def needed(study: Study) -> Needs:
    """What a study's corpora are read from."""
    return joined(of_corpus(corpus) for corpus, _ in study.corpora_in_use.values())


def of_corpus(corpus: params.Corpus) -> Needs:
    """What a corpus is read from."""
    return of({*corpus.files.values()})


def trained_on(study: Study, task: str) -> Needs:
    """What the data of one of GLUE's tasks are read from, where the study names a folder."""
    return of({(Path(study.task_data.glue) / task).as_posix()} if task in tasks.GLUE else set())


def of(paths: set[str]) -> Needs:
    """The files that these are, or that lie in one of them."""
    found = {
        name: [f for f in one.files if {f"{one.folder}/{f}", f"{one.folder}/{f.partition('/')[0]}"} & paths]
        for name, one in UNPACKAGED.items()
    }
    return {name: files for name, files in found.items() if files}


def joined(several: Iterable[Needs]) -> Needs:
    """The needs of several studies."""
    out: dict[str, list[str]] = {}
    for needs in several:
        for name, files in needs.items():
            out[name] = [*dict.fromkeys([*out.get(name, []), *files])]
    return out


def lacking(needs: Needs) -> Needs:
    """What of these is not there."""
    found = {name: [f for f in files if not UNPACKAGED[name].has(f)] for name, files in needs.items()}
    return {name: files for name, files in found.items() if files}


def in_mirror(needs: Needs, mirror: Path | None) -> Needs:
    """What of these a mirror has, of corpora of which it has all files."""
    if not mirror:
        return {}
    return {n: files for n, files in needs.items() if all((mirror / UNPACKAGED[n].mirror / f).is_file() for f in files)}


def told(needs: Needs, suite: str) -> list[str]:
    """One text per corpus that is missing: what it is, where it comes from, where to put it, what it is held to, and
    the command that gets it."""
    return [_told(name, files, suite) for name, files in needs.items()]


def _told(name: str, files: list[str], suite: str, reason: str = "") -> str:
    """As ``told``. ``reason`` : why it could not be fetched."""
    one = UNPACKAGED[name]
    lines = [f"{one.title}, {one.version} ({one.licence}), is not here. From: {one.home}"]
    lines += [f"  it could not be fetched: {reason}"] if reason else []
    lines += [f"  put into {one.folder}/:"] + [f"    {file}{_expected(one, file)}" for file in files]
    lines += [textwrap.indent(one.get.rstrip(), "  ")] if one.get else []
    free = f"make data SCALE={suite} fetches it; " if (one.web or one.hub) and not reason else ""
    lines += [f"  {free}from a copy: make data SCALE={suite} MIRROR=folder, with the files in folder/{one.mirror}/"]
    return "\n".join(lines)


def _expected(one: Unpackaged, file: str) -> str:
    counts = one.files[file].get("counts", {})
    parts = [f"{n[0] if isinstance(n, list) else n:,} {what}" for what, n in counts.items()]
    return f": {', '.join(parts)}" if parts else ""


# Getting them --------------------------------------------------------------------------------------------------------


def provide(needs: Needs, suite: str, mirror: Path | None) -> list[str]:
    """Get what is missing, from a mirror first, and hold all of it to its hashes or counts; print what was found.

    Returns one text per corpus that could not be had, or per file that is another.
    """
    problems = []
    for name, files in needs.items():
        one = UNPACKAGED[name]
        wrong, reason = _get(name, [f for f in files if not one.has(f)], mirror)
        wrong = wrong or _wrong(name, files, print)
        missing = [f for f in files if not one.has(f)]
        if missing and not wrong:
            wrong = [_told(name, missing, suite, reason)]
        if not wrong:
            print("OK", name, params.ROOT / one.folder)
        problems += wrong
    return problems


def wrong(needs: Needs) -> list[str]:
    """One text per file that is here and may not be used. Prints which others are not those of the paper, or of the
    recorded runs."""
    return [text for name, files in needs.items() for text in _wrong(name, files, print)]


def _wrong(name: str, files: list[str], tell: Callable[[str], object]) -> list[str]:
    places = {file: UNPACKAGED[name].place(file) for file in files}
    return [
        f"{text}\nTake it away, then run the same command again"
        for file, place in places.items()
        if place.is_file()
        for text in difference(name, file, place, tell)
    ]


def _get(name: str, missing: list[str], mirror: Path | None) -> tuple[list[str], str]:
    """Lay the missing files of a corpus; what is wrong with those that there are, and why they could not be fetched."""
    one, wrong = UNPACKAGED[name], []
    if mirror:
        wrong = _lay(name, [f for f in missing if (mirror / one.mirror / f).is_file()], mirror / one.mirror)
    missing = [f for f in missing if not one.has(f)]
    if wrong or not missing or not (one.web or one.hub):
        return wrong, ""
    try:
        with tempfile.TemporaryDirectory() as tmp:
            (_from_hub if one.hub else _from_web)(one, missing, Path(tmp))
            return _lay(name, missing, Path(tmp)), ""
    except Exception as error:  # the hub's client raises some twenty kinds
        return [], " ".join(f"{type(error).__name__}: {error}".split())[:200]


def difference(name: str, file: str, path: Path, tell: Callable[[str], object]) -> list[str]:
    """Why a file may not be used: nothing, or one text. What else there is to say of it goes to ``tell``."""
    one = UNPACKAGED[name]
    pinned, counts = one.files[file].get("sha256"), one.files[file].get("counts", {})
    same = disk.file_digest(path) == pinned
    if same and not any(isinstance(number, list) for number in counts.values()):
        return []
    try:
        found = counted(one, path)
    except (CorpusError, OSError, ValueError) as error:
        return [f"{name}: {path} cannot be read: {error}"]
    for what, number in counts.items():
        known = number if isinstance(number, list) else [number]
        if found[what] not in known:
            text = f"{name}: {path} has {found[what]:,} {what}, not {known[0]:,}"
            if pinned:
                return [text]
            tell(f"{text} as the paper; it is used all the same")
        elif found[what] != known[0]:
            tell(f"{name}: {path} is a sample, {found[what]:,} of {known[0]:,} {what}")
    if pinned and not same:
        several = any(isinstance(number, list) for number in counts.values())
        tell(f"{name}: {path} is another file than the recorded one{'' if several else ', with the same counts'}")
    return []


def counted(one: Unpackaged, path: Path) -> dict[str, int]:
    """The rows of a table; of a corpus the sentences, the different ones, the words, and the labels of each column."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq  # here: a second to import

        return {"rows": pq.read_metadata(path).num_rows}
    sentences = [*read_columns(path, one.columns, one.separator)]
    labels = {
        column: len({label for sentence in sentences for label in sentence.labels[column]})
        for column in one.columns
        if column != "word"
    }
    words = [tuple(sentence.words) for sentence in sentences]
    return {
        "sentences": len(words), "different sentences": len(set(words)), "words": sum(map(len, words)), **labels,
    }  # fmt: skip


def _lay(name: str, files: list[str], folder: Path) -> list[str]:
    """Copy files to their places, if they are what they should be; else what they are."""
    problems = [text for file in files for text in difference(name, file, folder / file, lambda _: None)]
    for file in files if not problems else []:
        with disk.atomic_write(UNPACKAGED[name].place(file)) as part:
            shutil.copyfile(folder / file, part)
    return problems


def _from_web(one: Unpackaged, files: list[str], folder: Path) -> None:
    """Fetch files from their addresses, or out of the archive that holds them."""
    for file in ["archive"] if one.keep else files:
        print(f"fetching {one.title}: {(address := one.web.format(file=file))} ...", flush=True)
        with urllib.request.urlopen(address, timeout=60) as stream, (folder / file).open("wb") as out:  # noqa: S310
            shutil.copyfileobj(stream, out)
    if one.keep:
        sources.unpack(folder / "archive", folder, one.keep, 50_000_000)
    if absent := [file for file in files if not (folder / file).is_file()]:
        raise SourceError(f"{one.web} holds no {', '.join(absent)}")


def _from_hub(one: Unpackaged, files: list[str], folder: Path) -> None:
    """Fetch files of a data set of the model hub, at its pinned revision."""
    from lib import hub  # here: half a second to import

    print(f"fetching {one.title} from the model hub: {one.hub} ...", flush=True)
    hub.fetched(
        repo_id=one.hub, repo_type="dataset", revision=one.version, allow_patterns=files, local_dir=folder
    )  # fmt: skip
