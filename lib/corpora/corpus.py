"""Corpus: word-labelled sentences in three splits, as tables with one row per word.

A split is a DataFrame with the columns ``text`` (document id, or '' where unknown), ``sentence`` (number within the
split), ``position`` (of the word in its sentence), ``word``, and one column per property. Labels that people assigned
are *gold*; labels that a rule computed from gold tags or from word types are *silver*.
"""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import disk
from lib.study import inputs, runs
from lib.study.params import SPLITS, Corpus, RankingSettings, Study


class CorpusError(ValueError):
    """A corpus that cannot be used; the message says what, where (file:line) and what to do."""


class Sentence(NamedTuple):
    text: str
    words: list[str]
    labels: dict[str, list[str]]


def load(study: Study, name: str | None = None) -> dict[str, pd.DataFrame]:
    """The three splits of a study's corpus; read once per set of parameters and kept in ``runs/corpora``.

    ``name`` : of the corpus, where the study has several; by default that of the first property.

    Duplicate sentences within a split are dropped, directional quotes become plain ones, and each split is cut after
    the sentence that reaches its number of words.

    Raises
    ------
    CorpusError : a malformed line (file:line), an empty corpus or split.
    """
    name = name or next(iter(study.corpora_in_use))
    (corpus, properties), key = study.corpora_in_use[name], inputs.corpus_digest(study, name)
    folder = runs.home() / "corpora" / f"{name}-{key}"
    with disk.lock(folder):
        if disk.read_manifest(folder).get("key") != key:
            sentences = importlib.import_module(f"lib.corpora.{corpus.format}").read(corpus, properties, study.seed)
            tables = {split: _table(_cut(corpus, split, sentences[split]), properties) for split in SPLITS}
            with disk.atomic_write(folder) as part:
                part.mkdir()
                for split, table in tables.items():
                    table.to_parquet(part / f"{split}.parquet", index=False)
                disk.write_manifest(part, {"key": key})
    return {split: pd.read_parquet(folder / f"{split}.parquet") for split in SPLITS}


def check(study: Study) -> None:
    """Whether a study's probes and rankings can be made from its corpora, as far as these tell.

    Raises
    ------
    CorpusError : as ``load``; or one list of the properties with fewer than two labels in the training words, with none
        frequent enough to be ranked, or with a dev or test split of other labels only.
    """
    problems = []
    for corpus, (_, properties) in study.corpora_in_use.items():
        splits = load(study, corpus)
        for name in properties:
            labels = {split: table[name].astype(str) for split, table in splits.items()}
            problems += [f"corpus '{corpus}': property '{name}' has {p}" for p in _lacking(labels, study.ranking)]
    if problems:
        raise CorpusError("\n".join(problems))


def _lacking(labels: dict[str, pd.Series], settings: RankingSettings) -> Iterator[str]:
    counts, least = labels["train"].value_counts(), settings.min_label_words
    often, most = counts.index[0], counts.iloc[0]
    if len(counts) < 2:
        yield f"one label only in the training words, '{often}': there is nothing to learn" + (
            " ('_' marks an empty column)" if often == "_" else ""
        )
    elif most < least:
        yield (
            f"no label with {least} training words; the most frequent, '{often}', has {most}: lower "
            "ranking.min_label_words or take more training words"
        )
    for split in ("dev", "test"):
        if not labels[split].isin(counts.index).any():
            yield f"no label in the {split} split that occurs in the training words: there is nothing to test"


def label_name(study: Study, name: str) -> str:
    """The property as figures and tables name it: silver labels are marked wherever they are shown."""
    return name if study.is_gold(name) else f"{name} (silver)"


def plain_quotes(word: str) -> str:
    """Directional quotes as plain ones: the encoders saw plain text."""
    return {"``": '"', "''": '"', "“": '"', "”": '"', "‘": "'", "’": "'", "`": "'"}.get(word, word)


def _cut(corpus: Corpus, split: str, sentences: Iterable[Sentence]) -> list[Sentence]:
    """The first sentences of a split, up to its number of words, without repetitions; in plain quotes."""
    different: dict[tuple[str, ...], Sentence] = {}
    words = read = 0
    for sentence in sentences:
        if words >= getattr(corpus, f"{split}_words"):
            break
        read += 1
        form = tuple(plain_quotes(word) for word in sentence.words)
        if form not in different:
            different[form] = sentence._replace(words=[*form])
            words += len(form)
    if not different:
        raise CorpusError(f"corpus '{corpus.name}': the {split} split is empty")
    if (repeated := read - len(different)) > read / 4:
        print(f"corpus '{corpus.name}', {split}: {repeated} of {read} sentences repeat another one and are dropped")
    return [*different.values()]


def _table(sentences: list[Sentence], properties: Sequence[str]) -> pd.DataFrame:
    lengths = np.array([len(s.words) for s in sentences])
    table = pd.DataFrame(
        {
            "text": np.repeat(np.array([s.text for s in sentences], object), lengths),
            "sentence": np.repeat(np.arange(len(sentences), dtype=np.int32), lengths),
            "position": np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
            "word": [w for s in sentences for w in s.words],
        }
    )
    for name in properties:
        labels = [label for s in sentences for label in s.labels[name]]
        if len(labels) != len(table):
            raise CorpusError(f"property '{name}' has {len(labels)} labels for {len(table)} words")
        table[name] = pd.Categorical(labels)
    return table
