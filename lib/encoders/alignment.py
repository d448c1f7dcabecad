"""Alignment: from words to sub-words and back to word positions, for any fast tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tokenizers import Encoding

from lib.encoders.checkpoints import EncoderError, cut

if TYPE_CHECKING:
    import transformers


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


def show_subwords(tok: transformers.PreTrainedTokenizerBase, words: Sequence[str]) -> pd.DataFrame:
    """How a sentence is cut, for display: one row per word with its sub-words and the positions that they take."""
    encoding = cut(tok, [words])[0]
    spans = [encoding.word_to_tokens(number) or (0, 0) for number in range(len(words))]
    rows = [(word, " ".join(encoding.tokens[a:b]), a, b - 1) for word, (a, b) in zip(words, spans, strict=True)]
    return pd.DataFrame(rows, columns=["word", "sub-words", "first", "last"])


def align(
    tok: transformers.PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], max_subwords: int
) -> list[Alignment]:
    """Sub-words of each sentence and which of them are which word.

    A sentence longer than ``max_subwords`` is read in windows that overlap by half; each of its words is taken from the
    window in which it is farthest from an edge. A word that the tokenizer turns into nothing (zero-width characters),
    or whose own sub-words exceed a window, is reported and never shifts its neighbours.

    Returns one Alignment per sentence, in order.
    """
    if max_subwords <= tok.num_special_tokens_to_add():
        raise EncoderError(f"max_subwords = {max_subwords} leaves no room for a word")
    return [
        _align_one(tok, words, encoding, max_subwords)
        for start in range(0, len(sentences), 1000)
        for block in [sentences[start : start + 1000]]
        for words, encoding in zip(block, cut(tok, block), strict=True)
    ]


def _spans(word_ids: Sequence[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the represented words [n] and their first and last sub-word [n, 2], both int32."""
    ids = np.array([-1 if w is None else w for w in word_ids], np.int32)
    at = np.flatnonzero(ids >= 0)
    words, first = np.unique(ids[at], return_index=True)
    last = np.append(first, len(at))[1:] - 1
    return words, np.stack([at[first], at[last]], 1).astype(np.int32)


def _align_one(
    tok: transformers.PreTrainedTokenizerBase, words: Sequence[str], encoding: Encoding, longest: int
) -> Alignment:
    numbers, spans = _spans(encoding.word_ids)
    dropped = {int(i): "no sub-word" for i in np.setdiff1d(np.arange(len(words)), numbers)}
    if len(encoding.ids) <= longest:
        return Alignment([Window(np.array(encoding.ids, np.int32), numbers, spans)] if len(numbers) else [], dropped)
    lengths, room = spans[:, 1] - spans[:, 0] + 1, longest - tok.num_special_tokens_to_add()
    for i in np.flatnonzero(lengths > room):
        dropped[int(numbers[i])] = f"{lengths[i]} sub-words, more than the {room} that fit"
    numbers, lengths = numbers[lengths <= room], lengths[lengths <= room]
    stretches = _stretches(lengths, room)
    return Alignment([_window(tok, words, numbers[a:b], own, longest) for (a, b), own in stretches], dropped)


def _window(
    tok: transformers.PreTrainedTokenizerBase, words: Sequence[str], part: np.ndarray, own: np.ndarray, longest: int
) -> Window:
    """The words of these numbers, ``part``, as one input, of which it represents its ``own``: [words of part] bool."""
    encoding = cut(tok, [[words[i] for i in part]])[0]
    inside, spans = _spans(encoding.word_ids)
    if len(inside) != len(part) or len(encoding.ids) > longest:
        raise EncoderError(f"the tokenizer splits {words[part[0]]!r} … otherwise at the start of a window")
    return Window(np.array(encoding.ids, np.int32), part[own], spans[own])


def _stretches(lengths: np.ndarray, room: int) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Stretches of words that fit into ``room`` sub-words: the first word and the one after the last. With each, which
    of its words are farther from an edge in this stretch than in any other: [words of the stretch] bool.

    ``lengths`` : [words] sub-words of each word, none more than ``room``. Each stretch begins half-way through the one
    before. The ends of the sentence are no edges.
    """
    ends, count = np.concatenate([[0], np.cumsum(lengths)]), len(lengths)
    stretches, start, end = [], 0, 0
    distance, best = np.full(count, -1.0), np.zeros(count, int)
    while end < count:
        end, half = (int(n) - 1 for n in np.searchsorted(ends, ends[start] + [room, room // 2], side="right"))
        left = ends[start:end] - ends[start] if start else np.inf
        right = ends[end] - ends[start + 1 : end + 1] if end < count else np.inf
        nearest, part = np.minimum(left, right), slice(start, end)
        best[part] = np.where(nearest > distance[part], len(stretches), best[part])
        distance[part] = np.maximum(nearest, distance[part])
        stretches.append((start, end))
        start = max(start + 1, half)
    owned = [((a, b), best[a:b] == number) for number, (a, b) in enumerate(stretches)]
    return [(stretch, own) for stretch, own in owned if own.any()]
