"""From nothing to the three mini encoders: text, tokenizers, models, side by side on one machine."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from lib.pretrain import Settings, build, export, initialise, train
from lib.prose import Pieces, Prose, encode, train_tokenizer


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


def pretrain_one(prose: Prose, settings: Settings, root: Path, device: str = "cpu") -> str:
    """Make one encoder in ``root/<family>-mini``, resuming what is there; returns the SHA-256 of its weights."""
    torch.set_num_threads(1)
    folder = root / settings.family
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, text, held_out = prepared(prose, settings, folder)
    model = build(settings, tokenizer)
    if not (folder / "last.pt").exists():
        initialise(model, settings, text.ids)
    train(model, tokenizer, text, held_out, settings, folder, device)
    return export(model, tokenizer, root / f"{settings.family}-mini")


def pretrain_all(prose: Prose, settings: Settings, root: Path, device: str = "cpu", jobs: int | None = None) -> None:
    """Make the three encoders, `jobs` (the number of cores) at a time, one process with one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs or os.cpu_count() or 1, 3), context, initializer=_end_with_parent) as pool:
        longest_first = [dataclasses.replace(settings, family=family) for family in ("xlnet", "bert", "roberta")]
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
