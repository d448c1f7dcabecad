"""The Brown corpus: gold parts of speech, split by text and stratified by genre."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from lib import sources
from lib.corpora.sentences import CorpusError, Sentence
from lib.study.params import SPLITS, Study

GENRES = dict(zip("abcdefghjklmnpr", [
    "press reportage", "press editorial", "press reviews", "religion", "skills and hobbies", "popular lore",
    "belles lettres", "miscellaneous", "learned", "general fiction", "mystery", "science fiction", "adventure",
    "romance", "humour",
], strict=True))  # fmt: skip
"""Brown's genres by the second letter of the file name."""


def brown_tag(tag: str) -> str:
    """A Brown tag without its marks of foreign words, titles, headlines, negation and contraction: 92 tags remain."""
    tag = re.sub(r"^fw-|(-(tl|hl|nc))+$", "", tag.lower()).split("+")[0]
    return tag.replace("*", "") or tag


def read_brown(folder: Path) -> Iterator[Sentence]:
    """The sentences of the Brown corpus (files ``ca01`` … ``cr09`` of ``word/tag``), text by text."""
    files = sorted(p for p in folder.iterdir() if re.fullmatch(r"c[a-hj-npr]\d\d", p.name))
    if not files:
        raise CorpusError(f"{folder} holds no Brown text (ca01 … cr09)")
    for file in files:
        for number, line in enumerate(file.read_text(encoding="latin-1").splitlines(), 1):
            pairs = [token.rpartition("/") for token in line.split()]
            if any(not word or not tag for word, _, tag in pairs):
                raise CorpusError(f"{file}:{number}: a token is not of the form word/tag")
            if pairs:
                yield Sentence(file.name, [w for w, _, _ in pairs], {"pos": [brown_tag(t) for _, _, t in pairs]})


def _brown_splits(study: Study) -> dict[str, Iterator[Sentence]]:
    """Whole texts go to one split: per genre 10 % dev, 20 % test, 70 % train. Each split reads about the same number of
    words from the start of each of its texts. The texts are in an order of which every prefix is stratified, so that a
    small sample, cut to its number of words, still covers all genres.
    """
    assert study.corpus.source
    sentences = list(read_brown(sources.fetch(study.corpus.source)))
    texts = {name: list(group) for name, group in groupby(sentences, key=lambda s: s.text)}
    rng = np.random.default_rng(study.seed)
    chosen: dict[str, list[tuple[float, str]]] = {split: [] for split in SPLITS}
    for genre in GENRES:
        names = rng.permutation(sorted(n for n in texts if n[1] == genre))
        dev, test = max(1, len(names) // 10), max(2, len(names) // 5)
        for split, part in zip(SPLITS, (names[dev + test :], names[:dev], names[dev : dev + test]), strict=True):
            chosen[split].extend(((i + 0.5) / len(part), name) for i, name in enumerate(sorted(part)))
    return {split: _spread(study, split, [texts[n] for _, n in sorted(names)]) for split, names in chosen.items()}


def _spread(study: Study, split: str, texts: list[list[Sentence]]) -> Iterator[Sentence]:
    share = getattr(study.corpus, f"{split}_words") / len(texts)
    for text in texts:
        words = 0
        for sentence in text:
            if words >= share:
                break
            words += len(sentence.words)
            yield sentence
