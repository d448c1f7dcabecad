"""Corpus: word-labelled sentences in three splits, as tables with one row per word.

A split is a DataFrame with the columns ``text`` (document id, or '' where unknown), ``sentence`` (number within the
split), ``position`` (of the word in its sentence), ``word``, and one column per property. Labels that people assigned
are *gold*; labels that a rule computed from gold tags or from word types are *silver*.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib import disk
from lib.corpora.brown import _brown_splits
from lib.corpora.columns import _file_splits
from lib.corpora.sentences import CorpusError, Sentence, plain_quotes
from lib.corpora.silver import chunks, supersenses
from lib.study import inputs, runs
from lib.study.params import SPLITS, RankingSettings, Study

MANY = 0.25
"""Share of duplicate sentences from which their number is said."""


def load(study: Study) -> dict[str, pd.DataFrame]:
    """The three splits of a study's corpus; made once per set of parameters and kept in ``runs/corpora``.

    Duplicate sentences within a split are dropped, directional quotes become plain ones, and each split is cut after
    the sentence that reaches the number of words asked for.

    Raises
    ------
    CorpusError : a malformed line (file:line), an empty corpus or split.
    """
    key = inputs.corpus_digest(study)
    folder = runs.home() / "corpora" / f"{study.corpus.name}-{key}"
    with disk.lock(folder):
        if disk.read_manifest(folder).get("key") != key:
            tables = {split: _table(s, study.properties) for split, s in _splits(study).items()}
            with disk.atomic_write(folder) as part:
                part.mkdir()
                for split, table in tables.items():
                    table.to_parquet(part / f"{split}.parquet", index=False)
                disk.write_manifest(part, {"key": key})
    return {split: pd.read_parquet(folder / f"{split}.parquet") for split in SPLITS}


def check(study: Study) -> None:
    """Whether a study's probes and rankings can be made from its corpus, as far as the corpus tells.

    Raises
    ------
    CorpusError : as ``load``; or one list of the properties with fewer than two labels in the training words, with none
        frequent enough to be ranked, or with a dev or test split of other labels only.
    """
    splits = load(study)
    problems = [
        f"corpus '{study.corpus.name}': property '{name}' has {lacking}"
        for name in study.properties
        for lacking in _lacking({split: t[name].astype(str) for split, t in splits.items()}, study.ranking)
    ]
    if problems:
        raise CorpusError("\n".join(problems))


def _lacking(labels: dict[str, pd.Series], settings: RankingSettings) -> Iterator[str]:
    counts, least = labels["train"].value_counts(), settings.min_label_words
    often, most = counts.index[0], counts.iloc[0]
    if len(counts) < 2:
        blank = " ('_' marks an empty column)" if often == "_" else ""
        yield f"one label only in the training words, '{often}': there is nothing to learn{blank}"
    elif most < least:
        more = f"the most frequent, '{often}', has {most}: lower ranking.min_label_words or take more training words"
        yield f"no label with {least} training words; {more}"
    for split in ("dev", "test"):
        if not labels[split].isin(counts.index).any():
            yield f"no label in the {split} split that occurs in the training words: there is nothing to test"


def gold(study: Study, name: str) -> bool:
    """Whether people assigned the labels of this property."""
    return name in study.corpus.gold


def label_name(study: Study, name: str) -> str:
    """The property as figures and tables name it: silver labels are marked wherever they are shown."""
    return name if gold(study, name) else f"{name} (silver)"


def _splits(study: Study) -> dict[str, list[Sentence]]:
    corpus = study.corpus
    splits = _brown_splits(study) if corpus.format == "brown" else _file_splits(corpus)
    out = {}
    for split in SPLITS:
        seen: set[tuple[str, ...]] = set()
        kept, dropped, words, limit = [], 0, 0, getattr(corpus, f"{split}_words")
        for sentence in splits[split]:
            plain = sentence._replace(words=[plain_quotes(w) for w in sentence.words])
            form = tuple(plain.words)
            if words < limit and form not in seen:
                seen.add(form)
                kept.append(plain)
                words += len(form)
            elif words < limit:
                dropped += 1
        if not kept:
            raise CorpusError(f"corpus '{corpus.name}': the {split} split is empty")
        if dropped > MANY * (read := len(kept) + dropped):
            print(f"corpus '{corpus.name}', {split}: {dropped} of {read} sentences repeat another one and are dropped")
        out[split] = kept
    if corpus.format == "brown":
        for name, label in (("chunk", chunks), ("supersense", supersenses)):
            if name in study.properties:
                for split in SPLITS:
                    labelled = label([list(zip(s.words, s.labels["pos"], strict=True)) for s in out[split]])
                    for sentence, labels in zip(out[split], labelled, strict=True):
                        sentence.labels[name] = labels
    return out


def _table(sentences: list[Sentence], properties: list[str]) -> pd.DataFrame:
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
