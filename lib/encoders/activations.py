"""Activations: the store of word vectors of every layer, and the extraction that fills it.

A store is a folder of three files: ``activations.npy`` (float16 [layers, words, width]: one layer is contiguous),
``words.parquet`` (text, sentence, position, word, one column per property; the rows are the words of the array) and
``manifest.json`` (shapes, key, dropped words with reasons, SHA-256 of each file), written last. Three lines of NumPy
read it::

    vectors = np.load("activations.npy", mmap_mode="r")  # layer 0 is the embedding output
    words = pd.read_parquet("words.parquet")
    layer = vectors[3]
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import embedding_bag
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from lib import corpora, disk, encoders
from lib.encoders.alignment import Alignment, Window
from lib.study import params, runs, steps

if TYPE_CHECKING:
    import transformers


@dataclass(frozen=True)
class Activations:
    """One store, opened. ``vectors`` : [layers, words, width] float16, on disk. ``words`` : [words] table.
    ``dropped`` : the words without a vector (sentence, position, word, reason)."""

    vectors: np.ndarray
    words: pd.DataFrame
    dropped: pd.DataFrame

    @property
    def layers(self) -> int:
        return self.vectors.shape[0]

    @property
    def width(self) -> int:
        return self.vectors.shape[2]


def ensure(run: runs.Run, corpus: str | None = None) -> dict[str, Activations]:
    """The stores of the three splits of a corpus; by default that of the run's first property.

    Stores of the run's corpora that are missing, unfinished or of other parameters are extracted now, all in one go.

    Raises
    ------
    OSError : the disk is too small (checked before anything is computed).
    FloatingPointError : the encoder gave a value that is not finite.
    """
    stores, key = steps.STEPS["extract"].folders(run), run.key("extract")
    with disk.lock(run.result("extract")):
        if missing := [folder for folder in stores if disk.read_manifest(folder).get("key") != key]:
            _fill(run, missing)
    return {split: read(run.activations(split, corpus)) for split in params.SPLITS}


def read(folder: Path) -> Activations:
    """Open a finished store. Raises StaleResult if it is unfinished or damaged."""
    manifest = disk.read_manifest(folder)
    if not manifest:
        raise disk.StaleResult(f"{folder} is not a finished store: delete it and run the extraction again")
    return Activations(
        np.load(folder / "activations.npy", mmap_mode="c"),  # PyTorch takes only what could be written to; none does
        pd.read_parquet(folder / "words.parquet"),
        pd.DataFrame(manifest["dropped"], columns=["sentence", "position", "word", "reason"]),
    )


def norms(store: Activations, words: int = 2000) -> pd.DataFrame:
    """Length of the word vectors of each layer over the first ``words`` words: median, 5th and 95th percentile."""
    length = np.linalg.norm(store.vectors[:, :words].astype(np.float32), axis=2)
    low, middle, high = np.quantile(length, [0.05, 0.5, 0.95], axis=1)
    return pd.DataFrame({"layer": np.arange(store.layers), "median": middle, "low": low, "high": high})


def encoder(run: runs.Run) -> transformers.PreTrainedModel:
    """The encoder of a run: released, of random weights, or fine-tuned (now, if it is not yet)."""
    if run.variant.task:
        from lib import finetune  # here: Trainer takes seconds to import, and most runs do not need it

        return encoders.finetuned(finetune.ensure(run).folder)
    return encoders.pretrained(run.study) if run.variant.start == "pretrained" else encoders.randomised(run.study)


def extract(
    model: transformers.PreTrainedModel,
    alignments: list[Alignment],
    pad_id: int,
    batch_subwords: int | None = None,
    pooling: str = "last",
    title: str = "extraction",
    precision: str = "float32",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Word vectors of all layers, batch by batch, longest windows first.

    A word's vector does not depend on what else is in its batch: an encoder that reads the padding (``reads_padding``)
    gets batches of windows of one length.

    Parameters
    ----------
    alignments : one per sentence (``encoders.align``).
    batch_subwords : sub-words per forward pass, padding included; default as in ``params.Encoder``.
    pooling : ``last``, ``first`` or ``average`` sub-word of the word.
    precision : of the forward pass, float32 or bfloat16.

    Yields
    ------
    rows : [n] numbers of the represented words, counted over all sentences in corpus order.
    vectors : [layers, n, width] float32.
    """
    batch_subwords = batch_subwords or (512 if model.device.type == "cpu" else 16_384)
    windows: list[tuple[np.ndarray, Window]] = []
    total = 0
    for alignment in alignments:
        represented = np.sort(np.concatenate([[], *(w.words for w in alignment.windows)]))
        windows += [(total + np.searchsorted(represented, w.words), w) for w in alignment.windows]
        total += len(represented)
    windows.sort(key=lambda pair: -len(pair[1].ids))
    bar = tqdm(desc=title, total=sum(len(w.ids) for _, w in windows), unit="sub-word", unit_scale=True, leave=False)
    passes = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.inference_mode(), passes, bar:
        start = number = 0
        padded = not reads_padding(model, [w for _, w in windows], pad_id)
        while start < len(windows):
            if number % 16 == 0:
                _trim()
            number += 1
            longest = len(windows[start][1].ids)
            block = windows[start : start + max(1, batch_subwords // longest)]
            batch = [(rows, w) for rows, w in block if padded or len(w.ids) == longest]
            start += len(batch)
            vectors = _forward(model, [w for _, w in batch], pad_id, pooling)
            yield np.concatenate([rows for rows, _ in batch]), vectors.cpu().numpy()
            bar.update(sum(len(w.ids) for _, w in batch))


def reads_padding(model: transformers.PreTrainedModel, windows: list[Window], pad_id: int) -> bool:
    """Whether a window's vectors change when it is padded, although the padding is masked: some architectures convolve,
    or count, over it. Tried are the first, the middle and the last of ``windows``, which are sorted by length."""
    tried = [windows[i] for i in sorted({0, len(windows) // 2, len(windows) - 1}) if i < len(windows)]
    if len({len(w.ids) for w in tried}) < 2:
        return False
    with torch.autocast(model.device.type, enabled=False):  # in bfloat16, rounding alone moves a vector as far
        together = _forward(model, tried, pad_id, "last")
        alone = torch.cat([_forward(model, [w], pad_id, "last") for w in tried], 1)
    moved = (together - alone).norm(dim=2) / alone.norm(dim=2).clamp_min(1e-9)
    return not bool((moved <= 1e-4).all())  # rounding moves a vector by 1e-6 of its length; NaN counts as moved


def _trim() -> None:
    """Give freed memory back: batches of varying shape fragment glibc's heap, so memory would grow with the corpus."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _forward(model: transformers.PreTrainedModel, windows: list[Window], pad_id: int, pooling: str) -> torch.Tensor:
    """Vectors of the words of some windows at all layers: [layers, words, width] float32, in the windows' order."""
    inputs = [torch.from_numpy(w.ids).long() for w in windows]
    ids = pad_sequence(inputs, batch_first=True, padding_value=pad_id).to(model.device)
    mask = pad_sequence([torch.ones_like(i) for i in inputs], batch_first=True).to(model.device)
    hidden = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    flat = [h.flatten(0, 1) for h in hidden]
    spans = torch.cat([torch.from_numpy(w.spans).long() + i * ids.shape[1] for i, w in enumerate(windows)])
    if pooling != "average":
        rows = spans[:, 1 if pooling == "last" else 0].to(model.device)
        return torch.stack([h.index_select(0, rows).float() for h in flat])
    rows = torch.cat([torch.arange(first, last + 1) for first, last in spans.tolist()]).to(model.device)
    lengths = (spans[:, 1] - spans[:, 0] + 1).to(model.device)
    starts = lengths.cumsum(0) - lengths
    return torch.stack([embedding_bag(rows, h.float(), starts, mode="mean") for h in flat])


def _fill(run: runs.Run, missing: list[Path]) -> None:
    """Write these stores: the encoder is loaded once for all of them."""
    study, device = run.study, encoders.device(run.study)
    tables = {folder: corpora.load(study, folder.parent.name)[folder.name] for folder in missing}
    tok, model = encoders.tokenizer(study), encoder(run).to(device)
    layers, width = encoders.layers_of(model, tok("a word")["input_ids"])
    disk.need_space(run.folder, sum(2.0 * layers * width * len(table) for table in tables.values()))
    for folder, table in tables.items():
        sentences = [words.tolist() for _, words in table.groupby("sentence", sort=False)["word"]]
        alignments = encoders.align(tok, sentences, encoders.max_length(study, tok, model))
        kept, dropped = _kept(table, alignments)
        shape = (layers, len(kept), width)
        with runs.writing(run, "extract", folder) as (part, facts):
            array = np.lib.format.open_memmap(part / "activations.npy", mode="w+", dtype=np.float16, shape=shape)
            disk.preallocate(part / "activations.npy")
            for rows, vectors in extract(
                model, alignments, tok.pad_token_id or 0, study.encoder.batch_subwords, study.encoder.pooling,
                f"extract {folder.name}", study.precision,
            ):  # fmt: skip
                _check_finite(vectors, f"{study.name}, {run.variant.name}, {folder.name}")
                array[:, rows] = vectors
            array.flush()
            del array
            kept.to_parquet(part / "words.parquet", index=False)
            facts |= {
                "encoder": study.encoder.checkpoint, "variant": run.variant.name, "shape": shape, "dtype": "float16",
                "dropped": dropped, "windows": sum(len(a.windows) for a in alignments), "sentences": len(sentences),
            }  # fmt: skip


def _check_finite(vectors: np.ndarray, where: str) -> None:
    """Raise FloatingPointError for [layers, n, width] vectors that are not finite, or too large for the store."""
    if not np.isfinite(vectors).all():
        layer = int((~np.isfinite(vectors)).any((1, 2)).argmax())
        raise FloatingPointError(
            f"{where}: layer {layer} of the encoder gives values that are not numbers: its weights are damaged, or its "
            "training diverged"
        )
    most, limit = float(np.abs(vectors).max(initial=0)), float(np.finfo(np.float16).max)
    if most > limit:
        raise FloatingPointError(
            f"{where}: the encoder gives the value {most:.0f}, and the store holds {limit:.0f} at most"
        )


def _kept(table: pd.DataFrame, alignments: list[Alignment]) -> tuple[pd.DataFrame, list[tuple[int, int, str, str]]]:
    starts = np.flatnonzero(table["position"].to_numpy() == 0)
    dropped = [
        (number, position, str(table["word"].iloc[starts[number] + position]), reason)
        for number, alignment in enumerate(alignments)
        for position, reason in sorted(alignment.dropped.items())
    ]
    kept = table.drop(index=[int(starts[n] + p) for n, p, *_ in dropped]).reset_index(drop=True)
    if kept.empty:
        raise encoders.EncoderError("the tokenizer represents none of the corpus's words")
    return kept, dropped
