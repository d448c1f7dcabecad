"""Inputs: digests of what a result depends on: parameters, code, checkpoints, the examples of tasks, corpora."""

import ast
import hashlib
import io
import json
import tokenize
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib import disk
from lib.study import loading, params
from lib.study.params import Study

LIB = Path(__file__).resolve().parents[1]

SNIPPETS = ("sentiment", "acceptability", "shuffled")
"""The tasks over the pinned movie snippets (``tasks.REGISTRY``, which takes long to import)."""

NOTES = (".md", ".csv")
"""Endings of files in a checkpoint's folder that do not count."""


def digest(*parts: Any) -> str:
    """Short SHA-256 over parameters: sections, lists, numbers, strings."""
    text = json.dumps(parts, sort_keys=True, default=lambda section: section.model_dump())
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@lru_cache
def code_digest(*modules: str) -> str:
    """Digest of library modules, the same on every version of Python: comments, docstrings and empty lines do not
    count."""
    texts = []
    for module in modules:
        text = (LIB / f"{module}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
                kept = lines[first].encode()[: node.col_offset] + b" " + lines[last].encode()[node.end_col_offset :]
                lines[first : last + 1] = [kept.decode()] + [""] * (last - first)
        texts.append([line.rstrip() for line in lines if line.strip()])
    return digest(texts)


def certified() -> dict[str, dict[str, Any]]:
    """Step → the ``version`` of its results and the digest of the ``code`` that was seen to give them."""
    return loading.read_yaml(LIB / "study" / "certified.yaml")


def code_key(step: str, modules: tuple[str, ...]) -> str:
    """What of the code counts in a step's key: the version of its results where the code is certified to give these
    (see ``lib.certify``), else the code itself."""
    code, known = code_digest(*modules), certified().get(step, {})
    return f"version {known['version']}" if known.get("code") == code else code


@lru_cache
def pins() -> dict[str, dict[str, Any]]:
    """The pinned sources (``lib/sources.yaml``): name → registry, package, version, SHA-256 …"""
    return loading.read_yaml(LIB / "sources.yaml")


@lru_cache
def unpackaged_pins() -> dict[str, str]:
    """The files that no package registry has (``lib/unpackaged.yaml``): path in the repository → pinned SHA-256."""
    entries = loading.read_yaml(LIB / "unpackaged.yaml").values()
    files = [(f"{of['folder']}/{name}", file.get("sha256")) for of in entries for name, file in of["files"].items()]
    return {path: sha256 for path, sha256 in files if sha256}


def file_digest(path: str, recorded: bool = False) -> str:
    """SHA-256 of a file; the pinned one where the file is not here. Of what is ``recorded`` always the pinned one, if
    there is one: it is read without the file, and beside another copy. Raises ParameterError if the file is neither
    here nor pinned."""
    pinned = unpackaged_pins().get(path)
    return pinned if pinned and (recorded or not (params.ROOT / path).exists()) else disk.file_digest(path)


def checkpoint_digest(study: Study) -> str:
    """What the checkpoint of a study is: the pin of a named source, the files of a folder, or a hub id with its
    revision and the digests that are pinned of its files."""
    name, local = study.encoder.checkpoint, params.ROOT / study.encoder.checkpoint
    if name in pins():
        return digest(pins()[name])
    if not local.is_dir():
        pin = loading.hub_pins().get(name, {})
        return digest(name, study.encoder.revision, pin if pin.get("revision") == study.encoder.revision else {})
    counted = sorted(p for p in local.iterdir() if p.is_file() and p.suffix not in NOTES)
    return digest(name, digest([[p.name, disk.file_digest(p)] for p in counted]))


def examples_of(study: Study, task: str, recorded: bool = False) -> list[Any]:
    """What the examples of a task depend on: the files of one's own, the pinned snippets, or the copy of GLUE (of what
    is ``recorded``, the pinned one)."""
    data = study.task_data
    if own := data.own.get(task):
        return [own, *map(disk.file_digest, own.files.values())]
    if task in SNIPPETS:
        return [pins()["movie-snippets"]]
    folder = Path(data.glue) / task
    here = params.ROOT / folder
    pinned = [path for path in map(Path, unpackaged_pins()) if path.parent == folder]
    files = [folder / p.relative_to(here) for p in here.rglob("*") if p.is_file()]
    files = pinned if recorded or not files else files
    return [[p.name, file_digest(p.as_posix(), recorded)] for p in sorted(files)] or [data.glue, data.glue_revision]


def arithmetic(study: Study, isa: str) -> list[Any]:
    """What the last digits of a result depend on, beside the processor's maker: ``ISA``, and the threads."""
    return [isa, study.threads]


CORPUS_CODE = tuple(f"corpora/{module}" for module in ("corpus", *params.FORMATS))


def corpus_digest(study: Study, name: str, recorded: bool = False) -> str:
    """Digest of all that the sentences and labels of one of a study's corpora depend on. ``recorded`` : as for
    ``file_digest``."""
    corpus, properties = study.corpora_in_use[name]
    files = {split: file_digest(file, recorded) for split, file in corpus.files.items()}
    used = [pins().get(source) for source in sorted(corpus.sources(properties))]
    return digest(code_key("corpus", CORPUS_CODE), corpus, properties, study.seed, files, used)
