"""Corpus: word-labelled sentences in three splits, as tables with one row per word.

A split is a DataFrame with the columns ``text`` (document id, or '' where unknown), ``sentence`` (number within the
split), ``position`` (of the word in its sentence), ``word``, and one column per property. Labels that people assigned
are *gold*; labels that a rule computed from gold tags or from word types are *silver*.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib import disk, runs, sources
from lib.params import ROOT, Corpus, Ranking, Study

SPLITS = ("train", "dev", "test")

GENRES = dict(zip("abcdefghjklmnpr", [
    "press reportage", "press editorial", "press reviews", "religion", "skills and hobbies", "popular lore",
    "belles lettres", "miscellaneous", "learned", "general fiction", "mystery", "science fiction", "adventure",
    "romance", "humour",
], strict=True))  # fmt: skip
"""Brown's genres by the second letter of the file name."""

CHUNK_GRAMMAR = r"""
NP: {<abn|abl|abx>?<at|dt|dti|dts|dtx|pp\$|wp\$|wdt>?<ap|cd|od|ql|jj|jjr|jjt|jjs|vbn|vbg|(nn|np|nns|nps|nr)\$>*<nn|nns|np|nps|nr|nrs>+}
    {<pn|ppo|pps|ppss|ppl|ppls|pp\$\$|wps|wpo|ex|dt|dts|dti>}
VP: {<to|md|rb|\*>*<md|be.*|hv.*|do.*|\*|rb>*<vb.*|be.*|hv.*|do.*>+<\*>?}
PP: {<in>}
"""  # noqa: E501
"""Chunks over Brown's tags, in the spirit of CoNLL-2000; the first rule that matches a word keeps it."""

LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()
"""WordNet's lexicographer files in the order of their numbers."""

SUFFIXES = {
    "noun": [("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")],
    "verb": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
             ("ied", "y")],
    "adj": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "adv": [],
}  # fmt: skip
"""WordNet's rules of detachment (morphy); its lists of irregular forms are not in the package."""


MANY = 0.25
"""Share of duplicate sentences from which their number is said."""


class CorpusError(ValueError):
    """A corpus that cannot be used; the message says what, where (file:line) and what to do."""


class Sentence(NamedTuple):
    text: str
    words: list[str]
    labels: dict[str, list[str]]


def load(study: Study) -> dict[str, pd.DataFrame]:
    """The three splits of a study's corpus; made once per set of parameters and kept in ``runs/corpora``.

    Duplicate sentences within a split are dropped, directional quotes become plain ones, and each split is cut after
    the sentence that reaches the number of words asked for.

    Raises
    ------
    CorpusError : a malformed line (file:line), an empty corpus or split.
    """
    key = runs.corpus_key(study)
    folder = runs.home() / "corpora" / f"{study.corpus.name}-{key}"
    with disk.lock(folder):
        if disk.read_meta(folder).get("key") != key:
            tables = {split: _table(s, study.properties) for split, s in _splits(study).items()}
            with disk.being_made(folder) as part:
                part.mkdir()
                for split, table in tables.items():
                    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), part / f"{split}.parquet")
                disk.write_meta(part, {"key": key})
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


def _lacking(labels: dict[str, pd.Series], settings: Ranking) -> Iterator[str]:
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


def plain_quotes(word: str) -> str:
    """Directional quotes as plain ones: the encoders saw plain text."""
    return {"``": '"', "''": '"', "“": '"', "”": '"', "‘": "'", "’": "'", "`": "'"}.get(word, word)


# Brown -----------------------------------------------------------------------------------------------------------


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


# Column files ----------------------------------------------------------------------------------------------------


def read_columns(file: Path, columns: dict[str, int], separator: str = "whitespace") -> Iterator[Sentence]:
    """The sentences of a file with one word per line, its labels in columns, and an empty line after each sentence.

    Reads CoNLL-2000, -2003 and -2012, CoNLL-U and the Parallel Meaning Bank as well as a user's own two columns.
    ``whitespace`` means blanks and tabs: any other space is part of a word.

    A text begins at a line ``-DOCSTART-``, ``# begin document`` or, where tabs separate, ``# newdoc``; it has the name
    that follows, or a number. In tab-separated files, lines that begin with ``# ``, or with ``#`` and have no tab, are
    comments, and CoNLL-U's word ranges and empty nodes are skipped.

    Raises
    ------
    CorpusError : no such file, not UTF-8, not the file itself (packed, a pointer), a line with too few columns or other
        columns than the first, an empty word or label, CoNLL-U to be read as white space; always with file:line.
    """
    tab = separator == "tab"
    word, need = columns["word"], max(columns.values()) + 1
    text, texts, rows, width = "", 0, [], None

    def sentence() -> Sentence:
        return Sentence(
            text, [r[word] for r in rows], {n: [r[c] for r in rows] for n, c in columns.items() if n != "word"}
        )

    for number, line in _lines(file):
        if not tab and CONLLU.match(line):
            raise CorpusError(f"{file}:{number}: this looks like CoNLL-U: give corpus.separator: tab")
        cells = [c.strip(" ") for c in line.split("\t")] if tab else re.split(r"[ \t]+", line.strip(" \t"))
        begun = _begun(line, cells, word)
        if begun is not None or not line.strip():
            if rows:
                yield sentence()
            rows = []
            if begun is not None:
                texts += 1
                text = begun or f"#{texts}"
            continue
        if (
            ENDS.fullmatch(line)
            or (not rows and not tab and REMARK.match(line))
            or (tab and (line.startswith("# ") or (line.startswith("#") and "\t" not in line)))
        ):
            continue
        if tab and word > 0 and re.fullmatch(r"\d+[-.]\d+", cells[0]):
            continue
        if len(cells) < need:
            raise CorpusError(
                f"{file}:{number}: {len(cells)} columns, but column {need - 1} (from 0) is asked for{_hint(line, tab)}"
            )
        if len(cells) != (width := width or len(cells)):
            raise CorpusError(
                f"{file}:{number}: {len(cells)} columns where the lines before have {width}{_hint(line, tab)}"
            )
        for name, column in columns.items():
            if not cells[column].strip():
                what = f"empty {name if name == 'word' else f'label for {name!r}'}"
                only = f" (nothing but {_codes(cells[column])})" if cells[column] else ""
                raise CorpusError(f"{file}:{number}: {what}{only}")
        rows.append(cells)
    if rows:
        yield sentence()


BEGINS = re.compile(r"#\s*(?:newdoc(?:\s+id)?(?:\s*=\s*|\s+|$)|begin document\b\s*)(.*)")
"""Where a text begins in CoNLL-U and in CoNLL-2012, and its name."""
ENDS = re.compile(r"#\s*end document\b.*")
COMMENT = r"#\s*(?:(?:sent_id|text|newdoc id|newpar id|global\.columns)\s*=|new(?:doc|par)\s*$)"
CONLLU = re.compile(COMMENT + r"|\d+(?:[-.]\d+)?(?:\t[^\t]*){9}$")
"""What only CoNLL-U has: its comments, and lines of ten columns of which the first is a number."""
REMARK = re.compile(r"#+\s*[a-z_]\w*\s*=|#+\s+id\b|</?\w+(\s+\w+=\S+)*\s*/?>\s*$")
"""What may stand before a sentence where white space separates, and is no word: ``# id 7``, ``# id = 7``, ``<s>``."""
PACKED = b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ"


def _begun(line: str, cells: list[str], word: int) -> str | None:
    """The name of the text that begins at a line, '' if it has none; None where no text begins."""
    if "-DOCSTART-" in (cells[0].split(" ")[0], *cells[word : word + 1]):
        return ""
    found = BEGINS.fullmatch(line.strip())
    return found[1] if found else None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    if not file.is_file():
        raise CorpusError(f"there is no corpus file {file}")
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.rstrip(b"\r\n")
            if number == 1 and line.startswith(b"version https://git-lfs"):
                raise CorpusError(f"{file}:1: a Git LFS pointer, not the corpus: fetch it with 'git lfs pull'")
            if number == 1 and line.startswith(PACKED):
                raise CorpusError(f"{file}:1: a packed file: unpack it")
            if b"\0" in line:
                raise CorpusError(f"{file}:{number}: not UTF-8 (zero bytes, as in UTF-16); convert the file")
            if b"\r" in line:
                raise CorpusError(f"{file}:{number}: a carriage return within the line; convert the line ends to \\n")
            try:
                yield number, line.decode("utf-8-sig")  # in every line: files that were joined keep their marks
            except UnicodeDecodeError as error:
                raise CorpusError(f"{file}:{number}: not UTF-8 ({error.reason}); convert the file") from error


def _hint(line: str, tab: bool) -> str:
    """What may be wrong with a line that has too few or too many columns."""
    if odd := [c for c in line if c.isspace() and c not in " \t"]:
        return f"; only blanks and tabs separate columns, {_codes(odd)} does not"
    if tab and "\t" not in line:
        return "; there is no tab: if white space separates the columns, give corpus.separator: whitespace"
    return "; if tabs separate the columns, give corpus.separator: tab" if "\t" in line and not tab else ""


def _codes(characters: Iterable[str]) -> str:
    return ", ".join(f"U+{ord(c):04X}" for c in dict.fromkeys(characters))


def _file_splits(corpus: Corpus) -> dict[str, list[Sentence]]:
    splits = {
        split: list(read_columns(ROOT / name, corpus.columns, corpus.separator)) for split, name in corpus.files.items()
    }
    for split, sentences in splits.items():
        _refuse_withheld(sentences, ROOT / corpus.files[split])
    if "dev" not in splits:
        train = splits["train"]
        splits |= {"dev": train[9::10], "train": [s for i, s in enumerate(train) if i % 10 != 9]}
    return splits


def _refuse_withheld(sentences: list[Sentence], file: Path) -> None:
    """A treebank whose text may not be passed on has one word, mostly ``_``, in place of all or in some texts."""
    masked = [[re.sub("^_+$", "_", word) for word in s.words] for s in sentences]  # or one _ for each letter
    counts = Counter(word for words in masked for word in words)
    blank = sum(len(words) for words in masked if len(words) > 1 and set(words) == {"_"})
    word, most = ("_", counts["_"]) if blank else next(iter(counts.most_common(1)), ("", 0))
    if blank > 0.05 * counts.total() or (most > 0.5 * counts.total() and counts.total() >= 20):
        raise CorpusError(
            f"{file}: {most} of {counts.total()} words are '{word}': the text is withheld. Put it in first (the "
            "treebank's README says how), or leave out the sentences that have none"
        )


# Silver labels ---------------------------------------------------------------------------------------------------


def chunks(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """BIO labels of noun, verb and prepositional chunks, computed from gold Brown tags by ``CHUNK_GRAMMAR``."""
    import nltk  # a second that only the making of a corpus needs

    parser = nltk.RegexpParser(CHUNK_GRAMMAR)
    return [[tag for _, _, tag in nltk.chunk.tree2conlltags(parser.parse(s))] for s in sentences]


def supersenses(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """The lexicographer file of each word's most frequent WordNet sense in its part of speech; ``O`` for all others."""
    folder = sources.fetch("wordnet")
    classes = {"nn": "noun", "np": "noun", "nr": "noun", "vb": "verb", "be": "verb", "hv": "verb", "do": "verb"}
    classes |= {"jj": "adj", "rb": "adv"}
    senses = {pos: _first_senses(folder, pos) for pos in SUFFIXES}
    known: dict[tuple[str, str], str] = {}

    def label(word: str, tag: str) -> str:
        pos = classes.get(tag[:2])
        if pos is None:
            return "O"
        if (word, pos) not in known:
            lemma = word.lower().removesuffix("'s").removesuffix("'")
            forms = [lemma] + [lemma.removesuffix(a) + b for a, b in SUFFIXES[pos] if lemma.endswith(a)]
            known[word, pos] = next((LEXNAMES[senses[pos][f]] for f in forms if f in senses[pos]), "O")
        return known[word, pos]

    return [[label(word, tag) for word, tag in s] for s in sentences]


def _first_senses(folder: Path, pos: str) -> dict[str, int]:
    """Lemma → number of the lexicographer file of its first (most frequent) sense."""
    files = {}
    for line in (folder / f"data.{pos}").read_text(encoding="utf-8").splitlines():
        if line[0] != " ":
            files[line[:8]] = int(line[9:11])
    first = {}
    for line in (folder / f"index.{pos}").read_text(encoding="utf-8").splitlines():
        if line[0] != " ":
            cells = line.split()
            first[cells[0]] = files[cells[-int(cells[2])]]
    return first
