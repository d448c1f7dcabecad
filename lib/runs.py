"""Run: one study × one variant; where its results lie, and whether they are still the results of its parameters.

Every step has a *key*: a digest of the parameters, input files and code that its result depends on, chained through the
steps before it. A result carries the key it was made under; under another key it is redone, never mixed in.
"""

import ast
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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from lib import params
from lib.params import ROOT, Study

CODE = {
    "finetune": ["tasks", "encoders", "finetune"],
    "corpus": ["corpora"],
    "extract": ["encoders", "activations"],
    "layers": ["probes"],
    "neurons": ["probes", "neurons"],
}
"""The modules whose code a step's result depends on."""

NOTEBOOKS = {
    "finetune": "01_finetune",
    "extract": "02_extract",
    "layers": "03_probe_layers",
    "neurons": "04_rank_neurons",
}


class StaleResult(RuntimeError):
    """A result was made with other parameters, or is damaged; the message says which and how to redo it."""


@dataclass(frozen=True)
class Variant:
    """``pretrained``, ``random``, or a fine-tuned one named ``task[-size]-sSEED``, e.g. ``sst2-1k-s2``.

    ``size`` is ``half`` or ``quarter`` of the updates, or a number of training examples (``500``, ``1k``).
    """

    name: str
    task: str | None = None
    amount: str | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, name: str) -> "Variant":
        if name in ("pretrained", "random"):
            return cls(name)
        found = re.fullmatch(r"([a-z0-9_]+)(?:-(half|quarter|\d+k?))?-s(\d+)", name)
        if not found or int(found[3]) >= 2**32 or re.fullmatch("0+k?", found[2] or ""):
            raise params.ParameterError(
                f"'{name}' is no variant: write pretrained, random, or task[-size]-sSEED, e.g. sentiment-s1, rte-1k-s2"
            )
        return cls(name, found[1], found[2], int(found[3]))

    @property
    def examples(self) -> int | None:
        """Training examples that the name asks for, if any."""
        if self.amount in (None, "half", "quarter"):
            return None
        return int(self.amount.rstrip("k")) * (1000 if self.amount.endswith("k") else 1)

    @property
    def share(self) -> float:
        """Share of the updates that the name asks for."""
        return {"half": 0.5, "quarter": 0.25}.get(self.amount or "", 1.0)


@dataclass(frozen=True)
class Run:
    """One study × one variant."""

    study: Study
    variant: Variant

    @property
    def folder(self) -> Path:
        return folder(self.study) / self.variant.name

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def layers(self) -> Path:
        return self.folder / "layers.parquet"

    @property
    def neurons(self) -> Path:
        return self.folder / "neurons.parquet"

    @property
    def ranking(self) -> Path:
        return self.folder / "ranking.npz"

    def activations(self, split: str) -> Path:
        return self.folder / "activations" / self.study.corpus.name / split

    def key(self, step: str) -> str:
        """Digest of all that the result of ``step`` depends on."""
        study, variant = self.study, self.variant
        if step == "finetune":
            data = study.task_data
            own = data.own.get(variant.task or "")
            inputs: list[Any] = [variant.name, variant.task, checkpoint_digest(study), study.finetune]
            inputs += [study.encoder.max_pieces]
            inputs += [data.model_dump(exclude={"own", "glue", "glue_revision"}), own, study.seed]
            inputs += [file_digest(f) for f in own.files.values()] if own else [data.glue, data.glue_revision]
            inputs += [pins()["movie-snippets"]]
        elif step == "extract":
            source = self.key("finetune") if variant.task else [checkpoint_digest(study), variant.name, study.seed]
            inputs = [source, corpus_key(study), study.encoder.pooling, study.encoder.max_pieces, study.properties]
        elif step == "layers":
            inputs = [self.key("extract"), study.probe, study.seed]
        elif step == "neurons":
            inputs = [self.key("extract"), study.probe, study.ranking, study.seed]
        else:
            raise KeyError(step)
        return digest(step, code_digest(*CODE[step]), *inputs)


def load(study: str, variant: str, size: str = "full", overrides: dict[str, Any] | None = None) -> Run:
    """The run of a variant of a study, all parameters validated (see ``params.load``)."""
    return Run(params.load(study, size, overrides), Variant.parse(variant))


def home() -> Path:
    """Where runs are written: ``runs/`` of the repository (tests: the folder in the environment variable RUNS)."""
    return Path(os.environ.get("RUNS") or ROOT / "runs").resolve()


def folder(study: Study) -> Path:
    """Where the runs of a study lie: ``runs/<study>``, or ``runs/<size>/<study>`` for a named reduction."""
    return home() / study.name if study.size == "full" else home() / study.size / study.name


def digest(*parts: Any) -> str:
    """Short SHA-256 over parameters: sections, lists, numbers, strings."""
    text = json.dumps(parts, sort_keys=True, default=lambda section: section.model_dump())
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@lru_cache
def code_digest(*modules: str) -> str:
    """Digest of library modules as Python reads them: comments, layout and docstrings do not count."""
    trees = []
    for module in modules:
        tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        trees.append(ast.dump(tree))
    return digest(trees)


@lru_cache
def pins() -> dict[str, dict[str, Any]]:
    """The pinned sources (``lib/sources.yaml``): name → registry, package, version, SHA-256 …"""
    return params.read_yaml(Path(__file__).parent / "sources.yaml")


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, relative paths from the repository root. Raises ParameterError if it is not there."""
    full = ROOT / path
    if not full.is_file():
        raise params.ParameterError(f"there is no file {full}")
    return _digest_of(full, full.stat().st_size, full.stat().st_mtime_ns)


@lru_cache(maxsize=1000)
def _digest_of(path: Path, size: int, changed: int) -> str:
    """The digest of a file, remembered while its size and time of change stay the same."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder_digest(path: Path) -> str:
    """Digest of a checkpoint's files; its card and tables do not count."""
    return digest([[p.name, file_digest(p)] for p in sorted(path.iterdir()) if p.is_file() and p.suffix not in _NOTES])


_NOTES = (".md", ".csv")


def checkpoint_digest(study: Study) -> str:
    """What the checkpoint of a study is: the pin of a named source, the files of a folder, a hub id's revision."""
    name, local = study.encoder.checkpoint, ROOT / study.encoder.checkpoint
    if name in pins():
        return digest(pins()[name])
    return digest(name, _folder_digest(local) if local.is_dir() else study.encoder.revision)


def corpus_key(study: Study) -> str:
    """Digest of all that the sentences and labels of a study's corpus depend on."""
    files = {split: file_digest(name) for split, name in study.corpus.files.items()}
    used = [pins().get(study.corpus.source or ""), pins()["wordnet"] if "supersense" in study.properties else None]
    return digest(code_digest(*CODE["corpus"]), study.corpus, study.properties, study.seed, files, used)


@contextmanager
def being_made(path: Path) -> Iterator[Path]:
    """Yield a temporary place beside ``path`` that becomes ``path`` if the block succeeds and vanishes if it fails.

    A folder with a ``meta.json`` gets a list of the digests of its files, by which ``read_meta`` knows of changes.
    Raises OSError that names ``path`` if its disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    remove(part)
    try:
        with _full_disk(path):
            yield part
            if (part / "meta.json").exists():
                digests = {p.relative_to(part).as_posix(): file_digest(p) for p in part.rglob("*") if p.is_file()}
                (part / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
        if path.is_dir():
            remove(path)
        os.replace(part, path)
    finally:
        remove(part)


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
        return json.loads(path.read_text(encoding="utf-8"))
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
        content = path.read_bytes()
        if found := re.search(rb"sha256:([0-9a-f]{64})", content):
            blank = content.replace(found[0], b"sha256:" + BLANK)
            if hashlib.sha256(blank).hexdigest().encode() != found[1]:
                raise OSError("its bytes are not those that were written")
        arrow = pq.read_table(pa.BufferReader(content))
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


def made(run: Run, step: str) -> bool:
    """Whether the result of a step is there and of the run's parameters (a store may be gone: it is made again)."""
    key = run.key(step)
    if step == "finetune":
        return read_meta(run.model).get("key") == key and (run.model / "model.safetensors").exists()
    try:
        table = step == "extract" or bool(len(read_table(run.layers if step == "layers" else run.neurons, key)))
    except StaleResult:
        return False
    return table and (step != "neurons" or archive_key(run.ranking) == key)


def archive_key(path: Path) -> str | None:
    """The ``key`` in an .npz archive; None if the archive is missing or damaged (every array's checksum is read)."""
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as found:
            return None if archive.testzip() else str(found["key"])
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        return None


def notebook_digest(name: str) -> str:
    """Digest of a notebook's code cells."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return digest(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])


def write_keys(wanted: list[Run], figures: str) -> None:
    """For Make: write each step's key beside its notebook, touching those that changed or whose result is not there.

    ``figures`` is the folder, below ``runs/``, of the notebook that draws the figures of all these runs.
    """
    keys: dict[Path, tuple[str, bool]] = {}
    for run in wanted:
        for step, notebook in NOTEBOOKS.items():
            if step != "finetune" or run.variant.task:
                keys[run.folder / f"{notebook}.key"] = (run.key(step), made(run, step))
    titles = sorted({run.study.title for run in wanted})
    drawn = [code_digest("results", "claims", "figures", "comparisons"), notebook_digest("05_figures"), titles]
    keys[home() / figures / "05_figures.key"] = (digest(drawn, sorted(k for k, _ in keys.values())), True)
    with lock(home() / "keys"):
        for path, (key, whole) in keys.items():
            finished = path.with_suffix(".ipynb").exists()
            if not path.exists() or path.read_text() != key or (finished and not whole):
                with being_made(path) as part:
                    part.write_text(key)
