"""Sentence: words with their labels, as every format of corpus is read; and the splits that they go to."""

from typing import NamedTuple


class CorpusError(ValueError):
    """A corpus that cannot be used; the message says what, where (file:line) and what to do."""


class Sentence(NamedTuple):
    text: str
    words: list[str]
    labels: dict[str, list[str]]


def plain_quotes(word: str) -> str:
    """Directional quotes as plain ones: the encoders saw plain text."""
    return {"``": '"', "''": '"', "“": '"', "”": '"', "‘": "'", "’": "'", "`": "'"}.get(word, word)
