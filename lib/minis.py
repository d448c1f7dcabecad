"""From nothing to the three mini encoders: text, tokenizers, models, side by side on one machine."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from lib.pretrain import Settings, build, export, initialise, train
from lib.prose import FAMILIES, Pieces, Prose, encode, train_tokenizer


def prepared(prose: Prose, settings: Settings, folder: Path) -> tuple[PreTrainedTokenizerFast, Pieces, Pieces]:
    """The tokenizer of a family and its pieces of the training and held-out text; made once and kept in `folder`."""
    file = folder / "pieces.npz"
    if not file.exists():
        tokenizer = train_tokenizer(settings.family, prose.train, settings.vocabulary)
        tokenizer.save_pretrained(folder)
        parts = {"train": prose.train, "held_out": prose.held_out}
        found = {name: encode(tokenizer, part, settings.length, settings.positions) for name, part in parts.items()}
        arrays = {f"{name}_{field}": a for name, p in found.items() for field, a in dataclasses.asdict(p).items()}
        with (folder / "pieces.part").open("wb") as part:
            np.savez(part, **arrays)
        (folder / "pieces.part").replace(file)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, model_max_length=settings.positions)
    data = np.load(file)
    train_text, held_out = (Pieces(data[f"{name}_ids"], data[f"{name}_starts"]) for name in ("train", "held_out"))
    return tokenizer, train_text, held_out


def reached(folder: Path) -> int:
    """The last step in a run's log; 0 before the first checkpoint."""
    log = folder / "log.jsonl"
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] if log.exists() else 0


def pretrain_one(prose: Prose, settings: Settings, root: Path, pace: tuple[str, ...] = (), device: str = "cpu") -> str:
    """Make one encoder in ``root/<family>-mini``, resuming what is there; returns the SHA-256 of its weights.

    Parameters
    ----------
    pace : families to wait for: this one is never more than one checkpoint ahead of the slowest.
    """
    torch.set_num_threads(1)
    folder = root / settings.family
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, text, held_out = prepared(prose, settings, folder)
    model = build(settings, tokenizer)
    if not (folder / "last.pt").exists():
        initialise(model, settings, text.ids)
    while (mine := reached(folder)) < settings.steps:
        if mine > min((reached(root / other) for other in pace), default=mine):
            time.sleep(2)
        else:
            stop = mine + settings.checkpoint_every
            train(model, tokenizer, text, held_out, settings, folder, device, stop)
    train(model, tokenizer, text, held_out, settings, folder, device)
    return export(model, tokenizer, root / f"{settings.family}-mini")


def pretrain_all(prose: Prose, settings: Settings, root: Path, device: str = "cpu") -> None:
    """Make the three encoders at equal pace, one process with one thread each."""
    context = multiprocessing.get_context("spawn")
    each = [dataclasses.replace(settings, family=family) for family in FAMILIES]
    jobs = [context.Process(target=_child, args=(prose, s, root, FAMILIES, device)) for s in each]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        if job.exitcode:
            raise RuntimeError("pre-training stopped; run the same command again to resume it")


def _child(*arguments: Any) -> None:
    """Run `pretrain_one`, and end when the parent ends, however it ends: nobody else may write these files."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    pretrain_one(*arguments)
