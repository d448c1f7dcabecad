"""Encoder: checkpoint and tokenizer; from words to sub-words and back to word positions, for any fast tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tokenizers.pre_tokenizers import ByteLevel

from lib import sources
from lib.params import ROOT, Study

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class EncoderError(RuntimeError):
    """A checkpoint or tokenizer that cannot be used; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one sentence that fits the encoder.

    ``ids`` : [sub-words] with the special tokens where this tokenizer puts them.
    ``words`` : [represented words] their numbers in the sentence.
    ``spans`` : [represented words, 2] first and last sub-word of each, as positions in ``ids``. All int32.
    """

    ids: np.ndarray
    words: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True, slots=True)
class Alignment:
    """One sentence: its windows, and the words that got no vector, with the reason."""

    windows: list[Window]
    dropped: dict[int, str]


def device(study: Study) -> torch.device:
    """The study's device; ``auto`` takes CUDA, then Apple's, then the CPU. Sets the thread count of the study."""
    torch.set_num_threads(study.threads)
    name = study.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EncoderError(f"device '{name}' is asked for, but PyTorch sees no CUDA device here; use device: auto")
    return torch.device(name)


def checkpoint(study: Study) -> str:
    """Where the study's checkpoint is: a folder (a named source is fetched), or a hub id."""
    name = study.encoder.checkpoint
    if name in sources.SOURCES:
        return str(sources.fetch(name))
    if (ROOT / name).is_dir():
        return str((ROOT / name).resolve())
    if name.startswith((".", "/")) or name.count("/") > 1:
        raise EncoderError(f"encoder.checkpoint: there is no folder {ROOT / name}")
    return name


def fetch(study: Study) -> None:
    """Get a hub checkpoint into the local cache, once and before many runs want it. Raises EncoderError."""
    place = checkpoint(study)
    if not os.path.isdir(place):
        _load("AutoConfig", place, study)
        _load("AutoTokenizer", place, study)
        _load("AutoModel", place, study, **safe_weights(study))


def tokenizer(study: Study) -> PreTrainedTokenizerBase:
    """The study's fast tokenizer; byte-level BPE is told that every word begins with a space."""
    place = checkpoint(study)
    found = _load("AutoTokenizer", place, study, add_prefix_space=True)
    if not found.is_fast:
        raise EncoderError(f"the tokenizer of {place} is not a fast one (tokenizer.json): words cannot be aligned")
    if found.vocab_size <= len(found.all_special_tokens):
        raise EncoderError(f"{place} holds no tokenizer (tokenizer.json)")
    byte_level = found.backend_tokenizer.pre_tokenizer
    if isinstance(byte_level, ByteLevel):  # a generic class ignores the option
        byte_level.add_prefix_space = True
    return found


def shape(study: Study) -> tuple[int, int]:
    """Layers (the embedding output counts as one) and width of the study's encoder, without loading its weights."""
    config = _load("AutoConfig", checkpoint(study), study)
    return config.num_hidden_layers + 1, config.hidden_size


def pretrained(study: Study) -> PreTrainedModel:
    """The encoder as it was released, without a head."""
    return _load("AutoModel", checkpoint(study), study, **safe_weights(study)).eval()


def randomised(study: Study) -> PreTrainedModel:
    """The same architecture with fresh weights, drawn by the study's seed: what probes read without any training."""
    config = _load("AutoConfig", checkpoint(study), study)
    torch.manual_seed(study.seed)
    return _auto("AutoModel").from_config(config).eval()


def finetuned(folder: Path) -> PreTrainedModel:
    """The encoder inside a fine-tuned model of ours, without its head."""
    return _auto("AutoModel").from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()


def safe_weights(study: Study) -> dict[str, bool]:
    """Loading options that refuse pickled weights, unless the file has the digest that the study pins.

    Raises EncoderError for a folder whose weights are not safetensors.
    """
    place = Path(checkpoint(study))
    if place.is_dir() and not list(place.glob("*.safetensors")):
        pinned, file = study.encoder.weights_sha256, place / "pytorch_model.bin"
        if not file.exists():
            raise EncoderError(f"{place} holds no weights (*.safetensors)")
        if not pinned:
            raise EncoderError(
                f"{place} is not safetensors: its weights would be unpickled, which can run code. Convert them "
                "(model.save_pretrained), or pin encoder.weights_sha256 to load exactly that file, weights only"
            )
        sources.verify(file, pinned, "Get the pinned file, or correct encoder.weights_sha256 if this one is meant")
        return {"use_safetensors": False, "weights_only": True}
    return {"use_safetensors": True}


def limit(study: Study, tok: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Longest input in sub-words, special tokens included."""
    config = model.config
    positions = getattr(config, "max_position_embeddings", None) or -1
    if positions < 1:  # relative positions (XLNet says -1): any length
        positions = 10**9
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= config.pad_token_id + 1  # positions are counted from the padding id on
    return min(study.encoder.max_pieces or 512, positions, tok.model_max_length)


def pieces(tok: PreTrainedTokenizerBase, words: Sequence[str]) -> pd.DataFrame:
    """How a sentence is cut, for display: one row per word with its sub-words and the positions that they take."""
    encoding = tok([list(words)], is_split_into_words=True, verbose=False).encodings[0]
    found, spans = _spans(encoding.word_ids)
    at = dict(zip(found.tolist(), spans.tolist(), strict=True))
    rows = [
        (w, " ".join(encoding.tokens[a : b + 1]), a, b)
        for w, (a, b) in ((w, at.get(i, (0, -1))) for i, w in enumerate(words))
    ]
    return pd.DataFrame(rows, columns=["word", "sub-words", "first", "last"])


def align(tok: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], max_pieces: int) -> list[Alignment]:
    """Sub-words of each sentence and which of them are which word.

    A sentence longer than ``max_pieces`` is read in windows that overlap by half; each of its words is taken from the
    window in which it is farthest from an edge. A word that the tokenizer turns into nothing (zero-width characters),
    or whose own pieces exceed a window, is reported and never shifts its neighbours.

    Returns one Alignment per sentence, in order.
    """
    room = max_pieces - tok.num_special_tokens_to_add()
    if room < 1:
        raise EncoderError(f"max_pieces = {max_pieces} leaves no room for a word")
    out = []
    for start in range(0, len(sentences), 1000):
        block = [list(s) for s in sentences[start : start + 1000]]
        encoded = tok(block, is_split_into_words=True, add_special_tokens=True, truncation=False, verbose=False)
        for words, encoding in zip(block, encoded.encodings or [], strict=True):
            out.append(_align_one(tok, words, encoding.ids, encoding.word_ids, max_pieces, room))
    return out


def _spans(word_ids: Sequence[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the represented words [n] and their first and last sub-word [n, 2]."""
    ids = np.array([-1 if w is None else w for w in word_ids])
    at = np.flatnonzero(ids >= 0)
    words, first = np.unique(ids[at], return_index=True)
    last = np.append(first[1:], len(at)) - 1
    return words, np.stack([at[first], at[last]], 1) if len(at) else np.empty((0, 2), int)


def _window(*given: Sequence[int] | np.ndarray) -> Window:
    return Window(*(np.array(part, np.int32) for part in given))


def _align_one(
    tok: PreTrainedTokenizerBase,
    words: list[str],
    ids: list[int],
    word_ids: list[int | None],
    longest: int,
    room: int,
) -> Alignment:
    found, spans = _spans(word_ids)
    dropped = {int(i): "no sub-word" for i in np.setdiff1d(np.arange(len(words)), found)}
    if len(ids) <= longest:
        return Alignment([_window(ids, found, spans)] if len(found) else [], dropped)
    pieces = spans[:, 1] - spans[:, 0] + 1
    for i in np.flatnonzero(pieces > room):
        dropped[int(found[i])] = f"{pieces[i]} sub-words, more than the {room} that fit"
    fits = pieces <= room
    found, pieces = found[fits], pieces[fits]
    ends = np.concatenate([[0], np.cumsum(pieces)])
    starts, margin, best = [0], np.full(len(found), -1), np.zeros(len(found), int)
    stretches = []
    while starts[-1] < len(found):  # each stretch: words [a, b) whose pieces fit; the next begins half-way
        a = starts[-1]
        b = int(np.searchsorted(ends, ends[a] + room, side="right")) - 1
        stretches.append((a, b))
        if b == len(found):
            break
        starts.append(max(a + 1, int(np.searchsorted(ends, ends[a] + room // 2, side="right")) - 1))
    for number, (a, b) in enumerate(stretches):
        left = np.full(b - a, 10**9) if a == 0 else ends[a:b] - ends[a]
        right = np.full(b - a, 10**9) if b == len(found) else ends[b] - ends[a + 1 : b + 1]
        better = np.minimum(left, right) > margin[a:b]
        margin[a:b][better], best[a:b][better] = np.minimum(left, right)[better], number
    windows = []
    for number, (a, b) in enumerate(stretches):
        part = tok([[words[i] for i in found[a:b]]], is_split_into_words=True, truncation=False, verbose=False)
        encoding = part.encodings[0]
        inside, inner = _spans(encoding.word_ids)
        if len(inside) != b - a or len(encoding.ids) > longest:
            raise EncoderError(f"the tokenizer splits {words[found[a]]!r} … otherwise at the start of a window")
        mine = best[a:b] == number
        if mine.any():
            windows.append(_window(encoding.ids, found[a:b][mine], inner[mine]))
    return Alignment(windows, dropped)


def quiet() -> None:
    """Switch off the bars and remarks of ``transformers``; what takes time shows a bar of ours."""
    import transformers  # here and in _auto: half a second, two for the models, that only loading one needs

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _auto(kind: str):
    """A class of ``transformers``."""
    import transformers

    quiet()
    return getattr(transformers, kind)


def _load(kind: str, place: str, study: Study, **options: object):
    revision = None if os.path.isdir(place) else study.encoder.revision
    try:
        return _auto(kind).from_pretrained(place, revision=revision, trust_remote_code=False, **options)
    except Exception as error:  # damaged files raise some ten kinds
        raise EncoderError(
            f"the encoder '{place}' cannot be loaded: {type(error).__name__}: {(str(error) or '-').splitlines()[0]}\n"
            "A hub id needs the network once (unset HF_HUB_OFFLINE), a folder needs config.json, tokenizer.json and "
            "model.safetensors"
        ) from error
