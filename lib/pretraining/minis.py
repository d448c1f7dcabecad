"""From nothing to the three mini encoders: text, tokenizers, models, how good they are, model cards."""

import dataclasses
import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from lib import disk
from lib.pretraining import cards, quality
from lib.pretraining.text import FAMILIES, Pieces, Prose, encode, registry_prose, train_tokenizer, unigram_entropy
from lib.pretraining.training import Settings, build, export, initialise, train
from lib.study import loading, params, runs
from lib.study.params import Study

SIZES = {
    "full": {},
    "lesson": dict(
        text=("wordnet",), sentences=60_000, depth=2, width=64, heads=2, vocabulary=2048, length=32, positions=64,
        stages=((200, 2, 3e-3),), lr=1e-3, steps=300, warmup=30, checkpoint_every=50,
    ),
}  # fmt: skip
"""What is laid over the defaults of `Settings`: nothing (the encoders of ``models/``), or a reduction for a lesson."""


TRAIN_WORDS = 40_000
"""What the probes that measure the encoders of ``models/`` are trained on; the studies take fewer, to be quick."""


def settings(size: str = "full", overrides: dict[str, Any] | None = None) -> Settings:
    """The validated settings of a size.

    Raises ParameterError for an unknown size or setting, or a value of a wrong kind.
    """
    if size not in SIZES:
        raise params.ParameterError(f"there is no size '{size}'; there are {', '.join(SIZES)}")
    known = [field.name for field in dataclasses.fields(Settings)]
    if unknown := set(overrides or {}) - set(known):
        name = sorted(unknown)[0]
        raise params.ParameterError(f"pre-training has no setting '{name}'{params.nearest(name, known)}")
    try:
        return Settings(**{**SIZES[size], **(overrides or {})})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise params.ParameterError(f"pre-training: {place} = {problem['input']!r}: {problem['msg']}") from error


def folder(size: str = "full") -> Path:
    """Where pre-training writes: ``runs/pretrain``, or ``runs/<size>/pretrain`` for a named reduction."""
    return runs.home() / "pretrain" if size == "full" else runs.home() / size / "pretrain"


def make(size: str = "full", overrides: dict[str, Any] | None = None, device: str = "auto") -> Path:
    """Make the three encoders, measure how good they are, write their cards; resumes, and redoes nothing finished.

    Returns
    -------
    The folder: ``<family>-mini`` (weights, tokenizer, card, ``log.csv``), ``quality.csv``, and the working files.

    Raises
    ------
    ParameterError : unknown settings, or a folder that holds a run of other settings or text.
    """
    common, root = settings(size, overrides), folder(size)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    prose = registry_prose(common.text, common.sentences)
    state = {"settings": dataclasses.asdict(common), "text": {"sha256": prose.sha256, "counts": prose.counts}}
    state = json.loads(json.dumps(state))
    with disk.lock(root):
        if disk.read_meta(root).get("state", state) != state:
            raise params.ParameterError(f"{root} holds a pre-training of other settings or text: move or delete it")
        root.mkdir(exist_ok=True)
        disk.write_meta(root, {"state": state})
        pretrain_all(prose, common, root, place)
        studies = {family: study_of(root, family, size) for family in FAMILIES}
        measured = {family: quality.table(s).assign(study=f"{family}-mini") for family, s in studies.items()}
        pd.concat(measured.values()).round(4).to_csv(root / "quality.csv", index=False)
        for family in FAMILIES:
            mine = dataclasses.replace(common, family=family)
            describe(root, mine, state["text"], studies[family], measured[family])
    return root


def study_of(root: Path, family: str, size: str) -> Study:
    """The study that an encoder in `root` is measured by: that of its shipped sister, in a folder of its own."""
    given: dict[str, Any] = {"encoder": {"checkpoint": str(root / f"{family}-mini")}, "properties": ["pos"]}
    if size == "full":
        given["corpus"] = {"train_words": TRAIN_WORDS}
    return loading.load(f"{family}-mini", size, given).model_copy(update={"name": f"pretrain/{family}"})


def describe(root: Path, mine: Settings, text: dict[str, Any], study: Study, accuracy: pd.DataFrame) -> None:
    """Write the card and the loss curve beside the weights."""
    place, work = root / f"{mine.family}-mini", root / mine.family
    state = torch.load(work / "last.pt", map_location="cpu", weights_only=True)
    pieces = np.load(work / "pieces.npz")
    entropy = unigram_entropy(pieces["held_out_ids"], mine.vocabulary)
    pd.DataFrame(state["log"]).assign(entropy=entropy).to_csv(place / "log.csv", index=False)
    card = cards.card(mine, place, text, len(pieces["train_ids"]), state["log"], entropy, study.corpus, accuracy)
    (place / "README.md").write_text(card, encoding="utf-8")


def prepared(prose: Prose, mine: Settings, place: Path) -> tuple[PreTrainedTokenizerFast, Pieces, Pieces]:
    """The tokenizer of a family and its pieces of the training and held-out text; made once and kept in `place`."""
    file = place / "pieces.npz"
    if not file.exists():
        if mine.tokenizers == "shipped":
            tokenizer = PreTrainedTokenizerFast.from_pretrained(params.ROOT / "models" / f"{mine.family}-mini")
        else:
            tokenizer = train_tokenizer(mine.family, prose.train, mine.vocabulary)
        tokenizer.save_pretrained(place)
        parts = {"train": prose.train, "held_out": prose.held_out}
        found = {name: encode(tokenizer, part, mine.length, mine.positions) for name, part in parts.items()}
        with disk.being_made(file) as part, part.open("wb") as stream:
            np.savez(stream, **{f"{n}_{k}": a for n, p in found.items() for k, a in dataclasses.asdict(p).items()})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place, model_max_length=mine.positions)
    data = np.load(file)
    train_text, held_out = (Pieces(data[f"{name}_ids"], data[f"{name}_starts"]) for name in ("train", "held_out"))
    return tokenizer, train_text, held_out


def pretrain_one(prose: Prose, mine: Settings, root: Path, device: str = "cpu") -> str:
    """Make one encoder in ``root/<family>-mini``, resuming what is there; returns the SHA-256 of its weights."""
    torch.set_num_threads(1)
    place = root / mine.family
    place.mkdir(parents=True, exist_ok=True)
    tokenizer, text, held_out = prepared(prose, mine, place)
    model = build(mine, tokenizer)
    if not (place / "last.pt").exists():
        initialise(model, mine, text.ids)
    train(model, tokenizer, text, held_out, mine, place, device)
    return export(model, tokenizer, root / f"{mine.family}-mini")


def pretrain_all(prose: Prose, common: Settings, root: Path, device: str = "cpu", jobs: int | None = None) -> None:
    """Make the three encoders, `jobs` (the number of cores) at a time, one process with one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs or os.cpu_count() or 1, 3), context, initializer=_end_with_parent) as pool:
        longest_first = [dataclasses.replace(common, family=family) for family in ("xlnet", "bert", "roberta")]
        for result in [pool.submit(pretrain_one, prose, each, root, device) for each in longest_first]:
            result.result()


def _end_with_parent() -> None:
    """End when the parent ends, however it ends: the run that resumes must be alone with the files."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def compare(root: Path) -> str:
    """Whether the encoders in `root` are the shipped ones, one line each."""
    lines = []
    for family in FAMILIES:
        ours, shipped = (place / f"{family}-mini" / "model.safetensors" for place in (root, params.ROOT / "models"))
        same = shipped.exists() and disk.file_digest(ours) == disk.file_digest(shipped)
        lines.append(f"{ours.parent}: {'the same weights as' if same else 'other weights than'} models/{family}-mini")
    return "\n".join(lines)
