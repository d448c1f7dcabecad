"""Column files: one word per line with its labels, as CoNLL-2000, CoNLL-U, the Parallel Meaning Bank or one's own."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from lib.corpora.corpus import CorpusError, Sentence
from lib.study import params


def read(corpus: params.Corpus, properties: Sequence[str], seed: int) -> dict[str, list[Sentence]]:
    """The sentences of the three splits. Without a dev file, every tenth training sentence is held out. The texts of a
    split that has more words than the study takes are in an order drawn by ``seed``: files are ordered by genre.

    Raises CorpusError as ``read_columns`` does, and for a text that is withheld.
    """
    files = {split: params.ROOT / name for split, name in corpus.files.items()}
    splits = {split: [*read_columns(file, corpus.columns, corpus.separator)] for split, file in files.items()}
    for split, file in files.items():
        _refuse_withheld(splits[split], file)
    if "dev" not in splits:
        splits["dev"] = splits["train"][9::10]
        del splits["train"][9::10]
    return {
        split: _shuffled(sentences, seed) if _words_of(sentences) > getattr(corpus, f"{split}_words") else sentences
        for split, sentences in splits.items()
    }


def _words_of(sentences: Iterable[Sentence]) -> int:
    """How many words some sentences have."""
    return sum(len(sentence.words) for sentence in sentences)


def _shuffled(sentences: list[Sentence], seed: int) -> list[Sentence]:
    """Whole texts in an order drawn by ``seed``; where texts are unknown, sentences."""
    numbered = enumerate(sentences)
    texts = [[s for _, s in text] for _, text in groupby(numbered, lambda pair: pair[1].text or pair[0])]
    return [sentence for i in np.random.default_rng(seed).permutation(len(texts)) for sentence in texts[i]]


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
    tab, word, width = separator == "tab", columns["word"], 0
    for text, lines in _sentences(file, word, tab):
        rows = [_cells(line, tab) for _, line in lines]
        width = width or len(rows[0])
        for (number, line), cells in zip(lines, rows, strict=True):
            if problem := _problem(line, cells, columns, width, tab):
                raise CorpusError(f"{file}:{number}: {problem}")
        labels = {name: [r[column] for r in rows] for name, column in columns.items() if name != "word"}
        yield Sentence(text, [r[word] for r in rows], labels)


CONLLU = re.compile(
    r"#\s*(?:(?:sent_id|text|newdoc id|newpar id|global\.columns)\s*=|new(?:doc|par)\s*$)"
    r"|\d+(?:[-.]\d+)?(?:\t[^\t]*){9}$"
)
"""What only CoNLL-U has: its comments, and lines of ten columns of which the first is a number."""

REMARK = re.compile(r"#+\s*[a-z_]\w*\s*=|#+\s+id\b|</?\w+(\s+\w+=\S+)*\s*/?>\s*$")
"""What may stand before a sentence where white space separates, and is no word: ``# id 7``, ``# id = 7``, ``<s>``."""


def _cells(line: str, tab: bool) -> list[str]:
    return [c.strip(" ") for c in line.split("\t")] if tab else re.split(r"[ \t]+", line.strip(" \t"))


def _sentences(file: Path, word: int, tab: bool) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """The text of each sentence and its lines with their numbers; lines that hold no word are left out."""
    text, texts, lines = "", 0, []
    for number, line in chain(_lines(file), [(0, "")]):
        if not tab and CONLLU.match(line):
            raise CorpusError(f"{file}:{number}: this looks like CoNLL-U: give corpus.separator: tab")
        begun = _begun(line, word, tab)
        if begun is None and line.strip():
            if not _holds_no_word(line, word, tab, first=not lines):
                lines.append((number, line))
            continue
        if lines:
            yield text, lines
            lines = []
        if begun is not None:
            texts += 1
            text = begun or f"#{texts}"


def _begun(line: str, word: int, tab: bool) -> str | None:
    """The name of the text that begins at a line, '' if it has none; None where no text begins."""
    if "-DOCSTART-" in [*line.split()[:1], *_cells(line, tab)[word : word + 1]]:  # CoNLL-2003
        return ""
    begins = re.fullmatch(
        r"#\s*(?:newdoc(?:\s+id)?(?:\s*=\s*|\s+|$)|begin document\b\s*)(.*)",  # CoNLL-U, CoNLL-2012
        line.strip(),
    )
    return begins[1] if begins else None


def _holds_no_word(line: str, word: int, tab: bool, first: bool) -> bool:
    """Whether a line is a comment, or a word range or an empty node of CoNLL-U. ``first`` : of its sentence."""
    if not tab:
        return bool(re.match(r"#\s*end document\b", line) or (first and REMARK.match(line)))
    return (
        line.startswith("# ")
        or (line.startswith("#") and "\t" not in line)
        or (word > 0 and bool(re.match(r" *\d+[-.]\d+ *(\t|$)", line)))
    )


def _problem(line: str, cells: list[str], columns: dict[str, int], width: int, tab: bool) -> str:
    """What keeps a line from being read; '' if nothing does. ``width`` : how many columns the lines before it have."""
    last, number = max(columns.values()), f"{len(cells)} columns"
    if len(cells) <= last:
        return f"{number}, but column {last} (from 0) is asked for{_hint(line, tab)}"
    if len(cells) != width:
        return f"{number} where the lines before have {width}{_hint(line, tab)}"
    for name, column in columns.items():
        if not cells[column].strip():
            only = f" (nothing but {_codes(cells[column])})" if cells[column] else ""
            return f"empty {name if name == 'word' else f'label for {name!r}'}{only}"
    return ""


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    if not file.is_file():
        raise CorpusError(f"there is no corpus file {file}")
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.rstrip(b"\r\n")
            faults = {
                "a Git LFS pointer, not the corpus: fetch it with 'git lfs pull'":
                    number == 1 and line.startswith(b"version https://git-lfs"),
                "a packed file: unpack it":  # by gzip, zip, bzip2 or xz
                    number == 1 and line.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")),
                "not UTF-8 (zero bytes, as in UTF-16); convert the file": b"\0" in line,
                "a carriage return within the line; convert the line ends to \\n": b"\r" in line,
            }  # fmt: skip
            if fault := next((fault for fault, holds in faults.items() if holds), None):
                raise CorpusError(f"{file}:{number}: {fault}")
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
