"""The Brown corpus: gold parts of speech, silver chunks and supersenses; split by text, stratified by genre."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np

from lib import sources
from lib.corpora.corpus import CorpusError, Sentence
from lib.study.params import SPLITS, Corpus

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


def read(corpus: Corpus, properties: Sequence[str], seed: int) -> dict[str, list[Sentence]]:
    """The sentences of the three splits, with the labels of some properties.

    A text goes to one split with all its sentences: per genre 10 % dev, 20 % test, 70 % train. Each split reads about
    the same number of words from the start of each of its texts. The texts are in an order of which every prefix is
    stratified, so that a small sample, cut to its number of words, still covers all genres.
    """
    assert corpus.source
    sentences = read_brown(sources.fetch(corpus.source))
    texts = {name: list(group) for name, group in groupby(sentences, key=lambda s: s.text)}
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[tuple[float, str]]] = {split: [] for split in SPLITS}
    for genre in GENRES:
        names = rng.permutation(sorted(n for n in texts if n[1] == genre))
        dev, test = max(1, len(names) // 10), max(2, len(names) // 5)
        for split, part in zip(SPLITS, (names[dev + test :], names[:dev], names[dev : dev + test]), strict=True):
            chosen[split].extend(((i + 0.5) / len(part), name) for i, name in enumerate(sorted(part)))
    splits = {}
    for split, names in chosen.items():
        share = getattr(corpus, f"{split}_words") / len(names)
        splits[split] = [s for _, name in sorted(names) for s in _start(texts[name], share)]
    for name in SILVER.keys() & {*properties}:
        read_sentences = [sentence for split in splits.values() for sentence in split]
        tagged = [list(zip(s.words, s.labels["pos"], strict=True)) for s in read_sentences]
        for sentence, labels in zip(read_sentences, SILVER[name](tagged), strict=True):
            sentence.labels[name] = labels
    return splits


def _start(text: list[Sentence], words: float) -> list[Sentence]:
    """The first sentences of a text, up to the one that reaches a number of words."""
    ends = np.cumsum([len(sentence.words) for sentence in text])
    return text[: np.searchsorted(ends, words) + 1]


# Silver labels: computed from gold tags and word types -------------------------------------------------------------


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


def chunks(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """BIO labels of noun, verb and prepositional chunks, computed from gold Brown tags by ``CHUNK_GRAMMAR``."""
    import nltk  # a second that only the making of a corpus needs

    parser = nltk.RegexpParser(CHUNK_GRAMMAR)
    return [[tag for _, _, tag in nltk.chunk.tree2conlltags(parser.parse(s))] for s in sentences]


def supersenses(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """The lexicographer file of each word's most frequent WordNet sense in its part of speech; ``O`` for all others."""
    classes = {
        "nn": "noun", "np": "noun", "nr": "noun", "vb": "verb", "be": "verb", "hv": "verb", "do": "verb", "jj": "adj",
        "rb": "adv",
    }  # fmt: skip
    senses = {pos: _first_senses(sources.fetch("wordnet"), pos) for pos in SUFFIXES}

    @cache
    def label(word: str, tag: str) -> str:
        pos = classes.get(tag[:2])
        if pos is None:
            return "O"
        lemma = word.lower().removesuffix("'s").removesuffix("'")
        forms = [lemma] + [lemma.removesuffix(a) + b for a, b in SUFFIXES[pos] if lemma.endswith(a)]
        return next((LEXNAMES[senses[pos][f]] for f in forms if f in senses[pos]), "O")

    return [[label(word, tag) for word, tag in s] for s in sentences]


def _first_senses(folder: Path, pos: str) -> dict[str, int]:
    """Lemma → number of the lexicographer file of its first (most frequent) sense."""
    data, index = ((folder / f"{name}.{pos}").read_text(encoding="utf-8") for name in ("data", "index"))
    file_of = dict(re.findall(r"^(\d{8}) (\d\d) ", data, re.MULTILINE))  # offset of a sense → number of its file
    entries = [line.split() for line in index.splitlines() if not line.startswith(" ")]
    return {cells[0]: int(file_of[cells[-int(cells[2])]]) for cells in entries}


SILVER = {"chunk": chunks, "supersense": supersenses}
"""Property → what computes its labels from sentences of words and Brown tags."""
