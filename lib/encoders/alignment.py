"""Alignment: from words to sub-words and back to word positions, for any fast tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lib.encoders.checkpoints import EncoderError, cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


def pieces(tok: PreTrainedTokenizerBase, words: Sequence[str]) -> pd.DataFrame:
    """How a sentence is cut, for display: one row per word with its sub-words and the positions that they take."""
    encoding = cut(tok, [words])[0]
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
        block = sentences[start : start + 1000]
        for words, encoding in zip(block, cut(tok, block), strict=True):
            out.append(_align_one(tok, list(words), encoding.ids, encoding.word_ids, max_pieces, room))
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
        encoding = cut(tok, [[words[i] for i in found[a:b]]])[0]
        inside, inner = _spans(encoding.word_ids)
        if len(inside) != b - a or len(encoding.ids) > longest:
            raise EncoderError(f"the tokenizer splits {words[found[a]]!r} … otherwise at the start of a window")
        mine = best[a:b] == number
        if mine.any():
            windows.append(_window(encoding.ids, found[a:b][mine], inner[mine]))
    return Alignment(windows, dropped)
